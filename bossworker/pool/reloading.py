"""Handlers for workers that are started later: what the caller packs for them, and what they make of it.

A worker that was forked has the modules as they were when the pool was made. Those that the program has reloaded since
(``importlib.reload``, a notebook's autoreload) it reloads as well, before it loads the handlers. All that they use of
``__main__`` travels with them.

An operator names a work handler instead. Its module is imported in the new workers or, where they have it, loaded anew.
"""

from __future__ import annotations

import importlib
import io
import pickle
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import reduce
from importlib.machinery import ModuleSpec
from typing import Any

from bossworker.pickling import MAIN_NAME
from bossworker.pool.fresh_interpreter import dumps_handlers
from bossworker.pool.options import Handlers
from bossworker.system.checks import check_callable
from bossworker.system.newcomers import Newcomers


class LoadedModules:
    """The modules as they are now, when a process is about to be forked that has them."""

    def __init__(self) -> None:
        self._specs = _specs_now()

    def reloaded(self) -> list[str]:
        """Those of them that have been loaded once more since."""
        now = _specs()  # a reload finds the module's spec anew
        return [name for name, spec in self._specs.items() if name in now and now[name] is not spec]


_new_specs = Newcomers(ModuleSpec)
_known_specs: dict[str, ModuleSpec] = {}


def _specs_now() -> dict[str, ModuleSpec]:
    """The same object as last time, as long as no module has been loaded."""
    global _known_specs
    found = _new_specs.look()
    if found is not None:
        _known_specs = _specs()
        _new_specs.all_known(found)
    return _known_specs


def _specs() -> dict[str, ModuleSpec]:
    modules = {name: getattr(module, "__spec__", None) for name, module in list(sys.modules.items())}
    return {name: spec for name, spec in modules.items() if isinstance(spec, ModuleSpec) and name != MAIN_NAME}


def pack_renewed(handlers: Handlers, loaded: LoadedModules | None) -> bytes:
    """Handlers as bytes; TypeError names the one that cannot travel. `loaded`: what the workers are forked with."""
    modules = [] if loaded is None else loaded.reloaded()
    return pickle.dumps(modules) + dumps_handlers(handlers, "to be reloaded")


def handlers_in(packed: bytes) -> bytes:
    """The handlers alone, for processes that load all modules anew."""
    file = io.BytesIO(packed)
    pickle.load(file)
    return packed[file.tell() :]


def renewed_of(handlers: bytes) -> bytes:
    """The other way round."""
    return pickle.dumps([]) + handlers


def load_renewed(packed: bytes, first: Callable[[], Handlers]) -> Handlers:
    """In a worker. `first` loads the handlers that the pool began with.

    What the boss sends for a work handler that was named (``boss/reloads.py``) is its name, and behind that what the
    program packed last, if anything.
    """
    file = io.BytesIO(packed)
    head = pickle.load(file)
    if isinstance(head, str):
        before = file.read()
        work = _found_anew(head)
        return replace(load_renewed(before, first) if before else first(), work=work)
    for name in head:
        if name in sys.modules:
            importlib.reload(sys.modules[name])
    handlers: Handlers = pickle.load(file)
    return handlers


def _found_anew(name: str) -> Callable[[Any], Any]:
    """What ``pkg.mod:fn`` names, as its file is now."""
    module, _, path = name.partition(":")
    known = sys.modules.get(module)
    is_ours = module.partition(".")[0] == __name__.partition(".")[0]  # the worker itself is made of these
    loaded = importlib.import_module(module) if known is None or is_ours else importlib.reload(known)
    work: Any = reduce(getattr, path.split("."), loaded)
    check_callable("work_handler", work, optional=False)
    return work  # type: ignore[no-any-return]

"""Calls: jobs that are a function and its arguments. Made in the caller, run in a worker.

The function travels in one of three ways: by its name, where the worker finds the same one; as bytes, pickled once for
many calls; or as it is, in the pickle of the job. Only the first keeps a job plain data, of which many are pickled
together.
"""

from __future__ import annotations

import pickle
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial, reduce
from importlib import import_module
from types import BuiltinFunctionType, FunctionType
from typing import Any

from bossworker.pickling import MAIN_NAME, MainDefinitions

Function = Callable[..., Any]

FUNCTION, ARGUMENTS, KEYWORDS = "call", "args", "kwargs"  # keys of such a job
VALUE = "value"  # the key of its result

_PLAIN = (FunctionType, BuiltinFunctionType, type)  # what is found by its name, if by anything


class FunctionCall(dict[str, Any]):
    """A job that any pool runs as a call, whatever its handler."""


class Initializer(partial[Any]):
    """What the user of an `Executor` knows as its `initializer`, where a pool has an ``init_handler``."""


def run_call(job: Mapping[str, Any]) -> dict[str, Any]:
    """The handler of a pool that runs calls."""
    function = job[FUNCTION]
    if type(function) is str:
        function = found(function)
    elif type(function) is bytes:
        function = _loaded(function)
    return {VALUE: function(*job[ARGUMENTS], **job.get(KEYWORDS, {}))}


@lru_cache(maxsize=1024)
def found(name: str) -> Function:
    """What ``module:path`` names, here; without a module, in ``__main__``."""
    module, _, path = name.partition(":")
    return _attribute(import_module(module or MAIN_NAME), path)  # type: ignore[no-any-return]


def _attribute(module: Any, path: str) -> Any:
    return reduce(getattr, path.split("."), module)


@lru_cache(maxsize=16)
def _loaded(function: bytes) -> Function:
    loaded: Function = pickle.loads(function)
    return loaded


def name_of(function: Function, definitions: MainDefinitions | None) -> str | None:
    """The name by which a worker finds this very function; None if it does not.

    Args:
        definitions: What the workers know of ``__main__``; None: nothing.
    """
    if type(function) not in _PLAIN:
        return None
    module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", None)
    if module not in sys.modules or path is None:
        return None
    if module == MAIN_NAME and not (definitions is not None and definitions.has(function)):
        return None
    try:
        same = _attribute(sys.modules[module], path) is function
    except AttributeError:  # of a function in a function, for one
        return None
    if not same:
        return None
    # A pickle that names `__main__` is looked through for what the workers do not know: this one need not be.
    return f":{path}" if module == MAIN_NAME else f"{module}:{path}"

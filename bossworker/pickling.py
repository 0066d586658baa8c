"""Pickles of whatever can be pickled, by pickle or else by cloudpickle; and classes that stay the same on their way.

A class that cannot be found by its name, because it was defined in a function or in another process's ``__main__``,
travels by value, with an identity (cloudpickle's) under which a process finds it again when it comes back. Two things
are added to that. Those that are there when a process is forked get their identity before, so that both processes know
them by it. And a class is filled with its attributes only when it is made: to load an instance later does not undo what
the process has set in the class since.
"""

from __future__ import annotations

import io
import pickle
import sys
import weakref
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import cloudpickle
from cloudpickle import cloudpickle as _cloudpickle  # of which we use what the last section of this module names

from bossworker.system.newcomers import Newcomers

PROTOCOL = 5
MAIN_NAME = "__main__"
MAIN = MAIN_NAME.encode()


class MainDefinitions:
    """The functions and classes of ``__main__`` as they are now, when a process is about to be forked that knows them.

    It is true once there are others. These, a notebook's above all, must travel by value; those that were there are
    found by name, and see the same globals as what an initializer has set there.
    """

    def __init__(self) -> None:
        self._known = _definitions()

    def __bool__(self) -> bool:
        known = self._known
        return any(known.get(name) is not value for name, value in _definitions().items())

    def has(self, value: object) -> bool:
        """Whether this function or class of ``__main__`` is one of them, or is found in one of them by its name."""
        name, *inner = getattr(value, "__qualname__", "").split(".")
        found = self._known.get(name)
        if found is None or getattr(sys.modules[MAIN_NAME], name, None) is not found:
            return False
        for name in inner:  # of what is defined in a function, "<locals>" is not found
            found = getattr(found, name, None)
        return found is value


_at_fork: MainDefinitions | None = None


def note_main_definitions() -> None:
    """Before a fork: the child and all below it have the same; each would have to look at all of them."""
    global _at_fork
    _at_fork = MainDefinitions()


def inherited_main_definitions() -> MainDefinitions:
    """In such a child."""
    return _at_fork or MainDefinitions()


def _definitions() -> dict[str, object]:
    values = list(vars(sys.modules[MAIN_NAME]).items())  # other threads may define more
    return {name: value for name, value in values if isinstance(value, FunctionType | type)}


def dumps(
    value: object, by_value: bool | MainDefinitions = False, beside: list[pickle.PickleBuffer] | None = None
) -> bytes:
    """Pickle; what pickle cannot, lambdas and closures above all, by cloudpickle. Buffers go to `beside`, if given.

    Args:
        by_value: Take along what is defined in ``__main__``; or only what is not among these definitions.
    """
    callback = None if beside is None else beside.append
    try:
        data = pickle.dumps(value, PROTOCOL, buffer_callback=callback)
        if not (MAIN in data and by_value):
            return data
    except Exception:
        pass
    if beside:
        beside.clear()
    with io.BytesIO() as file:
        Pickler(file, callback, by_value if isinstance(by_value, MainDefinitions) else None).dump(value)
        return file.getvalue()


class Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with the differences that the module tells of; and open files do not travel.

    `known`: definitions of ``__main__`` that go by name.
    """

    def __init__(self, file: io.BytesIO, callback: Any = None, known: MainDefinitions | None = None) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=callback)
        self._known = known

    def reducer_override(self, value: Any) -> Any:
        is_class = issubclass(type(value), type)
        if (is_class or type(value) is FunctionType) and self._known is not None:
            if getattr(value, "__module__", None) == MAIN_NAME and self._known.has(value):
                return NotImplemented
        elif isinstance(value, io.IOBase):
            _refuse_open_file(value)
        reduced = super().reducer_override(value)
        return _filled_once(reduced) if is_class else reduced


def _refuse_open_file(file: io.IOBase) -> None:
    """cloudpickle would read it all, and send a StringIO in its place."""
    if file not in (sys.stdout, sys.stderr) and not isinstance(file, io.BytesIO | io.StringIO):
        raise TypeError("an open file cannot travel: send its path, or what is in it")


# -- what cloudpickle does with classes, and how we have it done ----------------------------------------------------

_fill: Callable[[type, Any], type] = _cloudpickle._class_setstate
_known_ids: weakref.WeakValueDictionary[str, type] = _cloudpickle._DYNAMIC_CLASS_TRACKER_BY_ID
_give_identity: Callable[[type], str] = _cloudpickle._get_or_create_tracker_id

_MADE_BY_CODE = 1 << 9  # of a class's __flags__: it is not built into a program or library

_empty: weakref.WeakSet[type] = weakref.WeakSet()
"""Classes that were made, and wait for their attributes."""


def _filled_once(reduced: Any) -> Any:
    """As cloudpickle would reduce a class, but for the steps in which it is made and filled."""
    if not (isinstance(reduced, tuple) and len(reduced) == 6 and reduced[5] is _fill):
        return reduced
    make, arguments, state = reduced[:3]
    return make_class, (make, *arguments), state, None, None, fill_class


def make_class(make: Callable[..., type], *arguments: Any) -> type:
    """Find a class that is known here by its identity (the last argument but one), or make an empty one."""
    known = arguments[-2] in _known_ids
    made = make(*arguments)
    if not known:
        _empty.add(made)
    return made


def fill_class(made: type, state: Any) -> type:
    """Give a class its attributes, unless it has them."""
    if made not in _empty:
        return made
    _empty.discard(made)
    return _fill(made, state)


_new_classes = Newcomers(type)


def identify_classes() -> None:
    """Before a fork: give each class that may travel by value an identity, by which both processes know it.

    When no class has been made since the last fork, each that wants one has one. (But for one whose name the program
    has given to something else meanwhile, without making anything new: that one travels as a copy.)
    """
    found = _new_classes.look()
    if found is None:
        return
    for one in _all_classes():
        try:
            if one.__flags__ & _MADE_BY_CODE and not _is_in_its_module(one):
                _give_identity(one)
        except Exception:  # its metaclass has its own idea of names, or of being a key
            continue
    _new_classes.all_known(found)


def _is_in_its_module(one: type) -> bool:
    """Whether it is there under its own name, as nearly all are, and so travels by that.

    A module's ``__getattr__`` is not asked: it may warn, or load something. (A class that only this knows gets an
    identity, too, which does no harm.)
    """
    module = sys.modules.get(one.__module__)
    if module is None or module.__name__ == MAIN_NAME:
        return False
    found: Any = module
    for name in one.__qualname__.split("."):
        found = getattr(found, "__dict__", {}).get(name)
    return found is one


def _all_classes() -> Iterator[type]:
    waiting, seen = [object], {id(object)}
    for one in waiting:
        yield one
        for below in type.__subclasses__(one):
            if id(below) not in seen:
                seen.add(id(below))
                waiting.append(below)

"""Pickles of whatever can be pickled, by pickle or else by cloudpickle."""

from __future__ import annotations

import io
import pickle
import sys
from types import FunctionType
from typing import Any

import cloudpickle

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
        """Whether this function or class of ``__main__``, or what it is defined in, is one of them."""
        name = getattr(value, "__qualname__", "").partition(".")[0]
        known = self._known.get(name)
        return known is not None and getattr(sys.modules[MAIN_NAME], name, None) is known


def _definitions() -> dict[str, object]:
    values = list(vars(sys.modules[MAIN_NAME]).items())  # other threads may define more
    return {name: value for name, value in values if isinstance(value, FunctionType | type)}


class _ByValue(cloudpickle.Pickler):  # type: ignore[misc]
    """Takes along what is defined in ``__main__``, but for what is known already."""

    def __init__(self, file: io.BytesIO, callback: Any, known: MainDefinitions) -> None:
        super().__init__(file, protocol=PROTOCOL, buffer_callback=callback)
        self._known = known

    def reducer_override(self, value: object) -> Any:
        defined = isinstance(value, FunctionType | type) and getattr(value, "__module__", None) == MAIN_NAME
        return NotImplemented if defined and self._known.has(value) else super().reducer_override(value)


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
    if isinstance(by_value, MainDefinitions):
        with io.BytesIO() as file:
            _ByValue(file, callback, by_value).dump(value)
            return file.getvalue()
    return cloudpickle.dumps(value, PROTOCOL, buffer_callback=callback)  # type: ignore[no-any-return]

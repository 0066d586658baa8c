"""Which part of a value it is that cannot be pickled, and where it lies: ``job['a']['b'][3]``."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from types import FunctionType
from typing import Any

from bossworker.display import shorten
from bossworker.failure import describe
from bossworker.pickling import MainDefinitions, dumps

DEEPEST = 30  # steps from the key down; what lies deeper is told by what it lies in
_INHERITED = "through inheritance"  # what multiprocessing says of its queues, locks and events


def culprit_of(name: str, mapping: Mapping[Any, Any], by_value: bool | MainDefinitions, interrupts: Any) -> str:
    """The entry that cannot be pickled, the part of it that is to blame, and why; empty if no entry is.

    Args:
        name: What the mapping is called, ``job`` for example.
        interrupts: Exceptions that are none of the pickling's: they are let through.
    """
    search = _Search(by_value, interrupts)
    for key, value in mapping.items():
        for part in (key, value):
            error = search.error_of(part)
            if error is not None:
                path, culprit, reason = search.deepest(f"{name}[{shorten(key)}]", part, error)
                inner = "" if culprit is part else f", and {path} is {type(culprit).__name__}"
                told = f"{type(value).__name__}{inner} ({describe(reason)}){_advice(reason)}"
                return f"key {shorten(key)} holds {told}"
    return ""


def _advice(error: BaseException) -> str:
    if _INHERITED not in str(error):
        return ""
    return ": let the handlers refer to it, as a global name for example, or take one of a multiprocessing.Manager()"


class _Search:
    def __init__(self, by_value: bool | MainDefinitions, interrupts: Any) -> None:
        self._by_value = by_value
        self._interrupts = interrupts

    def error_of(self, part: object) -> BaseException | None:
        """Why it cannot be pickled; None if it can."""
        try:
            dumps(part, self._by_value)
        except self._interrupts:
            raise
        except BaseException as error:  # a __reduce__ may raise anything
            return error
        return None

    def deepest(self, path: str, part: object, error: BaseException) -> tuple[str, object, BaseException]:
        """The innermost part that cannot be pickled, for the same reason: where it is, itself, and why."""
        for _ in range(DEEPEST):
            if "recursion" in str(error):  # not this or that part is to blame, but how deep it lies
                break
            for step, inner in _parts(part):
                why = self.error_of(inner)
                if why is not None and describe(why) == describe(error):
                    path, part, error = path + step, inner, why
                    break
            else:
                break
        return path, part, error


def _parts(value: object) -> Iterator[tuple[str, object]]:
    """What is pickled with a value, as far as that is known, and how it is called."""
    if isinstance(value, dict):
        for key, inner in list(value.items()):
            yield f"[{shorten(key)}]", inner
            yield f".key({shorten(key)})", key
    elif isinstance(value, list | tuple):
        for at, inner in enumerate(value):
            yield f"[{at}]", inner
    elif isinstance(value, set | frozenset):
        for inner in list(value):
            yield f".member({shorten(inner)})", inner
    elif isinstance(value, FunctionType):
        yield from _variables(value)
    elif not isinstance(value, type):
        for name, inner in list(getattr(value, "__dict__", {}).items()):
            yield f".{name}", inner


def _variables(function: FunctionType) -> Iterator[tuple[str, object]]:
    """What a function takes along when it travels by value."""
    code = function.__code__
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield f"'s variable {name}", cell.cell_contents
        except ValueError:  # it has no value yet
            continue
    for name in code.co_names:
        if name in function.__globals__:
            yield f"'s global {name}", function.__globals__[name]

"""Which tasks a search means: a nested mapping to be found in a task's info, or a predicate on it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

Pattern = Mapping[str, Any] | Callable[[dict[str, Any]], object] | None


def matcher(pattern: Pattern) -> Callable[[dict[str, Any]], bool]:
    """A function that tells whether an info matches. TypeError if `pattern` is none of the three."""
    if pattern is None:
        return lambda info: True
    if isinstance(pattern, Mapping):
        return lambda info: contains(info, pattern)
    if callable(pattern):
        return lambda info: _holds(pattern, info)
    raise TypeError(f"pattern must be a mapping, a callable or None, not {pattern!r}")


def contains(value: object, pattern: object) -> bool:
    """Whether each key of the pattern, at every depth, is in `value` with what the pattern says."""
    if not isinstance(pattern, Mapping):
        return bool(value == pattern)
    return isinstance(value, Mapping) and all(key in value and contains(value[key], pattern[key]) for key in pattern)


def _holds(predicate: Callable[[dict[str, Any]], object], info: dict[str, Any]) -> bool:
    try:
        return bool(predicate(info))
    except Exception:  # a key that this task's info lacks, most often: as documented, no match
        return False

"""JSON of whatever there is: of what a handler in Python has returned, or a program has put into its metadata."""

from __future__ import annotations

import json
from math import isfinite

_DEEPEST = 100  # levels


def json_text(value: object) -> str:
    """On one line. What JSON cannot say is said in words; what is no number (NaN, an infinity) is null."""
    try:
        return json.dumps(value, default=str, allow_nan=False)
    except (TypeError, ValueError, RecursionError):  # a key that is no text, NaN, what is nested in itself
        return json.dumps(_sayable(value, ()), default=str)


def _sayable(value: object, above: tuple[int, ...]) -> object:
    if isinstance(value, float) and not isfinite(value):
        return None
    if not isinstance(value, (dict, list, tuple)):
        return value
    if id(value) in above or len(above) == _DEEPEST:
        return "..."
    above = (*above, id(value))
    if isinstance(value, dict):
        return {_key(key): _sayable(one, above) for key, one in value.items()}
    return [_sayable(one, above) for one in value]


def _key(key: object) -> object:
    return key if key is None or isinstance(key, (str, int)) else str(key)

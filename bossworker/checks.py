"""Checks of values that several of the package's parts take."""

from __future__ import annotations

import numbers

MAX_SECONDS = 1e9  # some thirty years: more is a mistake in the unit


def check_seconds(name: str, value: object) -> float:
    """A number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, not {value!r}")
    value = float(value)
    if not 0 <= value <= MAX_SECONDS:  # nor NaN
        raise ValueError(f"{name} must be between 0 and {MAX_SECONDS:.0e} seconds, not {value!r}")
    return value

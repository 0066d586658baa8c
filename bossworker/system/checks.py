"""Checks of values that several of the package's parts take."""

from __future__ import annotations

import numbers
import os
import signal

_COUNT_LIMIT = 1 << 32  # of the 32 bits that hold a count
MAX_SECONDS = 1e9  # some thirty years: more is a mistake in the unit
_HIGHEST_SIGNAL = max(map(int, signal.valid_signals()))


def _shown(value: object) -> str:
    from bossworker.display import shorten  # which is not needed unless something is wrong

    return shorten(value)


def check_seconds(name: str, value: object) -> float:
    """A number of seconds, 0 or more."""
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number of seconds, not {_shown(value)}")
    try:
        value = float(value)
    except OverflowError:  # an int beyond all floats, which may have too many digits to be shown
        raise ValueError(f"{name} must be between 0 and {MAX_SECONDS:.0e} seconds, not so large an int") from None
    if not 0 <= value <= MAX_SECONDS:  # nor NaN
        raise ValueError(f"{name} must be between 0 and {MAX_SECONDS:.0e} seconds, not {_shown(value)}")
    return value


def check_bool(name: str, value: object) -> bool:
    """True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {_shown(value)}")
    return value


def check_path(name: str, value: object) -> str:
    """The path of a file. (An int, which `open` takes for a descriptor, is not.)"""
    if not isinstance(value, str | os.PathLike):
        raise TypeError(f"{name} must be a path (a str, or path-like), not {_shown(value)}")
    path = os.fsdecode(value)
    try:
        if b"\0" not in os.fsencode(path) and path:
            return path
    except UnicodeEncodeError:  # of half of a character
        pass
    raise ValueError(f"{name} must be the path of a file, not {_shown(path)}")


def check_signal(value: object) -> int:
    """The number of a signal, from its number or its name, with or without SIG."""
    if isinstance(value, str):
        name = value.upper().removeprefix("SIG")
        if f"SIG{name}" not in signal.Signals.__members__:
            raise ValueError(
                f"signal must be a number from 1 to {_HIGHEST_SIGNAL} or a name such as 'TERM', not {_shown(value)}"
            )
        return int(signal.Signals[f"SIG{name}"])
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"signal must be an int or a str, not {_shown(value)}")
    if value not in signal.valid_signals():
        raise ValueError(f"signal must be one of this system's, from 1 to {_HIGHEST_SIGNAL}, not {_shown(value)}")
    return int(value)


def check_callable(name: str, value: object, optional: bool = True) -> None:
    """TypeError unless `value` is callable, or None where that is allowed."""
    if callable(value) or (optional and value is None):
        return
    allowed = "a callable or None" if optional else "a callable"
    raise TypeError(f"{name} must be {allowed}, not {_shown(value)}")


def check_count(name: str, value: object, least: int = 0, most: int = _COUNT_LIMIT - 1) -> int:
    """A whole number from `least` to `most`."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an int, not {_shown(value)}")
    value = int(value)
    if not least <= value <= most:
        raise ValueError(f"{name} must be an int from {least} to {most}, not {_shown(value)}")
    return value

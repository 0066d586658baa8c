"""What the examples take for a number on their command lines: types for argparse, which names the option."""

from __future__ import annotations

from argparse import ArgumentTypeError
from collections.abc import Callable

MAX_WORKERS = 1024
MAX_SECONDS = 1e9


def whole(least: int, most: int) -> Callable[[str], int]:
    """An int from `least`, which is not negative, to `most`."""

    def read(text: str) -> int:
        if not text.isdecimal() or len(text) > 20 or not least <= int(text) <= most:
            raise ArgumentTypeError(f"must be an int from {least} to {most}, not {text!r:.50}")
        return int(text)

    return read


def seconds(text: str) -> float:
    """A number of seconds, 0 or more."""
    try:
        if 0 <= float(text) <= MAX_SECONDS:  # nor NaN
            return float(text)
    except ValueError:
        pass
    raise ArgumentTypeError(f"must be a number of seconds from 0 to {MAX_SECONDS:.0e}, not {text!r:.50}")

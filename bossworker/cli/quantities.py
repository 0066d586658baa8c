"""Durations, sizes and numbers of jobs, as they are written on a command line. ValueError says what is allowed."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re
    from typing import TypeVar

    Given = TypeVar("Given")

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = r"([0-9]+\.?[0-9]*|\.[0-9]+)([smhd]?)"
_SIZES = {"": 1, **{letter: 1024 ** (at + 1) for at, letter in enumerate("KMGT")}}
_SIZE = r"([0-9]+\.?[0-9]*)(?:([KMGT])I?)?B?"
_SHARE = r"([0-9]+\.?[0-9]*|\.[0-9]+)(%?)"
_LARGEST = (1 << 63) - 1  # what 64 bits hold
MOST_JOBS = 250  # at once, of ``-j 0``
_MOST_SLOTS = 10_000  # there are no machines that run more at once; each takes memory
_MOST_DIGITS = 18
_MOST_TOLD = 600  # characters of an error


def shortened(text: str) -> str:
    """An error's text, cut in the middle where a value makes it long: its end says what is allowed."""
    return text if len(text) <= _MOST_TOLD else f"{text[: _MOST_TOLD // 2]}...{text[-_MOST_TOLD // 2 :]}"


def printable(text: str) -> str:
    """On one line, without what steers a terminal."""
    return "".join(one if one.isprintable() else "?" for one in text)


def is_line(word: str, folder: str | None) -> bool:
    """Whether a command of one word is most likely a command line: there are spaces in it, and no such program."""
    if word.split() == [word] or os.access(os.path.join(folder or "", word), os.X_OK):
        return False
    import shutil

    return shutil.which(word) is None


def check_with(parse: Callable[[str], Given]) -> Callable[[str], Given]:
    """For argparse: so that the parser's own words are told."""

    def check(text: str) -> Given:
        try:
            return parse(text)
        except (OSError, TypeError, ValueError) as error:
            from argparse import ArgumentTypeError

            raise ArgumentTypeError(f"{text!r}: {error}") from None

    return check


def parse_given(text: str) -> str:
    """Anything but nothing."""
    if not text:
        raise ValueError("it is empty")  # a variable of the shell that is not set, perhaps
    return text


def one_of(words: Sequence[str]) -> Callable[[str], str]:
    """A parser that takes these words, and no others."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"it is one of {', '.join(words)}")
        return text

    return parse


def parse_pair(text: str) -> str:
    """``K=V``."""
    if text.find("=") < 1:
        raise ValueError("it is written K=V")
    return text


def parse_duration(text: str) -> float:
    """Seconds: ``90``, ``1.5``, ``2m``, ``1h30m``."""
    import re

    at, seconds = 0, 0.0
    for found in re.finditer(_DURATION, text.lower(), re.ASCII):
        if found.start() != at:
            break
        seconds += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not text or at != len(text):
        raise ValueError("it is a number of seconds, or one with s, m, h or d, such as 1h30m")
    from bossworker.system.checks import MAX_SECONDS  # which loads what most runs do without

    if seconds > MAX_SECONDS:
        raise ValueError(f"it is at most {MAX_SECONDS:.0f} seconds, which are some thirty years")
    return seconds


def parse_whole(text: str) -> int:
    """``4096``, ``-1``."""
    if _match("[+-]?[0-9]{1,19}", text) is None or abs(int(text)) > _LARGEST:
        raise ValueError("it is a whole number of at most 64 bits")
    return int(text)


def parse_count(text: str) -> int:
    """``4096``; not below 0."""
    if not _is_number(text):
        raise ValueError("it is a whole number, 0 or more, of at most 18 digits")
    return int(text)


def parse_size(text: str) -> int:
    """Bytes: ``1000``, ``512M``, ``2G``; K, M, G and T are powers of 1,024."""
    found = _match(_SIZE, text.upper())
    if found is None:
        raise ValueError("it is a number of bytes, or one with K, M, G or T, such as 512M")
    size = float(found[1]) * _SIZES[found[2] or ""]
    if size >= _LARGEST:
        raise ValueError("it is less than 8388608T")
    return int(size)


def parse_share(text: str) -> tuple[float, bool]:
    """A number, and whether it is of a hundred: ``400%``, ``2.5``."""
    found = _match(_SHARE, text)
    if found is None or float(found[1]) > _LARGEST:
        raise ValueError("it is a number, or one with %, such as 50%")
    return float(found[1]), bool(found[2])


def parse_jobs(text: str, cores: int) -> int:
    """``4``, ``+1`` and ``-1`` (more or less than cores), ``50%`` of them, ``0`` (many), or a file that says it."""
    found = _jobs_in(text)
    if found is None and os.path.isfile(text):
        with open(text) as file:
            found = _jobs_in(file.read(100).strip())
    if found is None:
        raise ValueError("it is a number, +N or -N, N%, 0, or a file that holds one of these")
    sign, digits, share = found
    number = int(cores * float(digits) / 100) if share else int(digits)
    if sign:
        number = cores + number if sign == "+" else cores - number
    elif not number and not share:
        return MOST_JOBS
    if number > _MOST_SLOTS:
        raise ValueError(f"it is at most {_MOST_SLOTS:,} at once")
    return max(1, number)


def _jobs_in(text: str) -> tuple[str, str, bool] | None:
    """A sign, a number, and whether it is one of a hundred."""
    sign, share = text[:1] if text[:1] in ("+", "-") else "", text.endswith("%")
    digits = text.removeprefix(sign).removesuffix("%")
    whole = digits.replace(".", "", 1) if share else digits
    return (sign, digits, share) if _is_number(whole) else None


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _MOST_DIGITS


def _match(pattern: str, text: str) -> re.Match[str] | None:
    """Of all of it. Most command lines have no need of that, and to load ``re`` takes 5 ms."""
    import re

    return re.fullmatch(pattern, text, re.ASCII)

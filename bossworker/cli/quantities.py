"""Durations, sizes and numbers of jobs, as they are written on a command line. ValueError says what is allowed."""

from __future__ import annotations

import os
import re

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)([smhd]?)", re.ASCII)
_SIZES = {"": 1, **{letter: 1024 ** (at + 1) for at, letter in enumerate("KMGT")}}
_SIZE = re.compile(r"([0-9]+\.?[0-9]*)([KMGT]?)(?:I?B)?", re.ASCII)
MOST_JOBS = 250  # at once, of ``-j 0``


def parse_duration(text: str) -> float:
    """Seconds: ``90``, ``1.5``, ``2m``, ``1h30m``."""
    at, seconds = 0, 0.0
    for found in _DURATION.finditer(text):
        if found.start() != at:
            break
        seconds += float(found[1]) * _UNITS[found[2]]
        at = found.end()
    if not text or at != len(text):
        raise ValueError("it is a number of seconds, or one with s, m, h or d, such as 1h30m")
    return seconds


def parse_whole(text: str) -> int:
    """``4096``, ``-1``."""
    try:
        return int(text)
    except ValueError:
        raise ValueError("it is a whole number") from None


def parse_size(text: str) -> int:
    """Bytes: ``1000``, ``512M``, ``2G``; K, M, G and T are powers of 1,024."""
    found = _SIZE.fullmatch(text.upper())
    if found is None:
        raise ValueError("it is a number of bytes, or one with K, M, G or T, such as 512M")
    return int(float(found[1]) * _SIZES[found[2]])


def parse_share(text: str) -> tuple[float, bool]:
    """A number, and whether it is of a hundred: ``400%``, ``2.5``."""
    percent = text.endswith("%")
    try:
        number = float(text.removesuffix("%"))
    except ValueError:
        number = -1.0
    if not 0 <= number < float("inf"):
        raise ValueError("it is a number, or one with %, such as 50%")
    return number, percent


def parse_jobs(text: str, cores: int) -> int:
    """``4``, ``+1`` and ``-1`` (more or less than cores), ``50%`` of them, ``0`` (many), or a file that says it."""
    if os.path.isfile(text):
        with open(text) as file:
            text = file.read(100).strip()
    found = re.fullmatch(r"([+-]?)([0-9]+)(%?)", text, re.ASCII)
    if found is None:
        raise ValueError("it is a number, +N or -N, N%, 0, or a file that holds one of these")
    number = int(found[2])
    if found[3]:
        number = int(cores * number / 100)
    if found[1]:
        number = cores + number if found[1] == "+" else cores - number
    elif not number and not found[3]:
        return MOST_JOBS
    return max(1, number)

"""What /proc tells of a process and its descendants. Linux only: elsewhere there are none."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")
TICK = 1 / os.sysconf("SC_CLK_TCK")  # seconds of CPU time a unit in stat
PAGE = os.sysconf("SC_PAGE_SIZE")
NANO = 1e-9


class Usage(NamedTuple):
    """Of some processes together."""

    cpu_seconds: float
    wakeups: int
    rss: int


def descendants() -> list[int]:
    """This process's, itself not among them."""
    children: dict[int, list[int]] = {}
    for pid, parent in _parents():
        children.setdefault(parent, []).append(pid)
    found = [os.getpid()]
    for pid in found:
        found.extend(children.get(pid, ()))
    return found[1:]


def usage(pids: Iterable[int]) -> Usage:
    entries = [PROC / str(pid) for pid in pids]
    return Usage(sum(map(_cpu_seconds, entries)), sum(map(_wakeups, entries)), sum(map(_rss, entries)))


def _parents() -> Iterator[tuple[int, int]]:
    for entry in PROC.glob("[0-9]*"):
        with suppress(OSError):
            yield int(entry.name), int(_stat_fields(entry)[1])


def _stat_fields(entry: Path) -> list[str]:
    """The fields of stat behind the program's name: state, parent, ..."""
    return (entry / "stat").read_text().rpartition(")")[2].split()


def _cpu_seconds(entry: Path) -> float:
    """To the nanosecond where the scheduler tells, else in ticks."""
    with suppress(OSError, ValueError):
        return sum(int(task.read_text().split()[0]) for task in entry.glob("task/*/schedstat")) * NANO
    with suppress(OSError):
        fields = _stat_fields(entry)
        return (int(fields[11]) + int(fields[12])) * TICK
    return 0.0


def _wakeups(entry: Path) -> int:
    total = 0
    for status in entry.glob("task/*/status"):
        with suppress(OSError):
            lines = status.read_text().splitlines()
            total += sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt"))
    return total


def _rss(entry: Path) -> int:
    with suppress(OSError):
        return int((entry / "statm").read_text().split()[1]) * PAGE
    return 0

"""Whether a job may be started now: ``--delay``, ``--load``, ``--memfree``."""

from __future__ import annotations

import os
import sys
import time

from bossworker.system import proc

TICK = 0.1  # seconds until it is asked again


class Throttle:
    """Asked before each start."""

    def __init__(self, delay: float, load: tuple[float, bool] | None, memfree: int, cores: int) -> None:
        self._delay = delay
        self._load = None if load is None else load[0] * cores / 100 if load[1] else load[0]
        self.memfree = memfree
        self._next = 0.0

    def __bool__(self) -> bool:
        return bool(self._delay or self._load is not None or self.memfree)

    def pause(self, running: int) -> float:
        """Seconds to wait until it is asked again; 0: one may be started, and counts as started.

        Want of memory keeps all but the only one, which would wait for ever. Load keeps all, as with GNU parallel.
        """
        left = self._next - time.monotonic()
        if left > 0:
            return left
        if self._load is not None and wanting() > self._load:
            return TICK
        if self.memfree and running and free_memory() < self.memfree:
            return TICK
        self._next = time.monotonic() + self._delay
        return 0.0

    @property
    def memory_is_short(self) -> bool:
        """Whether so little is free that the youngest job has to go."""
        return bool(self.memfree) and free_memory() < self.memfree / 2


def wanting() -> float:
    """How many processes want a core just now, but this one; where that is not told, the load average."""
    fields = proc.read("loadavg").split()
    try:
        return max(0, int(fields[3].partition(b"/")[0]) - 1)
    except (IndexError, ValueError):
        return os.getloadavg()[0]


def free_memory() -> int:
    """Bytes that programs could have without swapping; a lot where that is not told."""
    text = proc.read("meminfo")
    try:
        return int(text.partition(b"MemAvailable:")[2].split(maxsplit=1)[0]) * 1024
    except (IndexError, ValueError):
        return sys.maxsize

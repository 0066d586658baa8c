"""How busy the machine is."""

from __future__ import annotations

import os
from contextlib import suppress

RECHECK_SECONDS = 1.0  # the kernel itself takes the load every five

_MEMINFO = "/proc/meminfo"


def load_average() -> float:
    """The load average of the last minute. OSError where there is none."""
    return os.getloadavg()[0]


def available_memory() -> int:
    """Bytes that programs can have without swapping. OSError where the platform does not tell."""
    with open(_MEMINFO, "rb") as file:
        for line in file:
            name, _, value = line.partition(b":")
            if name == b"MemAvailable":
                return int(value.split()[0]) * 1024
    raise OSError(f"{_MEMINFO} has no MemAvailable")


def is_free(max_load: float, min_free_memory: int) -> bool:
    """Whether the machine is below the load and has the memory; 0 is no limit.

    What cannot be told any more (a /proc that went away) limits nothing: the queue must not stop for ever.
    """
    with suppress(OSError):
        if max_load and load_average() >= max_load:
            return False
    with suppress(OSError):
        if min_free_memory and available_memory() < min_free_memory:
            return False
    return True

"""What processes take, with all that they have started: memory, and processor time from look to look."""

from __future__ import annotations

import time
from typing import Any

from bossworker.system import memory, proc
from bossworker.system.descendants import descendants

MOST_PROCESSES = 500  # that are looked at, of one tree
LEAST_SECONDS = 0.4  # between two looks that are compared: the kernel counts processor time in hundredths
MOST_TREES = 200  # that are remembered


class UsageWatch:
    """Not for several threads at once."""

    def __init__(self) -> None:
        self._before: dict[
            tuple[int, int], tuple[float, float, float | None]
        ] = {}  # of a process: when, seconds, share

    def look(self, pid: int) -> dict[str, Any] | None:
        """Of a process and those below it: bytes, share of one processor, and how many there are. None: it is gone.

        The share is None at the first look.
        """
        _, started = proc.state_and_start(pid)
        if started is None:
            return None
        tree = _tree(pid)
        held = sum(map(memory.resident, tree))
        return {"memory": held, "cpu": self._share((pid, started), tree), "processes": len(tree)}

    def _share(self, key: tuple[int, int], tree: list[int]) -> float | None:
        now, seconds = time.monotonic(), sum(proc.cpu_seconds(one) + proc.cpu_seconds_below(one) for one in tree)
        at, before, share = self._before.get(key, (0.0, seconds, None))
        if at and now - at >= LEAST_SECONDS:
            share = max(0.0, seconds - before) / (now - at)
        if not at or now - at >= LEAST_SECONDS:
            self._before.pop(key, None)
            self._before[key] = now, seconds, share
            while len(self._before) > MOST_TREES:
                del self._before[next(iter(self._before))]
        return share


def _tree(pid: int) -> list[int]:
    """The process, and those below it; what is detached is not counted."""
    return [pid, *descendants(pid)[:MOST_PROCESSES]]

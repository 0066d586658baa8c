"""Unix times of monotonic ones.

Two clocks cannot be read at one instant: a process may be held up between the readings, for milliseconds on a busy
machine. If each time were turned into a Unix time by readings of its own, what came after something else would seem to
have come before it. So one process takes one offset for all of them, until the clock is set.
"""

from __future__ import annotations

import time

SET_SECONDS = 0.001  # by which two offsets differ once the clock has been set


class WallClock:
    """What monotonic times of this process, and of others of the machine, are in Unix seconds."""

    def __init__(self) -> None:
        self._offset = 0.0

    def offset(self) -> float:
        """Unix seconds less monotonic ones: the same at each call, unless the clock has been set meanwhile."""
        if abs(time.time() - time.monotonic() - self._offset) > SET_SECONDS:  # it was set, or we were held up
            offset = _read_offset()
            if abs(offset - self._offset) > SET_SECONDS:
                self._offset = offset
        return self._offset


wall_clock = WallClock()
"""The process's. A forked child goes on with it, so that its times and its parent's agree."""


def start_times() -> tuple[float, float]:
    """Now, in Unix and in monotonic seconds, of something that is about to begin.

    The Unix time is read first. So a start and the monotonic seconds since then never add up to later than it is,
    however long we are held up in between: whatever begins once this has ended, in any process, begins later.
    """
    return time.time(), time.monotonic()


def _read_offset() -> float:
    """By those readings that were closest together."""
    readings = [(time.monotonic(), time.time(), time.monotonic()) for _ in range(3)]
    before, wall, after = min(readings, key=lambda reading: reading[2] - reading[0])
    return wall - (before + after) / 2

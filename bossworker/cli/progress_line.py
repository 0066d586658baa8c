"""The line on stderr that tells how far a run is."""

from __future__ import annotations

import os
import time

from bossworker.cli.halting import RunTally
from bossworker.cli.printers import write

_WIDTH = 80  # columns of a terminal that does not know
INTERVAL = 0.1  # seconds between two versions of it


class ProgressLine:
    """Drawn on a terminal, and nowhere else."""

    def __init__(self, shown: bool, tally: RunTally) -> None:
        self.shown = shown
        self._tally = tally
        self._begin = time.monotonic()
        self._next = self._begin + 2 * INTERVAL  # a run that ends at once needs none
        self._drawn = False

    def draw(self) -> None:
        """If it is time to."""
        now = time.monotonic()
        if not self.shown or now < self._next:
            return
        self._next = now + INTERVAL
        width = (os.get_terminal_size(2).columns or _WIDTH) - 1
        write(2, b"\r" + self.text(now - self._begin)[:width].encode() + b"\x1b[K")
        self._drawn = True

    def clear(self) -> None:
        """Something else is to be printed."""
        if self._drawn:
            write(2, b"\r\x1b[K")
            self._drawn = False
            self._next = min(self._next, time.monotonic() + INTERVAL)

    def text(self, seconds: float) -> str:
        """``31,204/40,000  78 %  12 failed  ETA 00:41  412/min``."""
        done, total, failed = self._tally.done, self._tally.total, self._tally.failed + self._tally.known_failed
        ended = done + self._tally.known
        parts = [f"{ended:,}/{total:,}" if total else f"{ended:,} done"]
        if total:
            parts.append(f"{100 * ended // total} %")
        if failed:
            parts.append(f"{failed:,} failed")
        if total and done:
            parts.append(f"ETA {clock(seconds / done * max(0, total - ended))}")
        if done:
            parts.append(f"{60 * done / max(seconds, 0.001):,.0f}/min")
        return "  ".join(parts)


def clock(seconds: float) -> str:
    """``00:41``, ``2:03:04``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"


def is_terminal(fd: int) -> bool:
    """Whether a descriptor is a terminal that can be drawn on."""
    return os.isatty(fd) and os.environ.get("TERM") != "dumb"


def colours(fd: int) -> bool:
    """Whether to use colours there."""
    return is_terminal(fd) and not os.environ.get("NO_COLOR")

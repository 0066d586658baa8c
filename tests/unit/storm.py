"""Exceptions out of a signal handler, as Ctrl-C raises them: at any moment between two instructions."""

from __future__ import annotations

import random
import signal
from types import FrameType, TracebackType


class Interruption(Exception):
    """What the signal handler of a storm raises."""


class Alarm(TimeoutError):
    """The same as programs often do it: an OSError, that no system call raised."""


class Storm:
    """Signals at random moments. While `open` is set, one raises and closes it again: set it anew for each step."""

    def __init__(self, error: type[Exception], rng: random.Random) -> None:
        self.error = error
        self.rng = rng
        self.open = False
        self.hits = 0
        self.over = False

    def __enter__(self) -> Storm:
        self.previous = signal.signal(signal.SIGALRM, self._strike)
        self._wind_up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.open = False
        self.over = True  # a strike that is under way now must not wind up the next one
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.previous)

    def _wind_up(self) -> None:
        signal.setitimer(signal.ITIMER_REAL, 20e-6 + self.rng.expovariate(1 / 60e-6))

    def _strike(self, number: int, frame: FrameType | None) -> None:
        if not self.over:
            self._wind_up()
        if self.open:
            self.open = False
            self.hits += 1
            raise self.error

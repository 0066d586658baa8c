"""Staying awake for an instant while an answer is due: it mostly comes sooner than a process wakes from sleep.

Only on a machine with more than one core, and not while others want the cores: each look gives ours to them, and they
may keep it for long. And only where it pays: after answers that took longer, a process looks for a shorter time, and
soon not at all; after one that came in time, it looks for the whole time again.
"""

from __future__ import annotations

import os
import time

from bossworker.system.cpus import schedulable_cpus

SPIN_SECONDS = 400e-6  # how long to look again before sleeping, at the most; a whole round trip takes less
LEAST_SECONDS = 40e-6  # a wake-up takes as long: it does not pay to look for a shorter time
STOLEN_SECONDS = 200e-6  # a look that took this long gave the core to somebody who keeps it
NO_SPIN_SECONDS = 0.05  # for this long we go to sleep at once then


class Spin:
    """One process's patience, for one kind of answer. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._most = SPIN_SECONDS if schedulable_cpus() > 1 else 0.0
        self._seconds = self._most
        self._not_before = 0.0

    def until(self, now: float) -> float:
        """How long to stay awake; 0.0: not at all."""
        return now + self._seconds if self._seconds and now >= self._not_before else 0.0

    def rest(self, now: float) -> None:
        """Between two looks: let others run."""
        os.sched_yield()
        if time.monotonic() - now > STOLEN_SECONDS:
            self._not_before = now + NO_SPIN_SECONDS

    def learn(self, seconds: float) -> None:
        """The answer took this long, awake or asleep."""
        if seconds <= self._most:
            self._seconds = self._most
        else:
            self._seconds = self._seconds / 2 if self._seconds > LEAST_SECONDS else 0.0

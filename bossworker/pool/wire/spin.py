"""Staying awake for an instant while an answer is due: it mostly comes sooner than a process wakes from sleep.

Only on a machine with more than one core, and not while others want the cores: each look gives ours to them, and they
may keep it for long.
"""

from __future__ import annotations

import os
import time

from bossworker.system.cpus import schedulable_cpus

SPIN_SECONDS = 150e-6  # how long to look again before sleeping
STOLEN_SECONDS = 200e-6  # a look that took this long gave the core to somebody who keeps it
NO_SPIN_SECONDS = 0.05  # for this long we go to sleep at once then


class Spin:
    """One process's patience. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._seconds = SPIN_SECONDS if schedulable_cpus() > 1 else 0.0
        self._not_before = 0.0

    def until(self, now: float) -> float:
        """How long to stay awake."""
        return now + self._seconds if now >= self._not_before else 0.0

    def rest(self, now: float) -> None:
        """Between two looks: let others run."""
        os.sched_yield()
        if time.monotonic() - now > STOLEN_SECONDS:
            self._not_before = now + NO_SPIN_SECONDS

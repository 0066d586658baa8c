"""Starts of workers that fail: tried again for ever, after pauses that grow, so that trouble that passes is waited out.

A database that is away as an init_handler asks for it, or a machine with no process or memory to spare, must not cost
a pool its workers.
"""

from __future__ import annotations

from bossworker.pool.boss.actions import Tell
from bossworker.pool.boss.workers import NEVER
from bossworker.pool.wire.messages import INFO, WARNING

FIRST_PAUSE_SECONDS = 0.05  # before a second attempt; doubles each time,
LONGEST_PAUSE_SECONDS = 2.0  # up to this
_MOST_DOUBLINGS = 10


class Starts:
    """When the next worker may be started, and why the last one could not be. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.failed = 0  # since one came up
        self.error: str | None = None  # why the last one failed
        self.last_error: str | None = None  # the same, also once one has come up
        self.not_before = 0.0  # 0.0: there is no pause
        self._rounds = 0  # of failed starts, since one came up; those that fail together count as one
        self._fresh_death_at = -NEVER  # when a worker last died that had never done anything

    def on_failed(self, error: str, now: float) -> list[Tell]:
        """One has failed: the next try has to wait."""
        self.failed += 1
        self.error = self.last_error = error
        if now < self.not_before:
            return []
        self._rounds += 1
        pause = min(FIRST_PAUSE_SECONDS * 2 ** min(self._rounds - 1, _MOST_DOUBLINGS), LONGEST_PAUSE_SECONDS)
        self.not_before = now + pause
        if self._rounds & (self._rounds - 1):  # told at first, and then ever more seldom
            return []
        reason = error.partition("\n")[0]
        return [Tell(WARNING, f"worker not started: failed={self.failed} next_try={pause:g}s error={reason!r}")]

    def on_up(self) -> list[Tell]:
        """One is up."""
        failed, self.failed, self.error, self._rounds = self.failed, 0, None, 0
        return [Tell(INFO, f"worker started: failed_before={failed}")] if failed else []

    def on_fresh_death(self, now: float) -> None:
        """One may be chance; workers that all die as soon as they are up are replaced with pauses."""
        if now < self._fresh_death_at + FIRST_PAUSE_SECONDS:
            self.not_before = now + FIRST_PAUSE_SECONDS
        self._fresh_death_at = now

    def begin_anew(self) -> None:
        """No more pauses: somebody asks for a new try."""
        self._rounds = 0
        self.not_before = 0.0

    def allowed(self, now: float) -> bool:
        """Whether workers may be started now; if so, the pause is over."""
        if now < self.not_before:
            return False
        self.not_before = 0.0
        return True

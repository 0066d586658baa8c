"""What may be asked of a pool now: whether it is ours, open, ended, alive."""

from __future__ import annotations

import logging
import os

from bossworker.errors import BossDied, PoolClosed, UnfinishedJob, WorkerStartError
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.result_queue import ResultQueue


class HandleState:
    """The state of a handle, and the checks that follow from it."""

    def __init__(self, connection: Connection, inbox: Inbox) -> None:
        self._connection = connection
        self._inbox = inbox
        self._owner = os.getpid()
        self._may_have_run: frozenset[int] | None = None  # once the boss is dead
        self._death_logged = False
        self.foreign = False  # we are in a forked child
        self.closing = False  # no more work is taken
        self.ended = False  # the processes are gone
        self.tells_others = False  # whether others are to hear of each result that is given out
        self.fileno_used = False  # whether a program watches the descriptor that fileno() gives

    def is_foreign(self) -> bool:
        """Whether we are in a forked child."""
        # A garbage collection may come there before our hook has run, and set `foreign`: then only the pid tells.
        return self.foreign or os.getpid() != self._owner

    def check_owner(self) -> None:
        if self.foreign:
            raise PoolClosed(
                f"this handle belongs to process {self._owner}; a forked child cannot use it, "
                "but may make a pool of its own"
            )

    def check_open(self) -> None:
        self.check_owner()
        if self.closing:
            raise PoolClosed("the pool has been shut down and takes no more work")
        self.check_alive()

    def check_alive(self) -> None:
        """Raise BossDied when the boss ended before its time."""
        line = self._connection
        if line.gone and not line.said.orderly and (not self.ended or self._inbox.pending()):
            raise self._boss_died()

    def check_death(self) -> None:
        """As `check_alive`, but of a pool that has been shut down since, too: for those who ask how it went on."""
        if self._connection.died:
            raise self._boss_died()

    def why_unwatched(self) -> PoolClosed:
        """What to tell those who ask for the events of a pool that has ended and left none."""
        if self._connection.said.orderly:
            return PoolClosed("the pool has been shut down, and nobody had watched it: ask for its events before that")
        return PoolClosed("the pool has been shut down by force, and its events are gone")

    def why_ended(self) -> Exception:
        """What to tell those who wait for a result that will not come, since the pool has ended."""
        line = self._connection
        if line.said.failure and not line.said.up:
            return WorkerStartError(line.said.failure)
        try:
            self.check_alive()
        except BossDied as error:
            return error
        return PoolClosed("the pool was shut down before this job had a result")

    def check_results(self, queue: ResultQueue | None = None) -> None:
        """As `check_alive`, but only once all that the boss sent for this queue has been taken."""
        if not self._inbox.has_news(queue):
            self.check_alive()

    def look_back(self) -> None:
        """Once the boss has died: find out what may have run, while the memory that it shared with us is there."""
        if self._may_have_run is None:
            jobs = frozenset(self._inbox.jobs)
            self._may_have_run = jobs - self._connection.never_started(jobs) if jobs else jobs

    def _boss_died(self) -> BossDied:
        inbox = self._inbox
        self.look_back()
        assert self._may_have_run is not None
        inbox.unpack()
        unfinished = [
            UnfinishedJob(job_id, job, job_id in self._may_have_run) for job_id, job in inbox.unfinished_jobs()
        ]
        death = self.died(unfinished)
        if not self._death_logged:
            self._death_logged = True
            self._connection.said.log(logging.ERROR, f"pool died: unfinished={len(unfinished)} reason={str(death)!r}")
        return death

    def died(self, unfinished: list[UnfinishedJob]) -> BossDied:
        """How we say it."""
        text = f"{self._connection.who_died()} died with {len(unfinished)} jobs unfinished"
        return BossDied(text, unfinished)

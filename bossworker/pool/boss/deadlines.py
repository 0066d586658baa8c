"""What is due by the clock with a busy worker: when to look at it, whether its job must stop, whether it is stuck.

Decides, and notes in the worker's record what it has decided. Times are monotonic seconds.
"""

from __future__ import annotations

from bossworker.pool.boss.actions import Actions, Interrupt, Kill
from bossworker.pool.boss.workers import NEVER, Terminated, WorkerRecord
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.recorder import Snapshot

OVERDUE_SECONDS = 0.012  # after this long in one job, the jobs behind it are given to others
STUCK_SECONDS = 1.0  # beyond kill_grace: a worker that has not begun its batch by then is replaced,
LEAST_SPEED = 1e7  # unless it may still be receiving it, at this many bytes a second
REPEAT_SECONDS = 0.05  # between signals to a job whose time is up
GLANCE_SECONDS = 1.0  # a busy worker is looked at this often, whatever it says or does not say
SENDING_SECONDS = 600.0  # a large result that is longer on its way will not come


class Deadlines:
    """See the module."""

    def __init__(self, kill_grace: float) -> None:
        self._kill_grace = kill_grace

    def next_look(self, worker: WorkerRecord, started: float, now: float) -> float:
        """When this worker's job, begun at `started`, gives the next reason to look at it."""
        assert worker.batch is not None
        if worker.condemned:  # its exit will be told
            return NEVER
        timeout = worker.batch.job_options.timeout
        due = min(started + timeout if timeout else NEVER, now + GLANCE_SECONDS)
        if worker.expired >= 0:
            due = now + REPEAT_SECONDS if worker.killed else min(worker.kill_at, now + REPEAT_SECONDS)
        if worker.limit > 1 and worker.taken < worker.limit - 1:
            due = min(due, max(started, now) + OVERDUE_SECONDS)
        return due

    def enforce(self, worker: WorkerRecord, batch: Batch, snapshot: Snapshot, now: float) -> Actions:
        """Hold the running job to its time: a signal first, then SIGKILL."""
        position = snapshot.claimed - 1
        if worker.expired == position:
            # The first signal may have come before the job was armed, or a handler may have swallowed JobTimeout. And
            # SIGKILL ends whatever it finds: while the worker could still claim a job behind this one, it might find
            # that. So there is none before those have been taken back, as this look has asked for.
            if now < worker.kill_at or snapshot.claimed < worker.limit:
                return [Interrupt(worker.slot, batch.first_id + position, worker.excess)]
            worker.killed = True
            worker.why = worker.reason.name.lower() if worker.reason is not None else ""
            return [Kill(worker.slot)]
        worker.expired = -1
        timeout = batch.job_options.timeout
        if timeout and now >= snapshot.started + timeout:
            return self.expire(worker, batch, position, Terminated.TIMEOUT, now)
        return []

    def expire(
        self, worker: WorkerRecord, batch: Batch, position: int, reason: Terminated, now: float, excess: int = 0
    ) -> Actions:
        """The job at this position must stop."""
        worker.expired, worker.reason, worker.excess = position, reason, excess
        worker.kill_at = now + self._kill_grace
        worker.look_at = self.next_look(worker, now, now)
        return [Interrupt(worker.slot, batch.first_id + position, excess)]

    def is_stuck(self, worker: WorkerRecord, batch: Batch, now: float) -> bool:
        """Whether a worker that has begun nothing of its batch should have."""
        return now >= worker.given_at + self._kill_grace + STUCK_SECONDS + sum(batch.sizes) / LEAST_SPEED

    def sends_for_ever(self, worker: WorkerRecord, snapshot: Snapshot, now: float) -> bool:
        """Whether a large result that the worker said it sends will not come."""
        if snapshot.running or snapshot.claimed == snapshot.published:
            worker.sending_since = 0.0
            return False
        worker.sending_since = worker.sending_since or now
        return now >= worker.sending_since + SENDING_SECONDS

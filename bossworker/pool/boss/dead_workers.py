"""What becomes of the jobs that a worker had when it died: a part of the ledger.

What it had not begun is queued again. What may have been running has died with it: it was meant to stop, it is tried
again, or it has crashed.
"""

from __future__ import annotations

from bossworker.errors import WORKER_DIED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import Actions, Finish
from bossworker.pool.boss.cancelling import Cancelling
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.boss.workers import Exit, Terminated, WorkerRecord
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.recorder import Snapshot
from bossworker.system.memory import describe_excess


class DeadWorkers:
    """See the module. `max_memory`: bytes that a job may take, which errors tell of."""

    def __init__(self, queue: Queue, cancelling: Cancelling, max_memory: int) -> None:
        self._queue = queue
        self._cancelling = cancelling
        self._max_memory = max_memory

    def wind_up(self, worker: WorkerRecord, batch: Batch, how: Exit, snapshot: Snapshot | None, now: float) -> Actions:
        """Decide on the jobs it had: one may have been running, the rest never started.

        When its recorder tells nothing, each of them may have been running.
        """
        claimed = worker.limit if snapshot is None else snapshot.claimed
        if claimed < worker.limit:
            self._queue.put_back(batch.part(claimed, worker.limit))
        actions = self._cancelling.end_queued(worker.cancelled, now) if worker.condemned else []
        for position in reversed(worker.lost(claimed)):
            crash = Finish(
                batch.first_id + position,
                worker.pid,
                batch.job_options.attempt,
                Outcome.CRASH,
                f"{WORKER_DIED} ({how.text}",
                now if snapshot is None else snapshot.started,
                now,
                how.code,
            )
            actions += self._lose(worker, batch, position, crash)
        return actions[::-1]

    def _lose(self, worker: WorkerRecord, batch: Batch, position: int, crash: Finish) -> Actions:
        """A job died with its worker, which is told of as a crash, or as what stopped it, unless it is tried again."""
        reason = Terminated.CANCEL if crash.job_id in worker.cancelled else None
        if reason is None and worker.expired == position:
            reason = worker.reason
        if reason is not None:
            outcome, text = reason.value
            if reason is Terminated.MEMORY:
                text = f"BossWorkerAsync: {describe_excess(worker.excess, self._max_memory)}"
            return [crash._replace(outcome=outcome, text=text, code=None)]
        job_options = batch.job_options
        if job_options.attempt <= job_options.retries:
            again = job_options._replace(attempt=job_options.attempt + 1)
            self._queue.put_back(batch.part(position, position + 1).with_options(again))
            return []
        return [crash]

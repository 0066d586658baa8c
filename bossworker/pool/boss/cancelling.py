"""Jobs that somebody cancels: a part of the ledger."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bossworker.errors import CANCELLED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import Actions, Finish
from bossworker.pool.boss.deadlines import Deadlines
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.boss.workers import Terminated, WorkerRecord
from bossworker.pool.wire.recorder import Snapshot


class Cancelling:
    """See the module. Times are monotonic seconds."""

    def __init__(self, queue: Queue, workers: Mapping[int, WorkerRecord], deadlines: Deadlines) -> None:
        self._queue = queue
        self._workers = workers
        self._deadlines = deadlines

    def cancel(self, ids: list[int], looks: Mapping[int, Snapshot], now: float) -> tuple[int, Actions]:
        """Queued jobs end here, running ones are told to stop; how many had not finished. See `Ledger.on_cancel`."""
        actions = self.end_queued(ids, now)
        wanted = set(ids)
        count = len(actions) + self._mark_condemned(wanted)
        for slot, snapshot in looks.items():
            worker, position = self._workers[slot], snapshot.claimed - 1
            # The job may have ended between the request and this look. Then it has its result, and is not counted; if
            # it ends after the look, its result is turned into a cancelled one as it comes.
            if worker.batch is None or position < snapshot.published or position in worker.spilled:
                continue
            job_id = worker.batch.first_id + position
            if job_id in wanted and job_id not in worker.cancelled:
                count += 1
                worker.cancelled.add(job_id)
                if worker.expired != position:
                    actions += self._deadlines.expire(worker, worker.batch, position, Terminated.CANCEL, now)
        return count, actions

    def end_queued(self, ids: Iterable[int], now: float) -> Actions:
        """Each of these jobs that is queued ends here."""
        removed = self._queue.remove(ids)
        return [Finish(job_id, 0, attempt - 1, Outcome.CANCELLED, CANCELLED, now, now) for job_id, attempt in removed]

    def _mark_condemned(self, wanted: set[int]) -> int:
        """What a worker has that is being ended anyway is cancelled as it exits; how many jobs that will be."""
        count = 0
        for worker in self._workers.values():
            if worker.condemned and worker.batch is not None:
                left = {worker.batch.first_id + position for position in worker.lost(worker.limit)}
                count += len(left & wanted - worker.cancelled)
                worker.cancelled |= left & wanted
        return count

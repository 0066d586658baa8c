"""``max_job_memory``: how much memory the jobs that run have taken. Looked at while a limit is set and jobs run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress

from bossworker.pool.boss.actions import Actions
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.workers import WorkerRecord
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.recorder import BELOW_BEFORE, MEASURED_JOB, OWN_BEFORE, Recorder
from bossworker.system import memory

TICK = 0.05  # seconds between looks


class JobMemory:
    """See the module. `perform` carries out what the ledger decides on a job that has taken too much."""

    def __init__(
        self, ledger: Ledger, recorders: Mapping[int, Recorder], limit: int, perform: Callable[[Actions], None]
    ) -> None:
        self._ledger = ledger
        self._recorders = recorders
        self._limit = limit  # bytes
        self._perform = perform
        self._due = 0.0  # when to look again (monotonic seconds)

    def seconds_until_due(self, now: float) -> float | None:
        return max(0.0, self._due - now) if self._ledger.busy() else None

    def attend(self, now: float) -> None:
        if now < self._due:
            return
        self._due = now + TICK
        for worker in self._ledger.busy():
            with suppress(ProtocolError):  # found out elsewhere, too
                self._look(worker, now)

    def _look(self, worker: WorkerRecord, now: float) -> None:
        recorder, batch = self._recorders[worker.slot], worker.batch
        before = recorder.snapshot()
        position = before.claimed - 1
        if batch is None or not before.running or worker.expired == position:
            return
        # The worker claims the job first, then measures, then notes the number: until it has, the figures are of the
        # job before.
        if recorder.words[MEASURED_JOB] != batch.first_id + position + 1:  # it begins just now
            return
        words = recorder.words
        excess = memory.growth(worker.pid, words[OWN_BEFORE], words[BELOW_BEFORE], self._limit)
        after = recorder.snapshot()
        # It takes a while to add up the memory. If another job has begun meanwhile, what was counted may be either's,
        # and neither is blamed.
        if excess and after.running and after.claimed == before.claimed:
            self._perform(self._ledger.on_excess(worker.slot, position, excess, now))

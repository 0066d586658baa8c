"""What workers hand in: results, out of their recorders and over their sockets, checked before they count.

A handler may write anything into its worker's recorder and socket. What cannot be true is a ProtocolError, and its
worker is ended. So no job gets a second result, or none, whatever is written there.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from bossworker.failure import FROM_WORKERS, Outcome
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.workers import WorkerRecord
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.parcel import Held
from bossworker.pool.wire.recorder import Memory, Recorder, Snapshot
from bossworker.pool.wire.segments import Segment, single, without

_ELSEWHERE = int(Outcome.ELSEWHERE)


class Intake:
    """See the module. Tells the ledger what was taken, and passes it on to the delivery."""

    def __init__(self, ledger: Ledger, delivery: Delivery, memory: Memory) -> None:
        self._ledger = ledger
        self._delivery = delivery
        self._memory = memory
        self.recorders: dict[int, Recorder] = {}
        self.before_results: Callable[[int], None] | None = None  # told of a slot, to read what its jobs have printed

    def open(self, slot: int) -> None:
        """Make ready for a worker in this slot."""
        if slot not in self.recorders:
            self.recorders[slot] = self._memory.recorder(slot)
            self._memory.slots = max(self._memory.slots, slot + 1)

    def collect(self, slot: int) -> Snapshot:
        """What a worker has done so far. The results that it has published since the last look are taken."""
        return self._take(slot, self.recorders[slot].snapshot())

    def take_back(self, slot: int) -> Snapshot:
        """The same, with the jobs taken away from it that it has not claimed."""
        return self._take(slot, self.recorders[slot].take_back())

    def _take(self, slot: int, snapshot: Snapshot) -> Snapshot:
        worker = self._ledger.workers[slot]
        batch, start, stop = worker.batch, worker.taken, snapshot.published
        if batch is None or start >= stop:
            return snapshot
        if self.before_results is not None:
            # Behind the look at what is published, before its results are passed on: a job has marked its output before
            # it was published, so all of it is in the pipes by now, and goes ahead of the result.
            self.before_results(slot)
        results = self.recorders[slot].results(
            start, stop, batch.first_id, worker.pid, batch.job_options.attempt, bool(worker.cancelled)
        )
        elsewhere = _elsewhere(worker, results, start) if worker.spilled or _ELSEWHERE in results.outcomes else ()
        for segment in without(results, [position - start for position in elsewhere]) if elsewhere else (results,):
            self._delivery.note(segment, worker.cancelled)
        self._ledger.on_taken(slot, stop, len(results.payload), elsewhere)
        return snapshot

    def finish_batch(self, slot: int) -> float:
        """A worker says that it has finished its batch: all results are taken; the seconds that it took."""
        snapshot = self.collect(slot)
        worker = self._ledger.workers[slot]
        if worker.batch is None or snapshot.published != worker.limit or worker.awaited:
            raise ProtocolError("it was not through with its batch")
        return self.recorders[slot].seconds(snapshot)

    def spill(self, slot: int, frame: Frame, file: Held | None) -> None:
        """A result that the recorder had no room for; the data is in the frame, or in the file."""
        job_id, outcome, started, finished = messages.unpack(messages.SPILL, frame.head)
        recorder, worker = self.recorders[slot], self._ledger.workers[slot]
        snapshot, batch = recorder.snapshot(), worker.batch
        # The worker claims, runs, and then sends: so what it owes has been claimed by the time that the frame is here,
        # and this look, which comes later, shows it.
        if batch is None or not worker.owes(job_id, snapshot.claimed):
            raise ProtocolError(f"a result of job {job_id} that it does not owe")
        # Its times are as true as those in the recorder: neither before the batch nor to come.
        if outcome not in FROM_WORKERS or not recorder.opened <= started <= finished <= time.monotonic():
            raise ProtocolError(f"a result of job {job_id} with outcome {outcome}, from {started} to {finished}")
        self._ledger.on_spilled(slot, job_id, len(frame.body))
        attempt = batch.job_options.attempt
        segment = single(job_id, worker.pid, attempt, started, finished, outcome, frame.body, file)
        self._delivery.note(segment, worker.cancelled)


def _elsewhere(worker: WorkerRecord, results: Segment, start: int) -> list[int]:
    """Positions in the batch of those results that travel by themselves."""
    positions = [at for at, outcome in enumerate(results.outcomes, start) if outcome == _ELSEWHERE]
    if not worker.spilled.intersection(range(start, start + results.jobs)) <= set(positions):
        raise ProtocolError("a job with two results")
    return positions

"""The last jobs that have failed, with their errors and what they were: for whoever asks why, or wants them run again.

What is kept is bounded, in number and in bytes, and so is the time that it takes: of a flood of failures most are only
counted. Errors are opaque here, as are jobs; the bytes of a job are those of the batch that it came in.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from bossworker.failure import KIND_BITS
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.segments import Segment, part

MOST_KEPT = 5000
MOST_BYTES = 8 << 20  # of errors and jobs
LONGEST = 1 << 16  # bytes of an error, or of a job, that are kept
BURST, PER_SECOND = 5000, 1000  # that are kept of a flood: each takes some microseconds
_KINDS = bytes(outcome & KIND_BITS for outcome in range(256))


class KeptFailure(NamedTuple):
    """One of them. Times are monotonic seconds."""

    number: int  # how many had been kept before it
    job_id: int
    pid: int
    attempt: int
    started: float
    finished: float
    outcome: int
    error: bytes | None  # as it goes to whoever added the job; None: it is too long
    batch: Batch | None  # that the job is in, if that is known and not too long
    size: int


class FailedJobs:
    """See the module."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.by_kind: Counter[int] = Counter()
        self.doomed: Batch | None = None  # of a worker that has died: its jobs are about to be told
        self.last = 0  # number of the newest
        self._kept: deque[KeptFailure] = deque()
        self._by_id: dict[int, KeptFailure] = {}
        self._bytes = 0
        self._copied: tuple[Batch, Batch | None] | None = None  # a batch, and what was kept of it
        self._allowed, self._allowed_at = float(BURST), time.monotonic()

    def note(self, segment: Segment, outcomes: bytes) -> None:
        """Some of these results are errors."""
        kinds = outcomes.translate(_KINDS)
        for kind in set(kinds) - {0}:
            self.by_kind[kind] += kinds.count(kind)
        now = time.monotonic()
        self._allowed = min(BURST, self._allowed + PER_SECOND * (now - self._allowed_at))
        self._allowed_at = now
        failed = (at for at, kind in enumerate(kinds) if kind)
        for at in islice(failed, int(self._allowed)):
            self._keep(segment, at)

    def after(self, number: int) -> Iterator[KeptFailure]:
        """Those that came behind this one, and are here still."""
        first = self._kept[0].number if self._kept else 0
        return islice(self._kept, max(0, number + 1 - first), None)

    def find(self, job_id: int) -> KeptFailure | None:
        """The newest of this id."""
        return self._by_id.get(job_id)

    def _keep(self, segment: Segment, at: int) -> None:
        one = part(segment, at, at + 1)
        started, finished = memoryview(one.marks).cast("B").cast("d")
        error = bytes(one.payload) if len(one.payload) <= LONGEST and one.beside is None else None
        batch, fresh = self._batch_of(one.first_id)
        size = len(error or b"") + (len(batch.payload) if batch is not None and fresh else 0)
        self.last += 1
        self._allowed -= 1
        kept = KeptFailure(
            self.last, one.first_id, one.pid, one.attempt, started, finished, one.outcomes[0], error, batch, size
        )
        self._kept.append(kept)
        self._by_id[kept.job_id] = kept
        self._bytes += size
        while len(self._kept) > MOST_KEPT or self._bytes > MOST_BYTES:
            self._drop_oldest()

    def _drop_oldest(self) -> None:
        gone = self._kept.popleft()
        self._bytes -= gone.size
        if self._by_id.get(gone.job_id) is gone:
            del self._by_id[gone.job_id]

    def _batch_of(self, job_id: int) -> tuple[Batch | None, bool]:
        """What is kept of the batch that a job was in; and whether it is kept from now on."""
        batch = self._find(job_id)
        if batch is None or batch.file is not None:
            return None, False
        if self._copied is not None and self._copied[0] is batch:
            return self._copied[1], False
        if len(batch.payload) > LONGEST:
            at = job_id - batch.first_id
            own = batch.part(at, at + 1)
            return (own, True) if len(own.payload) <= LONGEST else (None, False)
        copy = batch.part(0, batch.count)  # the batch itself may lie in a buffer that is much larger
        self._copied = (batch, copy)
        return copy, True

    def _find(self, job_id: int) -> Batch | None:
        held = [worker.batch for worker in self._ledger.busy()]
        return next((one for one in (*held, self.doomed) if one is not None and job_id in one.ids), None)

"""What has been seen of a pool's jobs. No I/O in here.

Ids are given out one after the other, so that what is known of many jobs is kept as stretches of ids; those that are
neither queued nor running nor have failed have ended well, also where the pool was too quick for their ends to be seen.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from bossworker.failure import kind_of
from bossworker.pool.caller.operating import EndedStretch, FailedRecord, Now, QueuedStretch
from bossworker.pool.wire.messages import CLIENT_BITS

MOST_ENDED = 500_000  # jobs whose times are kept
MOST_FAILED = 100_000
MOST_RECORDS = 5000  # of failed jobs, with errors
MOST_STRETCHES = 20_000  # of jobs that were added; then neighbours are joined
JOIN_SECONDS = 0.25  # between jobs that count as added at one time
_PAGE_BITS = 8  # ended stretches are found by the upper bits of their ids


class EndOfJob(NamedTuple):
    """How a job ended."""

    started: float
    ended: float
    kind: str | None
    worker_index: int
    worker_pid: int
    attempt: int


class JobTable:
    """See the module."""

    def __init__(self) -> None:
        self.added: list[QueuedStretch] = []  # in order, the newest last
        self._by_client: dict[int, list[QueuedStretch]] = {}  # of each, by ids
        self.stretches: deque[EndedStretch] = deque()  # in order, the newest last
        self._pages: dict[int, list[EndedStretch]] = {}
        self._ended = 0
        self.failed: OrderedDict[int, str] = OrderedDict()  # id -> kind
        self.records: OrderedDict[int, FailedRecord] = OrderedDict()
        self.indexes: dict[int, int] = {}  # worker's pid -> its index
        self.gone: set[int] = set()  # clients that have left: what they had unfinished was dropped

    # -- what is seen -------------------------------------------------------------------------------------

    def note(self, now: Now) -> None:
        """What a look has shown."""
        for stretch in now.queued:
            self._add(stretch)
        for client, last in now.last_ids.items():
            self._fill(client, last, now.time)
        self.gone = self._by_client.keys() - now.last_ids.keys()
        self.indexes.update((worker.pid, worker.index) for worker in now.stats.workers)
        for ended in now.ended:
            self._end(ended)
        while self._ended > MOST_ENDED:
            self._forget_oldest()

    def note_failed(self, records: Iterable[FailedRecord]) -> None:
        """What the boss remembers of jobs that have failed."""
        for record in records:
            self.records.pop(record.job_id, None)
            self.records[record.job_id] = record
            self._fail(record.job_id, record.kind)
        while len(self.records) > MOST_RECORDS:
            self.records.popitem(last=False)

    def _fail(self, job_id: int, kind: str) -> None:
        self.failed.pop(job_id, None)
        self.failed[job_id] = kind
        if len(self.failed) > MOST_FAILED:
            self.failed.popitem(last=False)

    def _add(self, stretch: QueuedStretch) -> None:
        """Jobs were added; those before them that were not seen as they were, too."""
        client = stretch.first_id >> CLIENT_BITS
        last = self._last_of(client)
        if stretch.first_id + stretch.jobs - 1 <= last:
            return
        self._fill(client, stretch.first_id - 1, stretch.time)
        self._append(client, stretch)

    def _fill(self, client: int, last: int, time: float) -> None:
        before = self._last_of(client)
        if last > before:
            self._append(client, QueuedStretch(before + 1, last - before, time))

    def _last_of(self, client: int) -> int:
        known = self._by_client.get(client)
        return known[-1].first_id + known[-1].jobs - 1 if known else client << CLIENT_BITS

    def _append(self, client: int, stretch: QueuedStretch) -> None:
        line = self._by_client.setdefault(client, [])
        newest = self.added[-1] if self.added else None
        if newest is not None and line and line[-1] is newest and stretch.time - newest.time < JOIN_SECONDS:
            self.added[-1] = line[-1] = newest._replace(jobs=newest.jobs + stretch.jobs)
            return
        self.added.append(stretch)
        line.append(stretch)
        if len(self.added) > MOST_STRETCHES:
            self._join_all()

    def _join_all(self) -> None:
        """Of very many additions, the times are told less exactly."""
        joined: list[QueuedStretch] = []
        for stretch in self.added:
            before = joined[-1] if joined else None
            if before is not None and len(joined) % 2 and before.first_id + before.jobs == stretch.first_id:
                joined[-1] = before._replace(jobs=before.jobs + stretch.jobs)
            else:
                joined.append(stretch)
        self.added = joined[-MOST_STRETCHES // 2 :]
        self._by_client = {}
        for stretch in self.added:
            self._by_client.setdefault(stretch.first_id >> CLIENT_BITS, []).append(stretch)

    def _end(self, stretch: EndedStretch) -> None:
        jobs = len(stretch.outcomes)
        self.stretches.append(stretch)
        self._ended += jobs
        for page in range(stretch.first_id >> _PAGE_BITS, (stretch.first_id + jobs - 1 >> _PAGE_BITS) + 1):
            self._pages.setdefault(page, []).append(stretch)
        if stretch.outcomes.count(0) < jobs:
            for at, outcome in enumerate(stretch.outcomes):
                if (kind := kind_of(outcome)) is not None:
                    self._fail(stretch.first_id + at, kind)

    def _forget_oldest(self) -> None:
        gone = self.stretches.popleft()
        jobs = len(gone.outcomes)
        self._ended -= jobs
        for page in range(gone.first_id >> _PAGE_BITS, (gone.first_id + jobs - 1 >> _PAGE_BITS) + 1):
            left = [one for one in self._pages.get(page, ()) if one is not gone]
            if left:
                self._pages[page] = left
            else:
                self._pages.pop(page, None)

    # -- what is known ------------------------------------------------------------------------------------

    @property
    def total(self) -> int:
        """How many jobs there have been."""
        return sum(stretch.jobs for stretch in self.added)

    def ids(self) -> Iterator[range]:
        """All of them, the newest first: each range runs backwards."""
        for stretch in reversed(self.added):
            yield range(stretch.first_id + stretch.jobs - 1, stretch.first_id - 1, -1)

    def knows(self, job_id: int) -> bool:
        """Whether there has been such a job."""
        return self.added_at(job_id) is not None

    def added_at(self, job_id: int) -> float | None:
        """When it was added, as far as that was seen."""
        line = self._by_client.get(job_id >> CLIENT_BITS, ())
        at = bisect_right(line, job_id, key=lambda stretch: stretch.first_id) - 1
        return line[at].time if at >= 0 and job_id < line[at].first_id + line[at].jobs else None

    def end_of(self, job_id: int) -> EndOfJob | None:
        """How it ended, if that was seen."""
        for stretch in reversed(self._pages.get(job_id >> _PAGE_BITS, ())):
            at = job_id - stretch.first_id
            if 0 <= at < len(stretch.outcomes):
                kind = kind_of(stretch.outcomes[at])
                times = stretch.times[at], stretch.times[at + 1]
                return EndOfJob(*times, kind, stretch.worker_index, stretch.worker_pid, stretch.attempt)
        record = self.records.get(job_id)
        if record is None:
            return None
        index = self.indexes.get(record.worker_pid, -1)
        return EndOfJob(record.started, record.finished, record.kind, index, record.worker_pid, record.attempt)

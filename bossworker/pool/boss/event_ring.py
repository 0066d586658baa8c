"""The last events of a pool, for whoever watches it: a ring of records, most of which stand for many events.

What is kept of a stretch of results is what the boss has in hand anyway (their times and outcomes), so it costs a
fraction of a microsecond a batch, whether anybody watches or not. The caller makes events of it: see
``watch/pool_events.py``, which knows the records' layouts, too.

Every event has a number, from 1 on. A record knows the number of its first event, and how many there are in it.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any

from bossworker.pool.wire.messages import CLIENT_BITS
from bossworker.pool.wire.segments import Segment
from bossworker.watch.event_records import ENDED, QUEUED, STARTED

MOST_EVENTS = 1 << 15  # that are kept
TRIM_STEP = 1 << 12  # this many more may lie there before the oldest are dropped, all at once
CHUNK_JOBS = 1024  # of a stretch of results go into one record


class EventRing:
    """See the module. Times are monotonic seconds."""

    def __init__(self) -> None:
        self.next = 1  # number of the next event
        self._records: list[tuple[Any, ...]] = []
        self._firsts: list[int] = []  # of each record, the number of its first event
        self._trim_at = MOST_EVENTS + TRIM_STEP
        self._told: dict[int, int] = {}  # worker's pid -> id of the job that it was seen to start
        self.indexes: dict[int, int] = {}  # worker's pid -> its index
        self.last_ids: dict[int, int] = {}  # the client whose jobs they are -> the highest id of any

    @property
    def first(self) -> int:
        """Number of the oldest event that is here."""
        return self._firsts[0] if self._firsts else self.next

    def add(self, kind: str, events: int, *facts: Any) -> None:
        """Note something that makes this many events."""
        self._records.append((kind, self.next, events, *facts))
        self._firsts.append(self.next)
        self.next += events
        if self.next > self._trim_at or len(self._records) > MOST_EVENTS + TRIM_STEP:  # some records are of no event
            self._trim()

    def _trim(self) -> None:
        at = max(0, bisect_right(self._firsts, self.next - MOST_EVENTS) - 1, len(self._records) - MOST_EVENTS)
        del self._records[:at], self._firsts[:at]
        self._trim_at = self.first + MOST_EVENTS + TRIM_STEP
        if len(self.indexes) > MOST_EVENTS:
            self.indexes = dict(list(self.indexes.items())[-TRIM_STEP:])

    def queued(self, first_id: int, jobs: int, now: float) -> None:
        """Jobs were added."""
        self.last_ids[first_id >> CLIENT_BITS] = first_id + jobs - 1
        self.add(QUEUED, jobs, first_id, now)

    def started(self, job_id: int, attempt: int, pid: int, at: float) -> None:
        """A worker was seen to run a job."""
        if self._told.get(pid) != job_id:
            self._told[pid] = job_id
            self.add(STARTED, 1, job_id, attempt, pid, at)

    def ended(self, segment: Segment) -> None:
        """Results are on their way to the caller. Their starts are told here too, but for the one that was seen."""
        first_id, jobs, _, pid, attempt, marks, _, outcomes, _, _ = segment
        told = self._seen_start(pid, first_id, first_id + jobs) if self._told else -1
        if jobs <= CHUNK_JOBS:
            self._add_results(first_id, jobs, attempt, pid, told, marks, outcomes)
            return
        for at in range(0, jobs, CHUNK_JOBS):
            stop = min(at + CHUNK_JOBS, jobs)
            seen = told if first_id + at <= told < first_id + stop else -1
            times = marks[8 * at : 8 * (stop + 1)]
            self._add_results(first_id + at, stop - at, attempt, pid, seen, times, outcomes[at:stop])

    def _add_results(self, first_id: int, jobs: int, attempt: int, pid: int, told: int, marks: Any, ends: Any) -> None:
        events = 2 * jobs - (told >= 0) if pid else jobs
        self.add(ENDED, events, first_id, jobs, attempt, pid, told, marks, ends)

    def _seen_start(self, pid: int, first_id: int, stop: int) -> int:
        """Which of these jobs a worker was seen to start; -1: none. One that it was seen to start later stays noted."""
        told = self._told.pop(pid, -1)
        if told >= stop:
            self._told[pid] = told
        return told if first_id <= told < stop else -1

    def forget_worker(self, pid: int) -> None:
        """It is gone."""
        self._told.pop(pid, None)

    def forget_clients(self, clients: range) -> None:
        """They are gone."""
        for client in clients if len(clients) < len(self.last_ids) else list(self.last_ids):
            if client in clients:
                self.last_ids.pop(client, None)

    def newest(self, most: int) -> list[tuple[Any, ...]]:
        """The newest records, at most `most`."""
        return self._records[-most:]

    def after(self, number: int, most: int) -> list[tuple[Any, ...]]:
        """Records from the first that holds an event behind this number, until there are about `most` events."""
        at = max(0, bisect_right(self._firsts, number + 1) - 1)
        end = at
        while end < len(self._records) and self._firsts[end] - number <= most:
            end += 1
        found = [record for record in self._records[at:end] if record[1] + record[2] > number + 1]
        return [_cut(record, number, number + most) if record[0] == QUEUED else record for record in found]


def _cut(record: tuple[Any, ...], seen: int, last: int) -> tuple[Any, ...]:
    """What a record of added jobs, of which there may be very many, has of the events from `seen` + 1 to `last`."""
    kind, first, count, first_id, at = record
    start, stop = max(0, seen + 1 - first), min(count, last + 1 - first)
    return kind, first + start, stop - start, first_id + start, at

"""What is asked of a journal, and told in JSON: by its scribe, or by whoever has it open alone.

Payloads are pickles of the owner's. They are handed on as they are (in base64), and loaded by whoever asked.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby, islice
from typing import Any

from bossworker.failure import KIND_BITS, Outcome
from bossworker.journal import listing
from bossworker.journal.answers import (
    CANCELLED,
    DONE,
    ENDED,
    FAILED,
    INTERRUPTED,
    NOT_NOW,
    PAGE_JOBS,
    QUEUED,
    RUNNING,
    STATUSES,
    UNKNOWN,
    Answer,
    Answering,
    NotDone,
    text_of,
)
from bossworker.journal.client_table import FIRST_OF_CLIENTS
from bossworker.journal.database import Database
from bossworker.journal.jobs_table import JobRow, is_emptied
from bossworker.journal.ranges import Ranges
from bossworker.journal.recovery import attempts_of, read_books
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.segments import END, Segment, part

_STATUS_OF: dict[int, str] = {Outcome.OK: DONE, Outcome.CANCELLED: CANCELLED, Outcome.INTERRUPTED: INTERRUPTED}
_STATUSES_BY_OUTCOME: list[str] = [_STATUS_OF.get(byte & KIND_BITS, FAILED) for byte in range(256)]


class Contents(Answering):
    """Answers questions on a database. `running`: tells the ids of the jobs that run now.

    `retry` is handed the new jobs of a retry, as (job of before, batch), and accepts them.
    """

    asks = (*Answering.asks, "runs", "some", "retrieved")

    def __init__(
        self,
        store: Database,
        running: Callable[[], Iterable[int]] = lambda: (),
        new_ids: Callable[[int], range] | None = None,
        accept: Callable[[list[tuple[int, Batch]]], None] | None = None,
    ) -> None:
        self._store = store
        self._running = running
        self._new_ids = new_ids or self._next_ids
        self._accept = accept or self._write

    # -- questions --------------------------------------------------------------------------------------

    def counts(self) -> Answer:
        """How many jobs there are of each status."""
        counts = dict.fromkeys(STATUSES, 0)
        for row in self._store.results.rows():
            for byte in set(row.outcomes):
                counts[_STATUSES_BY_OUTCOME[byte]] += row.outcomes.count(byte)
        books = read_books(self._store)
        unfinished = Ranges(ids for _, ids in books.unfinished())
        started = self._started(unfinished)
        counts[INTERRUPTED] += len(started)
        counts[RUNNING] = sum(job_id in unfinished for job_id in self._running())
        counts[QUEUED] = len(unfinished) - len(started) - counts[RUNNING]
        return counts

    def _started(self, unfinished: Ranges) -> Ranges:
        return Ranges(ids for one in self._store.started for ids in unfinished.within(one.start, one.stop))

    def jobs(self, status: list[str], after: int) -> Answer:
        """A page of jobs with one of these statuses, and ids above `after`."""
        found = list(islice(self._records(set(status), after), PAGE_JOBS))
        return {"jobs": found, "more": len(found) == PAGE_JOBS}

    def _records(self, status: set[str], after: int) -> Iterator[list[Any]]:
        states = _States(self._store, set(self._running()))
        forgotten = Ranges(self._store.forgotten)
        for row in self._store.jobs.rows_behind(after):
            for ids in forgotten.missing(max(row.first_id, after + 1), row.ids.stop):
                for job_id in ids:
                    state = states.of(job_id)
                    if state in status:
                        yield self._record(row, job_id, state, states)

    def _record(self, row: JobRow, job_id: int, state: str, states: _States) -> list[Any]:
        ended = states.times(job_id)
        ((_, attempt),) = attempts_of(states.attempts, range(job_id, job_id + 1))
        started, finished, attempts, pid = ended or (None, None, attempt - 1 + (state != QUEUED), 0)
        error = states.failure(job_id)
        retrieved = job_id in states.retrieved
        return [
            job_id,
            state,
            row.added,
            started,
            finished,
            attempts,
            pid,
            row.priority,
            row.retry_of,
            retrieved,
            error,
        ]

    def runs(self) -> Answer:
        """All jobs, for a list of very many: see listing.py."""
        return {"runs": listing.runs(self._store, read_books(self._store).unfinished(), self._running())}

    def some(self, ids: list[int], results: bool) -> Answer:
        """These jobs, as `jobs` tells of them, with what they are; with `results`, also the bytes of good ones."""
        states = _States(self._store, set(self._running()))
        records: list[list[Any]] = []
        contents: list[Answer] = []
        size = 0
        for row, some in self._by_row(sorted(set(ids))):
            for job_id in some:
                record = self._record(row, job_id, states.of(job_id), states)
                records.append([*record, states.good(job_id) if results else None])
            if size < MOST_CONTENT_BYTES:
                whole = self._store.jobs.batch(row)
                for one in Ranges(range(job_id, job_id + 1) for job_id in some):
                    contents.append(_content_of(whole.part(one.start - row.first_id, one.stop - row.first_id)))
                    size += len(contents[-1]["payload"] or "")
        return {"jobs": records, "contents": contents}

    def _by_row(self, ids: list[int]) -> Iterator[tuple[JobRow, list[int]]]:
        """Those of these jobs that there are, with the batches that they came in."""
        forgotten = Ranges(self._store.forgotten)
        for row, some in groupby((one for one in ids if one not in forgotten), self._store.jobs.row_of):
            if row is not None:
                yield row, list(some)

    def job(self, id: int, by_file: bool = False) -> Answer:
        """A job's pickle. `by_file`: a large one is not told, but where it is."""
        row = self._row_of(id)
        whole = self._store.jobs.batch(row)
        file = self._store.files.find(seq=row.seq) if by_file and is_emptied(whole) else None
        batch = whole if file is not None else self._store.jobs.part(row, range(id, id + 1))
        return {
            "counts": list(batch.counts),
            "sizes": list(batch.sizes),
            "skip": batch.skip,
            **_payload(batch.payload, file),
        }

    def result(self, id: int, by_file: bool = False) -> Answer:
        """A job's result, as it came; without one, its status. `by_file`: as above."""
        row = self._row_of(id)
        found = self._store.results.bare_segment_of(id)
        if found is None:
            return {"status": _States(self._store, set(self._running())).of(id)}
        file = self._store.results.file_of(found[0]) if by_file and found[0].jobs == 1 else None
        whole = found if file is not None else self._store.results.segment_of(id)
        assert whole is not None
        segment, clock = whole
        at = id - segment.first_id
        one = part(segment, at, at + 1)
        return {
            "job": self.job(id, by_file),
            "added": row.added,
            "pid": one.pid,
            "attempt": one.attempt,
            "clock": clock,
            "marks": list(array("d", bytes(one.marks))),
            "outcome": one.outcomes[0],
            **_payload(one.payload, file),
        }

    def _row_of(self, job_id: int) -> JobRow:
        row = self._store.jobs.row_of(job_id)
        if row is None or job_id in Ranges(self._store.forgotten):
            raise NotDone(f"there is no job {job_id} in the journal", UNKNOWN)
        return row

    def size(self) -> Answer:
        """How many bytes it takes."""
        return {"bytes": self._store.size()}

    # -- orders -----------------------------------------------------------------------------------------

    def retry(self, ids: list[int], status: list[str]) -> Answer:
        """Add jobs anew that have ended; the new ids."""
        states = _States(self._store, set(self._running()))
        wanted = ids or [record[0] for record in self._records(set(status), 0) if record[0] < FIRST_OF_CLIENTS]
        for job_id in wanted:
            self._row_of(job_id)
            if job_id >= FIRST_OF_CLIENTS:
                raise NotDone(f"job {job_id} is of a client of a door: who added it can add it again", NOT_NOW)
            if (state := states.of(job_id)) not in ENDED:
                raise NotDone(f"job {job_id} has not ended (it is {state}): it cannot be retried", NOT_NOW)
        new_ids = self._new_ids(len(wanted))
        self._accept([(old, self._again(old, new)) for old, new in zip(wanted, new_ids)])
        return {"ids": list(new_ids)}

    def _again(self, old: int, new: int) -> Batch:
        batch = self._store.jobs.part(self._row_of(old), range(old, old + 1))
        batch.first_id = new
        return batch

    def _next_ids(self, count: int) -> range:
        first = self._store.next_id()
        return range(first, first + count)

    def _write(self, retries: list[tuple[int, Batch]]) -> None:
        with self._store.transaction:
            for old, batch in retries:
                self._store.jobs.add(batch, time.time(), old)

    def forget(self, older_than: float, status: list[str], unretrieved: bool) -> Answer:
        """Delete jobs that have ended, with their results; how many."""
        doomed = self._doomed(time.time() - older_than, set(status), unretrieved)
        with self._store.transaction:
            self._store.delete(doomed)
        return {"count": len(doomed)}

    def _doomed(self, before: float, status: set[str], unretrieved: bool) -> Ranges:
        retrieved = Ranges(self._store.retrieved)
        doomed = Ranges()
        for segment, clock in self._store.results.segments():
            marks = array("d", bytes(segment.marks))
            for at, byte in enumerate(bytes(segment.outcomes)):
                job_id = segment.first_id + at
                if (
                    _STATUSES_BY_OUTCOME[byte] in status
                    and marks[at + 1] + clock <= before
                    and (unretrieved or job_id in retrieved)
                ):
                    doomed.add(job_id, job_id + 1)
        return doomed

    def retrieved(self, ranges: list[list[int]]) -> Answer:
        """The program that had the journal has got the results of these jobs."""
        with self._store.transaction:
            self._store.retrieved.add([range(first, first + count) for first, count in ranges])
        return {}


class _States:
    """The status of jobs, one after the other: the segment looked at last is kept."""

    def __init__(self, store: Database, running: set[int]) -> None:
        self._store = store
        self._running = running
        self._started = Ranges(store.started)
        self.retrieved = Ranges(store.retrieved)
        self.attempts = list(store.reruns)
        self._segment: Segment | None = None
        self._clock = 0.0

    def _find(self, job_id: int) -> int | None:
        """Where in the segment its result is; None: it has none."""
        segment = self._segment
        if segment is None or not segment.first_id <= job_id < segment.first_id + segment.jobs:
            found = self._store.results.bare_segment_of(job_id)
            if found is None:
                return None
            self._segment, self._clock = segment, _ = found
        return job_id - segment.first_id

    def of(self, job_id: int) -> str:
        at = self._find(job_id)
        if at is not None and self._segment is not None:
            return _STATUSES_BY_OUTCOME[self._segment.outcomes[at]]
        if job_id in self._started:
            return INTERRUPTED
        return RUNNING if job_id in self._running else QUEUED

    def times(self, job_id: int) -> tuple[float, float, int, int] | None:
        """When it started and ended (Unix seconds), its attempts and its worker's pid."""
        at = self._find(job_id)
        if at is None or self._segment is None:
            return None
        one = part(self._segment, at, at + 1)
        started, finished = array("d", bytes(one.marks))
        return started + self._clock, finished + self._clock, one.attempt, one.pid

    def good(self, job_id: int) -> list[Any] | None:
        """Outcome and payload of one that ended well; of a long one without it."""
        at = self._find(job_id)
        if at is None or self._segment is None or self._segment.outcomes[at] & KIND_BITS:
            return None
        return self._told(part(self._segment, at, at + 1), MOST_CONTENT_BYTES)

    def failure(self, job_id: int) -> list[Any] | None:
        """Outcome and payload of one that did not end well."""
        at = self._find(job_id)
        if at is None or self._segment is None or not self._segment.outcomes[at] & KIND_BITS:
            return None
        return self._told(part(self._segment, at, at + 1), MOST_ERROR_BYTES)

    def _told(self, one: Segment, most: int) -> list[Any]:
        """Outcome and payload of a segment of one, which is here without its bytes."""
        return [one.outcomes[0], text_of(self._payload_of(one)) if _size_of(one) <= most else ""]

    def _payload_of(self, one: Segment) -> bytes | memoryview:
        found = self._store.results.segment_of(one.first_id)
        assert found is not None
        at = one.first_id - found[0].first_id
        return part(found[0], at, at + 1).payload


MOST_ERROR_BYTES = 1 << 16  # of an error that is told in a list
MOST_CONTENT_BYTES = 1 << 20  # of jobs and results that are shown


def _content_of(one: Batch) -> Answer:
    """The pickles of jobs, as `Operator.jobs` has it; of a long one without it."""
    return {
        "first": one.first_id,
        "jobs": one.count,
        "skip": one.skip,
        "options": one.job_options._asdict(),
        "counts": list(one.counts),
        "sizes": list(one.sizes),
        "payload": None if len(one.payload) > MOST_CONTENT_BYTES or is_emptied(one) else text_of(one.payload),
    }


def _size_of(one: Segment) -> int:
    """Bytes of the payload of a segment of one."""
    (end,) = END.unpack(one.ends)
    return int(end - one.base)


def _payload(payload: bytes | bytearray | memoryview, file: tuple[str, int] | None) -> Answer:
    return {"payload": text_of(payload)} if file is None else {"file": list(file)}

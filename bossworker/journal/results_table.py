"""The results as they came: a row holds a segment of them, as it is on the wire. Each id is in one row at most."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from bossworker.failure import Outcome, encode_text
from bossworker.journal.id_tables import rows_within
from bossworker.journal.payload_files import LARGE_BYTES, PayloadFiles, read_payload
from bossworker.journal.ranges import Ranges
from bossworker.journal.row_sums import RESULT_COLUMNS, check_row, end_of, sum_of
from bossworker.pool.wire.segments import END, Segment, part


class ResultRow(NamedTuple):
    """A segment of results, without its bytes."""

    first_id: int
    jobs: int
    outcomes: bytes

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.jobs)


class EndedRow(NamedTuple):
    """A row of results, by when the last of them ended."""

    at: float
    """Unix seconds."""
    first_id: int
    jobs: int
    bytes: int
    """About what it frees when it goes, with what other tables say of it."""

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.jobs)


_BARE = "first_id, jobs, base, pid, attempt, marks, ends, outcomes, x'', clock, NULL"
_WHOLE = _BARE.replace("x''", "payload").replace("NULL", "sum")


class ResultsTable:
    """See the module. A segment's clock is Unix time minus monotonic time, by which its times can be told later."""

    def __init__(self, db: sqlite3.Connection, files: PayloadFiles) -> None:
        self._db = db
        self._files = files

    def add(self, segment: Segment, clock: float) -> None:
        """Record results."""
        payload = segment.payload
        if len(payload) >= LARGE_BYTES:
            self._files.write(payload, first_id=segment.first_id)
            payload = b""
        ids = (segment.first_id, segment.jobs, segment.base, segment.pid, segment.attempt)
        row = (*ids, float(clock), segment.outcomes, segment.marks, segment.ends, payload)
        query = f"INSERT INTO results ({RESULT_COLUMNS}, sum) VALUES (?,?,?,?,?,?,?,?,?,?,?)"
        self._db.execute(query, (*row, sum_of(row)))
        self._db.execute("INSERT INTO ended VALUES (?,?)", (end_of(segment.marks, clock), segment.first_id))

    def rows(self) -> Iterator[ResultRow]:
        query = "SELECT first_id, jobs, outcomes FROM results ORDER BY first_id"
        return map(ResultRow._make, self._db.execute(query))

    def ids_within(self, ids: range) -> list[range]:
        """The ids of rows with some of these jobs."""
        found = rows_within(self._db, "results", "first_id, jobs", ids)
        return [range(first_id, first_id + jobs) for first_id, jobs in found]

    def ended_rows(self) -> Iterator[tuple[ResultRow, float]]:
        """Each with when the last of its jobs ended, in Unix seconds."""
        query = "SELECT first_id, jobs, outcomes, at FROM results JOIN ended USING (first_id) ORDER BY first_id"
        for *row, at in self._db.execute(query):
            yield ResultRow._make(row), at

    def rows_behind(self, at: float, first_id: int, most: int) -> list[EndedRow]:
        """Rows in the order of their ends, from behind this end and id on, at most this many."""
        query = """SELECT at, first_id, jobs, length(payload) + 17 * jobs + 200 + coalesce(files.bytes, 0)
            FROM ended JOIN results USING (first_id) LEFT JOIN files USING (first_id)
            WHERE (at, first_id) > (?, ?) ORDER BY at, first_id LIMIT ?"""
        return list(map(EndedRow._make, self._db.execute(query, (at, first_id, most))))

    def segment_of(self, job_id: int) -> tuple[Segment, float] | None:
        """The segment with a job's result, and its clock. What its file was to hold, and does not, is an error."""
        found = self._find(job_id, _WHOLE)
        if found is None:
            return None
        segment, clock = found
        file = self.file_of(segment)
        if file is None:
            return found
        payload = read_payload(*file)
        return (segment._replace(payload=payload) if payload is not None else _lost(segment, file[0])), clock

    def file_of(self, segment: Segment) -> tuple[str, int] | None:
        """Path and size of the file with the payload of a segment, if it is in one."""
        (end,) = END.unpack(segment.ends[-END.size :])
        return self._files.find(first_id=segment.first_id) if end > segment.base and not segment.payload else None

    def bare_segment_of(self, job_id: int) -> tuple[Segment, float] | None:
        """The same without its bytes."""
        return self._find(job_id, _BARE)

    def _find(self, job_id: int, columns: str) -> tuple[Segment, float] | None:
        query = f"SELECT {columns} FROM results WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
        found = self._db.execute(query, (job_id,)).fetchone()
        if found is None or job_id >= found[0] + found[1]:
            return None
        *values, clock, noted = found
        segment = Segment(*values)
        blobs = (segment.outcomes, segment.marks, segment.ends, segment.payload)
        check_row((*segment[:5], clock, *blobs), noted, f"the results from job {segment.first_id} on")
        return segment, clock

    def segments(self) -> Iterator[tuple[Segment, float]]:
        """All segments without their bytes, each with its clock."""
        for found in self._db.execute(f"SELECT {_BARE} FROM results"):
            yield Segment(*found[:-2]), found[-2]

    def delete(self, doomed: Ranges) -> None:
        """Delete the results of these jobs. Of rows that hold others too, the rest is written anew."""
        for one in doomed:
            for first_id, jobs, marks, clock in rows_within(self._db, "results", "first_id, jobs, marks, clock", one):
                row = range(first_id, first_id + jobs)
                kept = doomed.missing(row.start, row.stop)
                stored = self.segment_of(first_id) if kept else None
                self._files.delete(first_id=first_id)
                self._db.execute("DELETE FROM results WHERE first_id = ?", (first_id,))
                self._db.execute("DELETE FROM ended WHERE at = ? AND first_id = ?", (end_of(marks, clock), first_id))
                for ids in kept:
                    assert stored is not None
                    self.add(part(stored[0], ids.start - first_id, ids.stop - first_id), stored[1])


def _lost(segment: Segment, path: str) -> Segment:
    """Results whose file is not there as it was written."""
    text = encode_text(f"BossWorkerAsync: the result is lost: {path} was changed or removed")
    ends = b"".join(END.pack(len(text) * n) for n in range(1, segment.jobs + 1))
    outcomes = bytes((Outcome.BAD_RESULT | Outcome.TEXT,)) * segment.jobs
    return segment._replace(base=0, ends=ends, outcomes=outcomes, payload=text * segment.jobs)

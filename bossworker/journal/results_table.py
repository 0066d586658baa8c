"""The results as they came: a row holds a segment of them, as it is on the wire. Each id is in one row at most."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import NamedTuple

from bossworker.pool.wire.segments import Segment, part


class ResultRow(NamedTuple):
    """A segment of results, without its bytes."""

    first_id: int
    jobs: int
    outcomes: bytes

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.jobs)


class ResultsTable:
    """See the module. A segment's clock is Unix time minus monotonic time, by which its times can be told later."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def add(self, segment: Segment, clock: float) -> None:
        """Record results."""
        ids = (segment.first_id, segment.jobs, segment.base, segment.pid, segment.attempt)
        columns = (segment.outcomes, segment.marks, segment.ends, segment.payload)
        self._db.execute("INSERT INTO results VALUES (?,?,?,?,?,?,?,?,?,?)", (*ids, clock, *columns))

    def rows(self) -> Iterator[ResultRow]:
        query = "SELECT first_id, jobs, outcomes FROM results ORDER BY first_id"
        return map(ResultRow._make, self._db.execute(query))

    def segment_of(self, job_id: int) -> tuple[Segment, float] | None:
        """The segment with a job's result, and its clock."""
        query = """SELECT first_id, jobs, base, pid, attempt, marks, ends, outcomes, payload, clock
            FROM results WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"""
        found = self._db.execute(query, (job_id,)).fetchone()
        if found is None or job_id >= found[0] + found[1]:
            return None
        return Segment(*found[:-1]), found[-1]

    def segments(self) -> Iterator[tuple[Segment, float]]:
        """All segments without their bytes, each with its clock."""
        query = "SELECT first_id, jobs, base, pid, attempt, marks, ends, outcomes, x'', clock FROM results"
        for found in self._db.execute(query):
            yield Segment(*found[:-1]), found[-1]

    def replace(self, row: ResultRow, kept: list[range]) -> None:
        """Have rows with these results of a row in its place."""
        stored = self.segment_of(row.first_id)
        assert stored is not None
        segment, clock = stored
        self._db.execute("DELETE FROM results WHERE first_id = ?", (row.first_id,))
        for ids in kept:
            self.add(part(segment, ids.start - row.first_id, ids.stop - row.first_id), clock)

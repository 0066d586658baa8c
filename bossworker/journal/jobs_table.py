"""The jobs as they were accepted: a row holds a batch of them, as it is on the wire."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.messages import BLOCK_COUNT, BLOCK_SIZE


class JobRow(NamedTuple):
    """A batch of jobs as it was accepted, without its bytes."""

    seq: int
    """In which order the batches were accepted."""
    first_id: int
    jobs: int
    skip: int
    priority: int
    timeout: float
    retries: int
    added: float
    """Unix seconds."""
    retry_of: int | None

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.jobs)


_COLUMNS = ", ".join(JobRow._fields)


class JobsTable:
    """See the module."""

    def __init__(self, db: sqlite3.Connection, next_seq: int) -> None:
        """`next_seq`: the least number that the next batch may have."""
        self._db = db
        (last,) = db.execute("SELECT max(seq) FROM jobs").fetchone()
        self.next_seq: int = max(next_seq, 1 + (last or 0))

    def add(self, batch: Batch, added: float, retry_of: int | None = None) -> int:
        """Record a batch; its number in the order of acceptance."""
        seq = self.next_seq
        self._insert(seq, batch, added, retry_of)
        return seq

    def _insert(self, seq: int, batch: Batch, added: float, retry_of: int | None) -> None:
        priority, timeout, retries, _ = batch.job_options
        body = batch.body()
        whole = body[0] if len(body) == 1 else b"".join(body)
        values = (seq, batch.first_id, batch.count, batch.skip, priority, timeout, retries, added, retry_of)
        self._db.execute("INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*values, batch.blocks, whole))
        self.next_seq = max(self.next_seq, seq + 1)

    def rows(self) -> Iterator[JobRow]:
        """All batches, in the order in which they were accepted."""
        return map(JobRow._make, self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY seq"))

    def rows_behind(self, job_id: int) -> Iterator[JobRow]:
        """Batches with jobs of higher ids, in the order of their ids."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE first_id + jobs > ? ORDER BY first_id"
        return map(JobRow._make, self._db.execute(query, (job_id + 1,)))

    def row_of(self, job_id: int) -> JobRow | None:
        """The batch that a job came in."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
        found = self._db.execute(query, (job_id,)).fetchone()
        row = None if found is None else JobRow._make(found)
        return row if row is not None and job_id in row.ids else None

    def batch(self, row: JobRow, attempt: int = 1) -> Batch:
        """The jobs of a row."""
        blocks, body = self._db.execute("SELECT blocks, body FROM jobs WHERE seq = ?", (row.seq,)).fetchone()
        job_options = JobOptions(row.priority, row.timeout, row.retries, attempt)
        return _batch(row.first_id, row.jobs, row.skip, job_options, blocks, body)

    def part(self, row: JobRow, ids: range) -> Batch:
        """Some of the jobs of a row."""
        return self.batch(row).part(ids.start - row.first_id, ids.stop - row.first_id)

    def id_behind(self, start: int, stop: int) -> int | None:
        """The id behind the last one in this range that a job has; None: none has one."""
        query = "SELECT first_id + jobs FROM jobs WHERE first_id >= ? AND first_id < ? ORDER BY first_id DESC LIMIT 1"
        found = self._db.execute(query, (start, stop)).fetchone()
        return None if found is None else found[0]

    def replace(self, row: JobRow, kept: list[range]) -> None:
        """Have rows with these jobs of a row in its place."""
        batches = [self.part(row, ids) for ids in kept]
        self._db.execute("DELETE FROM jobs WHERE seq = ?", (row.seq,))
        for seq, batch in zip([row.seq, *range(self.next_seq, self.next_seq + len(kept))], batches):
            self._insert(seq, batch, row.added, row.retry_of)


def _batch(first_id: int, jobs: int, skip: int, job_options: JobOptions, blocks: int, body: bytes) -> Batch:
    view = memoryview(body)
    counts_end = blocks * array(BLOCK_COUNT).itemsize
    sizes_end = counts_end + blocks * array(BLOCK_SIZE).itemsize
    counts, sizes = array(BLOCK_COUNT, bytes(view[:counts_end])), array(BLOCK_SIZE, bytes(view[counts_end:sizes_end]))
    return Batch(first_id, jobs, skip, job_options, counts, sizes, view[sizes_end:])

"""The jobs as they were accepted: a row holds a batch of them, as it is on the wire."""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator
from typing import NamedTuple

from bossworker.journal.id_tables import rows_within
from bossworker.journal.payload_files import LARGE_BYTES, PayloadFiles, read_payload
from bossworker.journal.ranges import Ranges
from bossworker.journal.row_sums import JOB_COLUMNS, check_row, sum_of
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.messages import BLOCK_COUNT, BLOCK_SIZE, CLIENT_BITS


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

    @property
    def client(self) -> int:
        """Who has added them; 0: the program."""
        return self.first_id >> CLIENT_BITS


_COLUMNS = ", ".join(JobRow._fields)


class JobsTable:
    """See the module."""

    def __init__(self, db: sqlite3.Connection, files: PayloadFiles, next_seq: int) -> None:
        """`next_seq`: the least number that the next batch may have."""
        self._db = db
        self._files = files
        (last,) = db.execute("SELECT max(seq) FROM jobs").fetchone()
        self.next_seq: int = max(next_seq, 1 + (last or 0))

    def add(self, batch: Batch, added: float, retry_of: int | None = None) -> int:
        """Record a batch; its number in the order of acceptance."""
        seq = self.next_seq
        priority, timeout, retries, _ = batch.job_options
        if is_large(batch):
            self._files.write(batch.payload, seq=seq)
            body = batch.counts.tobytes() + batch.sizes.tobytes()
        else:
            body = b"".join(batch.body())
        options = (priority, float(timeout), retries, float(added), retry_of)  # as they are read
        row = (seq, batch.first_id, batch.count, batch.skip, *options, batch.blocks, body)
        self._db.execute(f"INSERT INTO jobs ({JOB_COLUMNS}, sum) VALUES (?,?,?,?,?,?,?,?,?,?,?,?)", (*row, sum_of(row)))
        self.next_seq = seq + 1
        return seq

    def rows(self) -> Iterator[JobRow]:
        """All batches, in the order in which they were accepted."""
        return map(JobRow._make, self._db.execute(f"SELECT {_COLUMNS} FROM jobs ORDER BY seq"))

    def rows_behind(self, job_id: int) -> Iterator[JobRow]:
        """Batches with jobs of higher ids, in the order of their ids."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE first_id + jobs > ? ORDER BY first_id"
        return map(JobRow._make, self._db.execute(query, (job_id + 1,)))

    def rows_within(self, ids: range) -> list[JobRow]:
        """Batches with some of these jobs, in the order of their ids."""
        return sorted(map(JobRow._make, rows_within(self._db, "jobs", _COLUMNS, ids)), key=lambda row: row.first_id)

    def ids_within(self, ids: range) -> list[range]:
        """The ids of these batches."""
        return [row.ids for row in self.rows_within(ids)]

    def has_any(self, ids: range) -> bool:
        """Whether there is a job with one of these ids."""
        return bool(rows_within(self._db, "jobs", "1", ids))

    def row_of(self, job_id: int) -> JobRow | None:
        """The batch that a job came in."""
        query = f"SELECT {_COLUMNS} FROM jobs WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
        found = self._db.execute(query, (job_id,)).fetchone()
        row = None if found is None else JobRow._make(found)
        return row if row is not None and job_id in row.ids else None

    def batch(self, row: JobRow) -> Batch:
        """The jobs of a row."""
        query = "SELECT blocks, body, sum FROM jobs WHERE seq = ?"
        blocks, body, noted = self._db.execute(query, (row.seq,)).fetchone()
        check_row((*row, blocks, body), noted, f"job {row.first_id}")
        job_options = JobOptions(row.priority, row.timeout, row.retries, 1)
        return _batch(row.first_id, row.jobs, row.skip, job_options, blocks, body)

    def filled(self, batch: Batch, seq: int) -> Batch:
        """The same with its payload, if that is in a file. One that is not there any more leaves the job without."""
        if not is_emptied(batch):
            return batch
        found = self._files.find(seq=seq)
        payload = read_payload(*found) if found is not None else None
        sizes = batch.sizes if payload is not None else array(BLOCK_SIZE, [0])
        return Batch(batch.first_id, 1, batch.skip, batch.job_options, batch.counts, sizes, payload or b"")

    def part(self, row: JobRow, ids: range) -> Batch:
        """Some of the jobs of a row, with their payloads."""
        return self.filled(self.batch(row), row.seq).part(ids.start - row.first_id, ids.stop - row.first_id)

    def id_behind(self, start: int, stop: int) -> int | None:
        """The id behind the last one in this range that a job has; None: none has one."""
        query = "SELECT first_id + jobs FROM jobs WHERE first_id >= ? AND first_id < ? ORDER BY first_id DESC LIMIT 1"
        found = self._db.execute(query, (start, stop)).fetchone()
        return None if found is None else found[0]

    def delete(self, doomed: Ranges, ended: Ranges) -> list[range]:
        """Delete those rows with a job in `doomed` of which all jobs are in `ended`; the ids of their jobs."""
        deleted = []
        for one in doomed:
            for row in map(JobRow._make, rows_within(self._db, "jobs", _COLUMNS, one)):
                if ended.within(row.ids.start, row.ids.stop) == [row.ids]:
                    self._files.delete(seq=row.seq)
                    self._db.execute("DELETE FROM jobs WHERE seq = ?", (row.seq,))
                    deleted.append(row.ids)
        return deleted


def is_large(batch: Batch) -> bool:
    """Whether its payload goes to a file."""
    return batch.count == 1 and len(batch.payload) >= LARGE_BYTES


def is_emptied(batch: Batch) -> bool:
    """Whether its payload is in a file, and not here."""
    return batch.count == 1 and not len(batch.payload) and any(batch.sizes)


def empty(batch: Batch) -> None:
    """Let go of a payload that is in a file."""
    _ = batch.sizes  # taken out of what came in one piece with the payload
    batch.payload = b""


def _batch(first_id: int, jobs: int, skip: int, job_options: JobOptions, blocks: int, body: bytes) -> Batch:
    view = memoryview(body)
    counts_end = blocks * array(BLOCK_COUNT).itemsize
    sizes_end = counts_end + blocks * array(BLOCK_SIZE).itemsize
    counts, sizes = array(BLOCK_COUNT, bytes(view[:counts_end])), array(BLOCK_SIZE, bytes(view[counts_end:sizes_end]))
    return Batch(first_id, jobs, skip, job_options, counts, sizes, view[sizes_end:])

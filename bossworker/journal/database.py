"""The database of a journal: jobs as they were accepted, results as they came. One connection, one owner.

A row holds what travelled together: a batch of jobs, a segment of results (see ``pool/wire``), as it is on the wire. So
nothing is taken apart to be recorded, and a job costs a few bytes more than its pickle. What a job's state is follows
from which of the tables tell of its id.

    jobs        accepted: consecutive ids with the same options, in blocks
    results     recorded: consecutive ids. Each id is in one row at most
    retrieved   ids whose results the program has got
    horizon     how far jobs were passed to the boss, for each priority: what is behind it never started
    started     ids of jobs that may have run when an earlier owner ended, and have no result
    reruns      ids of jobs that run again after that, and as which attempt
    keys        what jobs are, by their keys (`job_key`);  keyed: ids of the jobs whose keys are known
    meta        what there is one of

SQLite's rollback journal takes two or three syncs a commit, its write-ahead log one. With ``locking_mode=EXCLUSIVE``,
that needs no shared memory, and no second connection can come near it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import time
from array import array
from collections.abc import Iterable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from bossworker.errors import JournalError
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.messages import BLOCK_COUNT, BLOCK_SIZE
from bossworker.pool.wire.segments import Segment, part

VERSION = 1  # of the tables
APPLICATION = 0x62776A6C  # "bwjl": marks a database as a journal
MOST_BYTES = 900_000_000  # of a job, or of a result: SQLite takes a thousand million
CHECKED_BYTES = 1 << 26  # a database up to this size is looked through when it is opened
_SQLITE = b"SQLite format 3\0"
_FULL = (sqlite3.SQLITE_FULL,)

FIRST_OF_SCRIBE = 1 << 39
"""Jobs that the journal itself adds while it has an owner (another program may ask for a retry) have ids from here on:
the owner gives out those below."""

_TABLES = """
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY, first_id INTEGER NOT NULL UNIQUE, jobs INTEGER NOT NULL, skip INTEGER NOT NULL,
    priority INTEGER NOT NULL, timeout REAL NOT NULL, retries INTEGER NOT NULL, added REAL NOT NULL,
    retry_of INTEGER, blocks INTEGER NOT NULL, body BLOB NOT NULL);
CREATE TABLE results (
    first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL, base INTEGER NOT NULL, pid INTEGER NOT NULL,
    attempt INTEGER NOT NULL, clock REAL NOT NULL, outcomes BLOB NOT NULL, marks BLOB NOT NULL, ends BLOB NOT NULL,
    payload BLOB NOT NULL);
CREATE TABLE retrieved (first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL);
CREATE TABLE horizon (priority INTEGER PRIMARY KEY, seq INTEGER NOT NULL, taken INTEGER NOT NULL);
CREATE TABLE started (first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL);
CREATE TABLE reruns (first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL, attempt INTEGER NOT NULL);
CREATE TABLE keys (key BLOB NOT NULL, id INTEGER NOT NULL, PRIMARY KEY (key, id)) WITHOUT ROWID;
CREATE TABLE keyed (first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL);
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID;
"""


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


class ResultRow(NamedTuple):
    """A segment of results, without its bytes."""

    first_id: int
    jobs: int
    outcomes: bytes

    @property
    def ids(self) -> range:
        return range(self.first_id, self.first_id + self.jobs)


class DiskFull(Exception):
    """There was no room for a transaction, of which nothing is left. Later there may be."""


class Database:
    """See the module. Only one at a time: see ``ownership.py``."""

    def __init__(self, path: str) -> None:
        """Open it, or make it. JournalError: it is damaged, or something else; then it is left as it is."""
        self.path = path
        made = _make_file(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0, cached_statements=64)
        except sqlite3.Error as error:
            raise JournalError(f"the journal {path} cannot be opened: {error}") from error
        try:
            if not made:
                self._check()
            self._set_up()
            if made:
                self._make_tables()
            _sync_folder(path)  # what was deleted must not come back either: a rollback journal would undo all
            self.next_seq = 1 + max(
                self._one("SELECT max(seq) FROM jobs") or 0, self._one("SELECT max(seq) FROM horizon") or 0
            )
        except sqlite3.Error as error:
            self._db.close()
            if is_full(error):
                raise DiskFull(str(error)) from error
            raise self._unusable(error) from error
        except BaseException:
            self._db.close()
            raise

    def _unusable(self, error: object) -> JournalError:
        advice = "it was left as it is: restore a copy, or move it away and begin a new one"
        return JournalError(f"the journal {self.path} cannot be used ({error}); {advice}")

    # -- the file ---------------------------------------------------------------------------------------

    def _check(self) -> None:
        """JournalError: This is no journal of ours, or a damaged one."""
        size = os.path.getsize(self.path)
        with open(self.path, "rb") as file:
            if size and file.read(len(_SQLITE)) != _SQLITE:
                raise self._unusable("it is no SQLite database")
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")  # before anything is read, or there would be shared memory
        application, version = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
        if not size or (not application and not version and not self._one("SELECT count(*) FROM sqlite_master")):
            self._make_tables()  # whoever made it did not come further
        elif application != APPLICATION:
            raise self._unusable("it is the database of another program")
        elif version > VERSION:
            raise self._unusable(f"its version is {version}, and this bossworker knows those up to {VERSION}")
        elif size <= CHECKED_BYTES and (found := self._one("PRAGMA quick_check(1)")) != "ok":
            raise self._unusable(f"it is damaged: {found}")

    def _set_up(self) -> None:
        execute = self._db.execute
        execute("PRAGMA locking_mode=EXCLUSIVE")
        execute("PRAGMA journal_mode=WAL")
        execute("PRAGMA synchronous=FULL")
        execute("PRAGMA wal_autocheckpoint=4000")
        execute("PRAGMA cache_size=-8000")
        if sys.platform == "darwin":
            execute("PRAGMA fullfsync=1")
            execute("PRAGMA checkpoint_fullfsync=1")

    def _make_tables(self) -> None:
        with self._transaction():
            for statement in _TABLES.split(";"):
                self._db.execute(statement)
            self._db.execute(f"PRAGMA application_id={APPLICATION}")
            self._db.execute(f"PRAGMA user_version={VERSION}")

    def close(self) -> None:
        """Give it back, with what the write-ahead log holds moved into the database."""
        with suppress(sqlite3.Error):
            self._db.close()

    # -- transactions -----------------------------------------------------------------------------------

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Once it returns, what was written since `begin` is on the disk. DiskFull: there is no room."""
        self._db.execute("COMMIT")

    def roll_back(self) -> None:
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")

    def _transaction(self) -> _Transaction:
        return _Transaction(self)

    transaction = property(_transaction)

    def _one(self, query: str, *values: object) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    # -- jobs -------------------------------------------------------------------------------------------

    def add_jobs(self, batch: Batch, added: float, retry_of: int | None = None) -> int:
        """Record a batch; its number in the order of acceptance."""
        seq = self.next_seq
        self._insert_jobs(seq, batch, added, retry_of)
        return seq

    def _insert_jobs(self, seq: int, batch: Batch, added: float, retry_of: int | None) -> None:
        priority, timeout, retries, _ = batch.job_options
        body = batch.body()
        whole = body[0] if len(body) == 1 else b"".join(body)
        values = (seq, batch.first_id, batch.count, batch.skip, priority, timeout, retries, added, retry_of)
        self._db.execute("INSERT INTO jobs VALUES (?,?,?,?,?,?,?,?,?,?,?)", (*values, batch.blocks, whole))
        self.next_seq = max(self.next_seq, seq + 1)

    def job_rows(self) -> Iterator[JobRow]:
        """All batches, in the order in which they were accepted."""
        columns = ", ".join(JobRow._fields)
        return map(JobRow._make, self._db.execute(f"SELECT {columns} FROM jobs ORDER BY seq"))

    def rows_behind(self, job_id: int) -> Iterator[JobRow]:
        """Batches with jobs of higher ids, in the order of their ids."""
        columns = ", ".join(JobRow._fields)
        query = f"SELECT {columns} FROM jobs WHERE first_id + jobs > ? ORDER BY first_id"
        return map(JobRow._make, self._db.execute(query, (job_id + 1,)))

    def row_of(self, job_id: int) -> JobRow | None:
        """The batch that a job came in."""
        columns = ", ".join(JobRow._fields)
        query = f"SELECT {columns} FROM jobs WHERE first_id <= ? ORDER BY first_id DESC LIMIT 1"
        found = self._db.execute(query, (job_id,)).fetchone()
        row = None if found is None else JobRow._make(found)
        return row if row is not None and job_id in row.ids else None

    def batch(self, row: JobRow, attempt: int = 1) -> Batch:
        """The jobs of a row."""
        blocks, body = self._db.execute("SELECT blocks, body FROM jobs WHERE seq = ?", (row.seq,)).fetchone()
        job_options = JobOptions(row.priority, row.timeout, row.retries, attempt)
        return _batch(row.first_id, row.jobs, row.skip, job_options, blocks, body)

    def next_id(self, scribes: int = 0) -> int:
        """An id that no job has had; `scribes`: FIRST_OF_SCRIBE for one of those."""
        end = scribes + FIRST_OF_SCRIBE
        query = "SELECT first_id + jobs FROM jobs WHERE first_id >= ? AND first_id < ? ORDER BY first_id DESC LIMIT 1"
        found = self._one(query, scribes, end) or max(1, scribes)
        kept = self.meta(f"next_id of {scribes}")  # of jobs that were deleted
        return max(found, kept or 0)

    def keep_next_ids(self) -> None:
        """Jobs are about to be deleted: their ids are never given out again."""
        for scribes in (0, FIRST_OF_SCRIBE):
            self.set_meta(f"next_id of {scribes}", self.next_id(scribes))

    # -- results ----------------------------------------------------------------------------------------

    def add_results(self, segment: Segment, clock: float) -> None:
        """Record results. `clock`: Unix time minus monotonic time, by which their times can be told later."""
        self._db.execute(
            "INSERT INTO results VALUES (?,?,?,?,?,?,?,?,?,?)",
            (
                segment.first_id,
                segment.jobs,
                segment.base,
                segment.pid,
                segment.attempt,
                clock,
                segment.outcomes,
                segment.marks,
                segment.ends,
                segment.payload,
            ),
        )

    def result_rows(self) -> Iterator[ResultRow]:
        query = "SELECT first_id, jobs, outcomes FROM results ORDER BY first_id"
        return map(ResultRow._make, self._db.execute(query))

    def ended_rows(self) -> Iterator[tuple[ResultRow, float]]:
        """Each with when the last of its jobs ended, in Unix seconds."""
        query = "SELECT first_id, jobs, outcomes, substr(marks, -8), clock FROM results ORDER BY first_id"
        for *row, last, clock in self._db.execute(query):
            yield ResultRow._make(row), array("d", last)[0] + clock

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

    def delete(self, doomed: Ranges) -> None:
        """Delete these jobs and their results. Of rows that hold others too, the rest is written anew."""
        for row in list(self.job_rows()):
            kept = doomed.missing(row.ids.start, row.ids.stop)
            if kept == [row.ids]:
                continue
            batch = self.batch(row)
            self._db.execute("DELETE FROM jobs WHERE seq = ?", (row.seq,))
            seqs = [row.seq, *range(self.next_seq, self.next_seq + len(kept))]
            for seq, ids in zip(seqs, kept):
                self._insert_jobs(
                    seq, batch.part(ids.start - row.first_id, ids.stop - row.first_id), row.added, row.retry_of
                )
        for found in list(self.result_rows()):
            kept = doomed.missing(found.ids.start, found.ids.stop)
            if kept == [found.ids]:
                continue
            stored = self.segment_of(found.first_id)
            assert stored is not None
            segment, clock = stored
            self._db.execute("DELETE FROM results WHERE first_id = ?", (found.first_id,))
            for ids in kept:
                self.add_results(part(segment, ids.start - found.first_id, ids.stop - found.first_id), clock)
        for table in ("retrieved", "keyed"):
            left = Ranges(self.ranges(table))
            for one in doomed:
                left.remove(one.start, one.stop)
            self.set_ranges(table, left)
        for one in doomed:
            self._db.execute("DELETE FROM keys WHERE id >= ? AND id < ?", (one.start, one.stop))

    # -- ranges of ids ----------------------------------------------------------------------------------

    def ranges(self, table: str) -> Iterator[range]:
        """Those in ``retrieved`` or ``started``, ascending."""
        for first_id, jobs in self._db.execute(f"SELECT first_id, jobs FROM {table} ORDER BY first_id"):
            yield range(first_id, first_id + jobs)

    def add_ranges(self, table: str, ranges: Iterable[range]) -> None:
        longer = "ON CONFLICT (first_id) DO UPDATE SET jobs = max(jobs, excluded.jobs)"
        query = f"INSERT INTO {table} (first_id, jobs) VALUES (?, ?) {longer}"
        self._db.executemany(query, [(one.start, len(one)) for one in ranges])

    def set_ranges(self, table: str, ranges: Iterable[range]) -> None:
        """These, and no others."""
        self._db.execute(f"DELETE FROM {table}")
        self.add_ranges(table, ranges)

    def reruns(self) -> Iterator[tuple[range, int]]:
        """Ids of jobs that run again, and as which attempt."""
        for first_id, jobs, attempt in self._db.execute("SELECT first_id, jobs, attempt FROM reruns ORDER BY first_id"):
            yield range(first_id, first_id + jobs), attempt

    def set_reruns(self, reruns: Iterable[tuple[range, int]]) -> None:
        self._db.execute("DELETE FROM reruns")
        rows = [(ids.start, len(ids), attempt) for ids, attempt in reruns]
        self._db.executemany("INSERT INTO reruns VALUES (?,?,?)", rows)

    # -- keys -------------------------------------------------------------------------------------------

    def add_keys(self, ids: Iterable[int], keys: Iterable[bytes]) -> None:
        """Note the keys of jobs; one that is all zeros is none."""
        pairs = list(zip(ids, keys))
        self._db.executemany("INSERT OR IGNORE INTO keys VALUES (?,?)", [(key, id) for id, key in pairs if any(key)])
        known = Ranges(self.ranges("keyed"))
        for id, _ in pairs:
            known.add(id, id + 1)
        self.set_ranges("keyed", known)

    def ids_of(self, key: bytes) -> list[int]:
        """The jobs with this key, the newest first."""
        rows = self._db.execute("SELECT id FROM keys WHERE key = ? ORDER BY id DESC", (key,))
        return [id for (id,) in rows]

    def unkeyed(self) -> Iterator[Batch]:
        """Jobs whose keys are not known."""
        known = Ranges(self.ranges("keyed"))
        for row in list(self.job_rows()):
            for ids in known.missing(row.ids.start, row.ids.stop):
                yield self.batch(row).part(ids.start - row.first_id, ids.stop - row.first_id)

    # -- how far jobs were passed on --------------------------------------------------------------------

    def horizons(self) -> dict[int, tuple[int, int]]:
        """For each priority: the batch that was passed on last, and how many of its jobs were."""
        rows = self._db.execute("SELECT priority, seq, taken FROM horizon")
        return {priority: (seq, taken) for priority, seq, taken in rows}

    def set_horizon(self, priority: int, seq: int, taken: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO horizon VALUES (?,?,?)", (priority, seq, taken))

    def clear_horizons(self) -> None:
        self._db.execute("DELETE FROM horizon")

    # -- what there is one of ---------------------------------------------------------------------------

    def meta(self, name: str) -> Any:
        return self._one("SELECT value FROM meta WHERE name = ?", name)

    def set_meta(self, name: str, value: object) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES (?,?)", (name, value))


class _Transaction:
    """All of it, or nothing. DiskFull: there was no room; JournalError: the disk, or the database, is broken."""

    def __init__(self, store: Database) -> None:
        self._store = store

    def __enter__(self) -> None:
        self._store.begin()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is None:
                self._store.commit()
                return
        except sqlite3.Error as problem:
            error = problem
        with suppress(sqlite3.Error):
            self._store.roll_back()
        if is_full(error):
            raise DiskFull(str(error)) from error
        if isinstance(error, sqlite3.Error):
            raise self._store._unusable(error) from error


def is_full(error: BaseException | None) -> bool:
    """Whether it says that there is no room."""
    if isinstance(error, OSError):
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorcode", 0) in _FULL


def _batch(first_id: int, jobs: int, skip: int, job_options: JobOptions, blocks: int, body: bytes) -> Batch:
    view = memoryview(body)
    counts_end = blocks * array(BLOCK_COUNT).itemsize
    sizes_end = counts_end + blocks * array(BLOCK_SIZE).itemsize
    counts, sizes = array(BLOCK_COUNT, bytes(view[:counts_end])), array(BLOCK_SIZE, bytes(view[counts_end:sizes_end]))
    return Batch(first_id, jobs, skip, job_options, counts, sizes, view[sizes_end:])


def _make_file(path: str) -> bool:
    """Make it, for this user alone; False when it is there. JournalError when that cannot be."""
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return True
    except FileExistsError:
        return False
    except OSError as error:
        raise JournalError(f"the journal {path} cannot be made: {error.strerror}") from error


def _sync_folder(path: str) -> None:
    """A new file is there after a power cut only if its folder has been synced, too."""
    fd = os.open(os.path.dirname(path) or ".", os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def clock_offset() -> float:
    """Unix time minus monotonic time."""
    return time.time() - time.monotonic()

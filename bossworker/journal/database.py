"""The database of a journal: jobs as they were accepted, results as they came. One connection, one owner.

`schema.py` tells which tables there are.

SQLite's rollback journal takes two or three syncs a commit, its write-ahead log one. With ``locking_mode=EXCLUSIVE``,
that needs no shared memory, and no second connection can come near it.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from bossworker.errors import JournalError
from bossworker.journal import schema
from bossworker.journal.id_tables import HorizonTable, IdTable, RerunTable
from bossworker.journal.jobs_table import JobsTable
from bossworker.journal.keys_table import KeysTable
from bossworker.journal.ranges import Ranges
from bossworker.journal.results_table import ResultsTable
from bossworker.pool.wire.batch import Batch

MOST_BYTES = 900_000_000  # of a job, or of a result: SQLite takes a thousand million
CHECKED_BYTES = 1 << 26  # a database up to this size is looked through when it is opened
_SQLITE = b"SQLite format 3\0"
_FULL = (sqlite3.SQLITE_FULL,)

FIRST_OF_SCRIBE = 1 << 39
"""Jobs that the journal itself adds while it has an owner (another program may ask for a retry) have ids from here on:
the owner gives out those below."""


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
            self._find_tables()
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

    def _find_tables(self) -> None:
        db = self._db
        self.results = ResultsTable(db)
        self.retrieved = IdTable(db, "retrieved")
        self.horizons = HorizonTable(db)
        self.started = IdTable(db, "started")
        self.reruns = RerunTable(db)
        self.keys = KeysTable(db)
        self.jobs = JobsTable(db, self.horizons.last() + 1)

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
        elif application != schema.APPLICATION:
            raise self._unusable("it is the database of another program")
        elif version > schema.VERSION:
            raise self._unusable(f"its version is {version}, and this bossworker knows those up to {schema.VERSION}")
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
            schema.make(self._db)

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

    # -- ids and jobs that go through several tables -----------------------------------------------------

    def next_id(self, scribes: int = 0) -> int:
        """An id that no job has had; `scribes`: FIRST_OF_SCRIBE for one of those."""
        found = self.jobs.id_behind(scribes, scribes + FIRST_OF_SCRIBE) or max(1, scribes)
        kept = self.meta(f"next_id of {scribes}")  # of jobs that were deleted
        return max(found, kept or 0)

    def keep_next_ids(self) -> None:
        """Jobs are about to be deleted: their ids are never given out again."""
        for scribes in (0, FIRST_OF_SCRIBE):
            self.set_meta(f"next_id of {scribes}", self.next_id(scribes))

    def delete(self, doomed: Ranges) -> None:
        """Delete these jobs and their results. Of rows that hold others too, the rest is written anew."""
        for row in list(self.jobs.rows()):
            kept = doomed.missing(row.ids.start, row.ids.stop)
            if kept != [row.ids]:
                self.jobs.replace(row, kept)
        for found in list(self.results.rows()):
            kept = doomed.missing(found.ids.start, found.ids.stop)
            if kept != [found.ids]:
                self.results.replace(found, kept)
        self.retrieved.remove(doomed)
        self.keys.delete(doomed)

    def unkeyed(self) -> Iterator[Batch]:
        """Jobs whose keys are not known."""
        known = Ranges(self.keys.known)
        for row in list(self.jobs.rows()):
            for ids in known.missing(row.ids.start, row.ids.stop):
                yield self.jobs.part(row, ids)

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

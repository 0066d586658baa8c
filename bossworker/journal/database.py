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
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

from bossworker.errors import JournalError
from bossworker.journal import schema
from bossworker.journal.client_table import FIRST_OF_CLIENTS, ClientTable
from bossworker.journal.file_check import check_file, unusable
from bossworker.journal.id_tables import HorizonTable, IdTable, RerunTable
from bossworker.journal.jobs_table import JobsTable
from bossworker.journal.keys_table import KeysTable
from bossworker.journal.payload_files import PayloadFiles, folder_of
from bossworker.journal.ranges import Ranges
from bossworker.journal.results_table import ResultsTable
from bossworker.pool.wire.batch import Batch
from bossworker.system.syncing import sync_folder_of

MOST_BYTES = 900_000_000  # of a job, or of a result: each process on its way has a copy in its memory
_FULL = (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR_WRITE)  # the latter of a quota, or a limit of a file's size

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
        self.on_commit: Callable[[int], object] = lambda number: None
        """Is told the number of each commit that is on the disk."""
        if not _make_file(path):
            check_file(path)
        try:
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0, cached_statements=64)
        except sqlite3.Error as error:
            raise JournalError(f"the journal {path} cannot be opened: {error}") from error
        try:
            self._set_up()
            self._make_tables()
            sync_folder_of(path)  # what was deleted must not come back either: a rollback journal would undo all
            self._find_tables()
            self.empty_log()
        except sqlite3.Error as error:
            self._db.close()
            if is_full(error):
                raise DiskFull(str(error)) from error
            raise unusable(path, error) from error
        except BaseException:
            self._db.close()
            raise

    def _make_tables(self) -> None:
        """Make ours, of those of an earlier version or of none."""
        version = self._one("PRAGMA user_version")
        if version == schema.VERSION:
            return
        self._db.execute("BEGIN IMMEDIATE")  # what ends before it is committed leaves it as it was
        if version:
            schema.migrate(self._db, version)
        else:
            schema.make(self._db)
        self._db.execute("COMMIT")

    def _find_tables(self) -> None:
        db = self._db
        self.files = PayloadFiles(db, folder_of(self.path))
        self.files.sweep()
        self.results = ResultsTable(db, self.files)
        self.retrieved = IdTable(db, "retrieved")
        self.forgotten = IdTable(db, "forgotten")
        self.horizons = HorizonTable(db)
        self.started = IdTable(db, "started")
        self.reruns = RerunTable(db)
        self.keys = KeysTable(db)
        self.clients = ClientTable(db)
        self.jobs = JobsTable(db, self.files, self.horizons.last() + 1)
        self.commits: int = self.meta("commits") or 0

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
        # What an earlier session has left in the log is moved into the database before there is anything new: then of
        # what is in a log, no more than one commit was not on the disk (log_check.py).
        execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def empty_log(self) -> None:
        """Have the database itself hold all that is committed."""
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._seen = self._look_at_files()

    def close(self) -> None:
        """Give it back, with what the write-ahead log holds moved into the database."""
        with suppress(sqlite3.Error):
            self._db.close()

    # -- transactions -----------------------------------------------------------------------------------

    @property
    def transaction(self) -> _Transaction:
        """What is written in it is on the disk once it is left; or none of it is, and an error is raised."""
        return _Transaction(self)

    def begin(self) -> None:
        self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        self.files.before_commit()
        self.set_meta("commits", self.commits + 1)
        self._db.execute("COMMIT")
        self.commits += 1
        self.on_commit(self.commits)
        self.files.after_commit()
        seen, self._seen = self._seen, self._look_at_files()
        for before, now in zip(seen, self._seen):  # what is written to a file without a name is gone with us
            if now[:2] != before[:2] or now[2] < before[2]:
                raise JournalError(f"the journal {self.path} was moved, replaced or removed while it was in use")

    def _look_at_files(self) -> list[tuple[int, int, int]]:
        """Which files the database and its log are, by their names; and their sizes, which never become smaller."""
        return [_look_at(path) for path in (self.path, f"{self.path}-wal")]

    def roll_back(self, surely: bool) -> None:
        """`surely`: nothing of it is on the disk. (A commit whose sync failed may be found there later.)"""
        if self._db.in_transaction:
            self._db.execute("ROLLBACK")
        self.files.after_rollback(surely)

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
        """Delete these jobs, which have ended, and their results, in the open transaction.

        A row of jobs stays until all of them are deleted: places in rows are what jobs that wait are told of by.
        """
        self.keep_next_ids()
        self.results.delete(doomed)
        self.retrieved.remove(doomed)
        self.keys.delete(doomed)
        forgotten = Ranges(self.forgotten)
        for one in doomed:
            forgotten.add(one.start, one.stop)
        for ids in self.jobs.delete(doomed, forgotten):
            forgotten.remove(ids.start, ids.stop)
        self.forgotten.set(forgotten)

    def size(self) -> int:
        """Bytes that are in use: of the database, and of the files beside it."""
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return int(pages * self._one("PRAGMA page_size")) + self.files.bytes

    def unfinished(self, ids: range) -> Iterator[range]:
        """Those of these jobs that there are, and that have no result."""
        ended = Ranges((*self.results.ids_within(ids), *self.forgotten.within(ids)))
        for row in self.jobs.rows_within(ids):
            yield from ended.missing(row.ids.start, row.ids.stop)

    def unkeyed(self) -> Iterator[Batch]:
        """Jobs of the program whose keys are not known. (Nor are clients' jobs ever loaded in it.)"""
        known = Ranges((*self.keys.known, *self.forgotten))
        for row in [row for row in self.jobs.rows() if row.first_id < FIRST_OF_CLIENTS]:
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
        in_commit = error is None
        try:
            if error is None:
                self._store.commit()
                return
        except (sqlite3.Error, OSError) as problem:
            error = problem
        with suppress(sqlite3.Error):
            self._store.roll_back(surely=not in_commit or is_full(error))
        if is_full(error):
            raise DiskFull(str(error)) from error
        if isinstance(error, sqlite3.Error | OSError):
            raise unusable(self._store.path, error) from error


def _look_at(path: str) -> tuple[int, int, int]:
    try:
        told = os.stat(path)
    except FileNotFoundError:
        return 0, 0, 0
    return told.st_dev, told.st_ino, told.st_size


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

"""The journal of ``bossworker run --journal``: a row a command, in SQLite. So of a million, none is in memory.

    commands  what was given to a crew: its key (what it is), the run that has met it last, its cell while it is with
              the crew, and how it has ended
    meta      what there is one of: the number of the run, and which cells are its

What is committed is on the disk (``synchronous=FULL``): a command is committed before it may begin.

``cli/run_journal.py`` writes it; ``run_contents.py`` answers what is asked of it.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

from bossworker.errors import JournalError
from bossworker.journal import schema
from bossworker.journal.database import is_full
from bossworker.journal.file_check import check_log
from bossworker.system.syncing import sync_folder_of

VERSION = 1  # of the tables
GIVEN, DONE, FAILED, INTERRUPTED = range(4)
"""States of a command."""
ALL = -1  # rows

_TABLES = """
CREATE TABLE commands (
    id INTEGER PRIMARY KEY, key BLOB NOT NULL, run INTEGER NOT NULL, state INTEGER NOT NULL, cell INTEGER NOT NULL,
    tries INTEGER NOT NULL, exit_code INTEGER, signal INTEGER, kind TEXT, reason TEXT, started REAL, seconds REAL,
    received INTEGER, job TEXT, command TEXT NOT NULL);
CREATE INDEX by_key ON commands (key, run);
CREATE INDEX unfinished ON commands (state) WHERE state = 0;
CREATE TABLE meta (name TEXT PRIMARY KEY, value) WITHOUT ROWID
"""


class StoredCommand(NamedTuple):
    """How one has ended."""

    state: int
    tries: int = 1
    exit_code: int | None = None
    signal: int | None = None
    kind: str = ""
    reason: str = ""
    started: float = 0.0
    seconds: float = 0.0
    received: int = 0
    """Bytes of stdout."""
    job: str = ""


class StoredRow(NamedTuple):
    """A command that was given to a crew."""

    id: int
    cell: int
    command: str
    how: StoredCommand


class RunDatabase:
    """See the module. Whoever opens it has the lock."""

    def __init__(self, path: str) -> None:
        """Open it, or make it. JournalError: it is something else, or cannot be had."""
        self.path = path
        made = not os.path.exists(path)
        if not made:
            check_log(path)
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            self._db = sqlite3.connect(path, isolation_level=None, timeout=5.0)
        except (OSError, sqlite3.Error) as error:
            raise JournalError(f"--journal {path!r} cannot be opened: {_words(error)}") from None
        try:
            self._set_up()
            if made:
                sync_folder_of(path)
        except (OSError, sqlite3.Error) as error:
            self._db.close()
            raise JournalError(f"--journal {path!r} cannot be used: {_words(error)}") from None
        except BaseException:
            self._db.close()
            raise

    def _set_up(self) -> None:
        self._db.execute("PRAGMA locking_mode=EXCLUSIVE")
        application, version = self._one("PRAGMA application_id"), self._one("PRAGMA user_version")
        new = not application and not self._one("SELECT count(*) FROM sqlite_master")
        if not new and application != schema.APPLICATION_OF_RUNS:
            what = "a pool's journal" if application == schema.APPLICATION else "the database of something else"
            raise JournalError(f"--journal {self.path!r} is {what}; name another file")
        if version > VERSION:
            raise JournalError(f"--journal {self.path!r} is of a later bossworker, in version {version} of its form")
        for setting in ("journal_mode=WAL", "synchronous=FULL", "cache_size=-8000"):
            self._db.execute(f"PRAGMA {setting}")
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # as of a pool's: see log_check.py
        if new:
            self._make_tables()

    def _make_tables(self) -> None:
        self.begin()
        for statement in _TABLES.split(";"):
            self._db.execute(statement)
        self._db.execute(f"PRAGMA application_id={schema.APPLICATION_OF_RUNS}")
        self._db.execute(f"PRAGMA user_version={VERSION}")
        self.commit()

    def _one(self, query: str, *values: object) -> Any:
        row = self._db.execute(query, values).fetchone()
        return None if row is None else row[0]

    def _write(self, query: str, *values: object) -> int:
        """The id of a row that was inserted."""
        self.begin()
        try:
            return self._db.execute(query, values).lastrowid or 0
        except sqlite3.Error as error:
            raise self._unwritable(error) from None

    def _unwritable(self, error: sqlite3.Error) -> JournalError:
        return JournalError(f"--journal {self.path!r} cannot be written: {_words(error)}")

    # -- transactions -----------------------------------------------------------------------------------

    def begin(self) -> None:
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """What was written is on the disk when it returns. JournalError: there is no room."""
        try:
            if self._db.in_transaction:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            raise self._unwritable(error) from None

    def close(self) -> None:
        """What is not committed is given up."""
        try:
            self._db.close()
        except sqlite3.Error:
            pass

    # -- commands ---------------------------------------------------------------------------------------

    def give(self, key: bytes, run: int, cell: int, command: str) -> int:
        """One is about to be given to a crew; its id."""
        query = "INSERT INTO commands (key, run, state, cell, tries, command) VALUES (?,?,?,?,1,?)"
        return self._write(query, key, run, GIVEN, cell, _storable(command))

    def give_again(self, row: int, cell: int, tries: int) -> None:
        self._write("UPDATE commands SET state = ?, cell = ?, tries = ? WHERE id = ?", GIVEN, cell, tries, row)

    def end(self, row: int, how: StoredCommand) -> None:
        names = ", ".join(f"{name} = ?" for name in StoredCommand._fields)
        values = how._replace(reason=_storable(how.reason))
        self._write(f"UPDATE commands SET {names} WHERE id = ?", *values, row)

    def forget(self, row: int) -> None:
        """As if it had never been given: it has not begun, or is to be run again."""
        self._write("DELETE FROM commands WHERE id = ?", row)

    def meet(self, key: bytes, run: int) -> tuple[int, StoredCommand] | None:
        """A command of this key that an earlier run has met last, if there is one. From now on, this one has."""
        names = ", ".join(StoredCommand._fields)
        query = f"SELECT id, {names} FROM commands WHERE key = ? AND run < ? ORDER BY run, id LIMIT 1"
        found = self._db.execute(query, (key, run)).fetchone()
        if found is None:
            return None
        self._write("UPDATE commands SET run = ? WHERE id = ?", run, found[0])
        return found[0], StoredCommand._make(found[1:])

    def unfinished(self) -> Iterator[tuple[int, int]]:
        """Ids and cells of those that were given to the crew of an earlier run, and have not ended."""
        yield from self._db.execute("SELECT id, cell FROM commands WHERE state = 0").fetchall()

    def count(self) -> dict[int, int]:
        """How many there are in each state."""
        return dict(self._db.execute("SELECT state, count(*) FROM commands GROUP BY state"))

    # -- for readers ------------------------------------------------------------------------------------

    def rows(
        self, after: int, most: int, states: Collection[int] = (GIVEN, DONE, FAILED, INTERRUPTED)
    ) -> list[StoredRow]:
        """Commands with ids above `after`, in their order, at most this many."""
        marks = ",".join("?" * len(states))
        query = f"SELECT {_ROW} FROM commands WHERE id > ? AND state IN ({marks}) ORDER BY id LIMIT ?"
        return [_row(one) for one in self._db.execute(query, (after, *states, most))]

    def row(self, row: int) -> StoredRow | None:
        """One of them; None: there is none of this id."""
        found = self._db.execute(f"SELECT {_ROW} FROM commands WHERE id = ?", (row,)).fetchone()
        return None if found is None else _row(found)

    def delete(self, states: Collection[int], before: float) -> int:
        """Forget those that have ended so, and before then (Unix seconds); how many. JournalError: there is no room."""
        marks = ",".join("?" * len(states))
        self.begin()
        try:
            query = f"DELETE FROM commands WHERE state IN ({marks}) AND started + seconds <= ?"
            count = self._db.execute(query, (*states, before)).rowcount
        except sqlite3.Error as error:
            raise self._unwritable(error) from None
        self.commit()
        return count

    def size(self) -> int:
        """Bytes that are in use."""
        pages = self._one("PRAGMA page_count") - self._one("PRAGMA freelist_count")
        return int(pages * self._one("PRAGMA page_size"))

    # -- what there is one of ---------------------------------------------------------------------------

    def meta(self, name: str) -> Any:
        return self._one("SELECT value FROM meta WHERE name = ?", name)

    def set_meta(self, name: str, value: object) -> None:
        self._write("INSERT OR REPLACE INTO meta VALUES (?,?)", name, value)


_ROW = f"id, cell, command, {', '.join(StoredCommand._fields)}"


def _row(found: tuple[Any, ...]) -> StoredRow:
    row, cell, command, *how = found
    return StoredRow(row, cell, command, StoredCommand._make(how))


def _storable(text: str) -> str:
    """SQLite takes no surrogates."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _words(error: Exception) -> str:
    if is_full(error):
        return "No space left on device"
    return (error.strerror or str(error)) if isinstance(error, OSError) else str(error)

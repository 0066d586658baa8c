"""Large payloads, in a folder beside the database: a file each, for one job or the results of one row.

SQLite would write them twice, to its log and to the database, and read them whole wherever it looks at a row. A row of
the table ``files`` refers to each, and these are the steps, so that whoever is killed at whichever leaves no row
without its file:

    1. the file is written, under a name that was never used;
    2. it is synced, and so is the folder;
    3. the row that refers to it is committed.

A row is deleted first, and its file once that is committed. So all that can be left over are files that nothing refers
to: whoever opens the journal next, which it does alone, removes them. Names begin with an id of the database: where one
was moved away, and another has been begun in its place, the files of the first are not the second's to remove.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import suppress

from bossworker.system.syncing import sync

LARGE_BYTES = 1 << 20  # from this size on, a payload is in a file

Buffer = bytes | bytearray | memoryview


class PayloadFiles:
    """See the module. A payload belongs to a row: of jobs, by its `seq`, or of results, by its `first_id`."""

    def __init__(self, db: sqlite3.Connection, folder: str) -> None:
        self._db = db
        self.folder = folder
        (self._owner,) = db.execute("SELECT value FROM meta WHERE name = 'id'").fetchone()
        self.bytes: int = db.execute("SELECT coalesce(sum(bytes), 0) FROM files").fetchone()[0]
        self._made: dict[str, int] = {}  # in the open transaction: bytes, by names
        self._deleted: dict[str, int] = {}

    # -- in a transaction -------------------------------------------------------------------------------

    def write(self, payload: Buffer, seq: int | None = None, first_id: int | None = None) -> None:
        """Put a payload into a file. OSError: that cannot be (the disk is full)."""
        name = f"{self._owner}-{os.urandom(8).hex()}.{'result' if seq is None else 'job'}"
        with suppress(FileExistsError):
            os.mkdir(self.folder, 0o700)
        self._made[name] = len(payload)  # before it is there: what is half written is removed, too
        fd = os.open(self.path_of(name), os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            _write_all(fd, payload)
        finally:
            os.close(fd)
        self._db.execute("INSERT INTO files VALUES (?,?,?,?)", (name, len(payload), seq, first_id))

    def delete(self, seq: int | None = None, first_id: int | None = None) -> None:
        """A row is deleted: its file, if it has one, goes with it."""
        found = self._find(seq, first_id)
        if found is not None:
            name, size = found
            self._db.execute("DELETE FROM files WHERE name = ?", (name,))
            self._deleted[name] = size

    def before_commit(self) -> None:
        """Have on the disk what the transaction refers to."""
        for name in self._made:
            sync(self.path_of(name))
        if self._made:
            sync(self.folder)
            sync(os.path.dirname(self.folder))  # the folder itself may be new

    def after_commit(self) -> None:
        """Nothing refers any more to what was deleted."""
        self.bytes += sum(self._made.values()) - sum(self._deleted.values())
        deleted = list(self._deleted)
        self._made, self._deleted = {}, {}
        self._unlink(deleted)

    def after_rollback(self, surely: bool) -> None:
        """Nothing refers to what was made; if not `surely`, something might, and it stays until it is swept."""
        made = list(self._made) if surely else []
        self._made, self._deleted = {}, {}
        self._unlink(made)

    def sweep(self) -> None:
        """Remove what was left over by somebody who was killed. Nobody else has the journal open."""
        known = {name for (name,) in self._db.execute("SELECT name FROM files")}
        self._unlink([name for name in self._names() if name.startswith(f"{self._owner}-") and name not in known])
        if not known:
            with suppress(OSError):  # there is none, or something else lies in it
                os.rmdir(self.folder)

    def _names(self) -> Sequence[str]:
        try:
            return os.listdir(self.folder)
        except FileNotFoundError:
            return ()

    def _unlink(self, names: Sequence[str]) -> None:
        for name in names:
            with suppress(OSError):  # what cannot be removed now is swept later
                os.unlink(self.path_of(name))

    # -- reading ----------------------------------------------------------------------------------------

    def find(self, seq: int | None = None, first_id: int | None = None) -> tuple[str, int] | None:
        """Path and size of a row's file; None: its payload is in the row."""
        found = self._find(seq, first_id)
        return None if found is None else (self.path_of(found[0]), found[1])

    def _find(self, seq: int | None, first_id: int | None) -> tuple[str, int] | None:
        column, value = ("first_id", first_id) if seq is None else ("seq", seq)
        found: tuple[str, int] | None = self._db.execute(
            f"SELECT name, bytes FROM files WHERE {column} = ?", (value,)
        ).fetchone()
        return found

    def lost(self) -> Iterator[tuple[int, str]]:
        """The rows of jobs whose file is not there as it was written: their `seq`, and the path."""
        for seq, name, size in self._db.execute("SELECT seq, name, bytes FROM files WHERE seq IS NOT NULL"):
            try:
                whole = os.stat(self.path_of(name)).st_size == size
            except OSError:
                whole = False
            if not whole:
                yield seq, self.path_of(name)

    def path_of(self, name: str) -> str:
        return f"{self.folder}/{name}"


def read_payload(path: str, size: int) -> bytes | None:
    """What is in a file; None: it is not there as it was written."""
    try:
        with open(path, "rb", buffering=0) as file:
            payload = file.readall()
    except OSError:
        return None
    return payload if len(payload) == size else None


def folder_of(path: str) -> str:
    """Where the large payloads of a database are."""
    return f"{path}-files"


def _write_all(fd: int, payload: Buffer) -> None:
    left = memoryview(payload).cast("B")
    while left:
        left = left[os.write(fd, left) :]

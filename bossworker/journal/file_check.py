"""A look at the file of a journal before it is touched: what cannot be used stays as it is, to the byte.

SQLite, once it has a database open for writing, moves the write-ahead log that a killed owner has left into it, and
deletes the log: of a damaged database, or of one that a later version has written, that would be the last trace. So the
look is by a connection that may only read.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from urllib.parse import quote

from bossworker.errors import JournalError, JournalInUse
from bossworker.journal.flight_file import FlightFile
from bossworker.journal.log_check import torn_commits
from bossworker.journal.payload_files import folder_of
from bossworker.journal.row_sums import check_all
from bossworker.journal.schema import APPLICATION, APPLICATION_OF_RUNS, VERSION

SUMMED_VERSION = 4  # from which on rows have checksums
CHECKED_BYTES = 1 << 26  # a database up to this size is looked through
_SQLITE = b"SQLite format 3\0"
_HEADER, _VERSION_AT, _APPLICATION_AT = 100, 60, 68  # bytes of a database's first page


def unusable(path: str, error: object) -> JournalError:
    """What is raised of one that cannot be used."""
    if getattr(error, "sqlite_errorcode", 0) == sqlite3.SQLITE_BUSY:  # the file with our lock was removed
        return JournalInUse(f"the journal {path} belongs to another program: it is locked")
    files = f" (with the folder {folder_of(path)})" if os.path.isdir(folder_of(path)) else ""
    advice = f"it was left as it is: restore a copy, or move it away{files} and begin a new one"
    return JournalError(f"the journal {path} cannot be used ({error}); {advice}")


def check_file(path: str) -> None:
    """JournalError: This is no journal, a damaged one, or one of a later version."""
    size = os.path.getsize(path)
    with open(path, "rb") as file:
        if size and file.read(len(_SQLITE)) != _SQLITE:
            raise unusable(path, "it is no SQLite database")
    try:
        if size:  # else whoever made it did not come further
            _look(path)
    except (sqlite3.Error, UnicodeError) as error:  # the latter of a text that SQLite quotes
        raise unusable(path, error) from error


def check_log(path: str) -> None:
    """JournalError: The log of a database is damaged, and there are commits behind that place."""
    with suppress(sqlite3.Error), _without_traces(path), _connected(path, "mode=ro") as db:
        _check_log(path, db)


def _check_log(path: str, db: sqlite3.Connection) -> None:
    db.execute("PRAGMA schema_version").fetchone()  # has it read the log
    if torn_commits(path) > 1:
        raise unusable(path, "its write-ahead log is damaged, and what is behind that place would be lost")


def application_of(path: str) -> int:
    """Which application's database it is, as that has marked it; 0: it says nothing, or cannot be read."""
    if not _has_log(path):
        with suppress(OSError), open(path, "rb") as file:
            return _number(file.read(_HEADER), _APPLICATION_AT)
        return 0
    with suppress(sqlite3.Error), _without_traces(path), _connected(path, "mode=ro") as db:
        return int(db.execute("PRAGMA application_id").fetchone()[0])
    return 0


def _look(path: str) -> None:
    if not _has_log(path):
        _look_by(path, "mode=ro&immutable=1")
        return
    try:
        with _without_traces(path):
            _look_by(path, "mode=ro")
    except sqlite3.OperationalError:
        # To read the log takes shared memory, which not every file system has, nor one that is full. Without the log,
        # the file is half of the truth: to look through it would find damage where there is none.
        _check_header(path)


def _check_header(path: str) -> None:
    """Look at what the file alone tells."""
    with open(path, "rb") as file:
        header = file.read(_HEADER)
    _check_version(path, _number(header, _APPLICATION_AT), _number(header, _VERSION_AT))


def _number(header: bytes, at: int) -> int:
    return int.from_bytes(header[at : at + 4], "big")


def _check_version(path: str, application: int, version: int) -> None:
    """JournalError: It cannot be used. Both are 0 where nothing was made yet."""
    if application == APPLICATION_OF_RUNS:
        raise unusable(path, "it is the journal of `bossworker run`; `bossworker.journal.open` reads it")
    if (application or version) and (application != APPLICATION or version < 1):
        raise unusable(path, "it is the database of another program")
    if version > VERSION:
        raise unusable(path, f"its version is {version}, and this bossworker knows those up to {VERSION}")


def _check_commits(path: str, db: sqlite3.Connection) -> None:
    """JournalError: It has not come as far as the flight recorders' file tells."""
    found = dict(db.execute("SELECT name, value FROM meta WHERE name IN ('session', 'commits')").fetchall())
    flights = FlightFile(path)
    missing = flights.commit_noted(found.get("session")) - (found.get("commits") or 0)
    if missing > 0:
        log = f"its write-ahead log {path}-wal was removed, cut off or damaged"
        way_out = f"whoever removes {flights.path} goes on with what is left"
        raise unusable(path, f"its last {missing} commits are missing: {log}; {way_out}")


def _has_log(path: str) -> bool:
    try:
        return os.path.getsize(f"{path}-wal") > 0
    except OSError:
        return False


@contextmanager
def _without_traces(path: str) -> Iterator[None]:
    """A connection that may only read leaves the file of its shared memory behind."""
    shared = f"{path}-shm"
    there = os.path.lexists(shared)
    try:
        yield
    finally:
        if not there:
            with suppress(OSError):
                os.unlink(shared)


def _connected(path: str, mode: str) -> closing[sqlite3.Connection]:
    place = quote(os.fsencode("/" + os.path.abspath(path).lstrip("/")))  # two of them would begin a host's name
    return closing(sqlite3.connect(f"file:{place}?{mode}", uri=True, isolation_level=None))


def _look_by(path: str, mode: str) -> None:
    with _connected(path, mode) as db:
        _check_log(path, db)
        application, version, tables = (
            db.execute(query).fetchone()[0]
            for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
        )
        if not (application or version):
            if tables:
                raise unusable(path, "it is the database of another program")
            return
        _check_version(path, application, version)
        _check_commits(path, db)
        if os.path.getsize(path) <= CHECKED_BYTES:
            found = db.execute("PRAGMA integrity_check(1)").fetchone()[0]
            if found == "ok" and version >= SUMMED_VERSION:
                found = next(check_all(db), found)
            if found != "ok":
                raise unusable(path, f"it is damaged: {found}")

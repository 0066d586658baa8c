"""The tables of a journal's database, in this version; and how those of an earlier version become them.

A row holds what travelled together: a batch of jobs, a segment of results (see ``pool/wire``), as it is on the wire. So
nothing is taken apart to be recorded, and a job costs a few bytes more than its pickle. Such a row has a checksum
(``row_sums.py``). What a job's state is follows from which of the tables tell of its id. A row of those has a twin,
which SQLite notes: what is in it, as one value.

    jobs        accepted: consecutive ids with the same options, in blocks
    results     recorded: consecutive ids. Each id is in one row at most
    ended       when the last job of each of these rows ended (Unix seconds): the oldest are forgotten first
    files       large payloads of jobs and results, which are in files of their own (``payload_files.py``)
    retrieved   ids whose results the program has got
    forgotten   ids whose results were deleted, while the row of the job holds others, too
    horizons    how far jobs were passed to the boss, for each priority and client: what is behind it never started
    started     ids of jobs that may have run when an earlier owner ended, and have no result
    reruns      ids of jobs that run again after that, and as which attempt
    keys        what jobs are, by their keys (`job_key`);  keyed: ids of the jobs whose keys are known
    clients     of doors, whose jobs are in the journal (``client_table.py``)
    meta        what there is one of;  its ``id`` tells this database from others

An earlier version becomes this one step by step, in one transaction: each step adds to what is there, and leaves rows
alone, however many there are. Whatever kills it leaves the earlier version.
"""

from __future__ import annotations

import os
import sqlite3

from bossworker.journal.row_sums import end_of, twin_of

VERSION = 4  # of the tables
APPLICATION = 0x62776A6C  # "bwjl": marks a database as a journal
APPLICATION_OF_RUNS = 0x6277726E  # "bwrn": the same of ``bossworker run`` (run_database.py)

_OF_1 = """
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
_SINCE_2 = """
CREATE TABLE ended (at REAL NOT NULL, first_id INTEGER NOT NULL, PRIMARY KEY (at, first_id)) WITHOUT ROWID;
CREATE TABLE files (name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, seq INTEGER UNIQUE, first_id INTEGER UNIQUE)
    WITHOUT ROWID;
CREATE TABLE forgotten (first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL);
"""
_SINCE_3 = """
CREATE TABLE clients (number INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, next_id INTEGER NOT NULL);
ALTER TABLE jobs ADD COLUMN sum INTEGER;
ALTER TABLE results ADD COLUMN sum INTEGER
"""
_SINCE_4 = """
CREATE TABLE horizons (priority INTEGER NOT NULL, client INTEGER NOT NULL, seq INTEGER NOT NULL,
    taken INTEGER NOT NULL, {twin}, PRIMARY KEY (priority, client)) WITHOUT ROWID;
INSERT INTO horizons SELECT priority, number, seq, taken
    FROM horizon, (SELECT 0 AS number UNION SELECT number FROM clients);
DROP TABLE horizon;
ALTER TABLE keys ADD COLUMN sum INTEGER
"""
_IDS = "first_id INTEGER PRIMARY KEY, jobs INTEGER NOT NULL"
_MADE_ANEW_4 = {
    "retrieved": f"({_IDS}, {{twin}})",
    "forgotten": f"({_IDS}, {{twin}})",
    "started": f"({_IDS}, {{twin}})",
    "keyed": f"({_IDS}, {{twin}})",
    "reruns": f"({_IDS}, attempt INTEGER NOT NULL, {{twin}})",
    "files": """(name TEXT PRIMARY KEY, bytes INTEGER NOT NULL, seq INTEGER UNIQUE, first_id INTEGER UNIQUE, {twin})
        WITHOUT ROWID""",
    "clients": "(number INTEGER PRIMARY KEY, identity TEXT NOT NULL UNIQUE, next_id INTEGER NOT NULL, {twin})",
    "meta": "(name TEXT PRIMARY KEY, value, {twin}) WITHOUT ROWID",
}


def make(db: sqlite3.Connection) -> None:
    """Make the tables, in the open transaction."""
    _execute(db, _OF_1)
    _add_2(db)
    _add_3(db)
    _add_4(db)
    db.execute(f"PRAGMA application_id={APPLICATION}")
    db.execute(f"PRAGMA user_version={VERSION}")


def migrate(db: sqlite3.Connection, version: int) -> None:
    """Make them of those of an earlier version, in the open transaction."""
    for step in _STEPS[version - 1 :]:
        step(db)
    db.execute(f"PRAGMA user_version={VERSION}")


def _from_1_to_2(db: sqlite3.Connection) -> None:
    _add_2(db)
    for first_id, marks, clock in db.execute("SELECT first_id, marks, clock FROM results").fetchall():
        db.execute("INSERT INTO ended VALUES (?,?)", (end_of(marks, clock), first_id))


def _add_2(db: sqlite3.Connection) -> None:
    _execute(db, _SINCE_2)
    db.execute("INSERT INTO meta VALUES ('id', ?)", (os.urandom(4).hex(),))


def _add_3(db: sqlite3.Connection) -> None:
    _execute(db, _SINCE_3)


def _add_4(db: sqlite3.Connection) -> None:
    """Until then, what all had added was passed on in one order; and a changed bit in a small table was not noticed."""
    _execute(db, _SINCE_4.format(twin=twin_of("horizons")))
    for table, columns in _MADE_ANEW_4.items():
        db.execute(f"ALTER TABLE {table} RENAME TO former")
        db.execute(f"CREATE TABLE {table} {columns.format(twin=twin_of(table))}")
        db.execute(f"INSERT INTO {table} SELECT * FROM former")
        db.execute("DROP TABLE former")


_STEPS = (_from_1_to_2, _add_3, _add_4)


def _execute(db: sqlite3.Connection, statements: str) -> None:
    for statement in statements.split(";"):
        db.execute(statement)

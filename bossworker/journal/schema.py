"""The tables of a journal's database.

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
"""

from __future__ import annotations

import sqlite3

VERSION = 1  # of the tables
APPLICATION = 0x62776A6C  # "bwjl": marks a database as a journal

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


def make(db: sqlite3.Connection) -> None:
    """Make the tables, in the open transaction."""
    for statement in _TABLES.split(";"):
        db.execute(statement)
    db.execute(f"PRAGMA application_id={APPLICATION}")
    db.execute(f"PRAGMA user_version={VERSION}")

"""Checksums of rows: SQLite finds pages that make no sense, but not a bit that has changed in what a page holds.

Of the rows of small tables, SQLite itself notes a twin as it writes them: a column that is made of the others.
"""

from __future__ import annotations

import sqlite3
from array import array
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

JOB_COLUMNS = "seq, first_id, jobs, skip, priority, timeout, retries, added, retry_of, blocks, body"
RESULT_COLUMNS = "first_id, jobs, base, pid, attempt, clock, outcomes, marks, ends, payload"


_OF_IDS = "31 * first_id + jobs"
TWINS = {
    "retrieved": _OF_IDS,
    "forgotten": _OF_IDS,
    "started": _OF_IDS,
    "keyed": _OF_IDS,
    "reruns": f"{_OF_IDS} + 7 * attempt",
    "horizons": "priority + 3 * client + 5 * seq + 7 * taken",
    "files": "name || ' ' || bytes || ' ' || coalesce(seq, '') || ' ' || coalesce(first_id, '')",
    "clients": "number || ' ' || identity || ' ' || next_id",
    "meta": "name || ' ' || quote(value)",
}
"""Of what they are made, by tables."""


def twin_of(table: str) -> str:
    """The column of a table's twins."""
    return f"twin AS ({TWINS[table]}) STORED"


class RowDamaged(sqlite3.DatabaseError):
    """What is in a row is not what was written there."""


def end_of(marks: bytes | memoryview, clock: float) -> float:
    """When the last job of a segment ended (Unix seconds)."""
    last: float = array("d", bytes(marks[-8:]))[0]
    return last + clock


def sum_of(row: Sequence[Any]) -> int:
    """Of a row's values, as they are written and read."""
    small = [value for value in row if not isinstance(value, bytes | bytearray | memoryview)]
    found = crc32(repr(small).encode())
    for value in row:
        if isinstance(value, bytes | bytearray | memoryview):
            found = crc32(value, found)
    return found


def check_row(row: Sequence[Any], noted: int | None, what: str) -> None:
    """RowDamaged: its checksum is another one. None: it has none, from an earlier version."""
    if noted is not None and sum_of(row) != noted:
        raise RowDamaged(f"the record of {what} is damaged")


def check_all(db: sqlite3.Connection) -> Iterator[str]:
    """What is wrong with the rows of a database in this version."""
    for table, columns in (("jobs", JOB_COLUMNS), ("results", RESULT_COLUMNS), ("keys", "key, id")):
        for *row, noted in db.execute(f"SELECT {columns}, sum FROM {table}"):
            if noted is not None and sum_of(row) != noted:
                yield f"a record in the table {table} was changed"
    for table, twin in TWINS.items():
        if db.execute(f"SELECT 1 FROM {table} WHERE twin IS NOT ({twin}) LIMIT 1").fetchone():
            yield f"a record in the table {table} was changed"
    ends = dict(db.execute("SELECT first_id, at FROM ended"))
    for first_id, marks, clock in db.execute("SELECT first_id, marks, clock FROM results"):
        if ends.pop(first_id, None) != end_of(marks, clock):
            yield "a record in the table ended was changed"
    if ends:
        yield "the table ended has a record too many"

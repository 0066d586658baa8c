"""Checksums of rows: SQLite finds pages that make no sense, but not a bit that has changed in what a page holds."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any
from zlib import crc32

JOB_COLUMNS = "seq, first_id, jobs, skip, priority, timeout, retries, added, retry_of, blocks, body"
RESULT_COLUMNS = "first_id, jobs, base, pid, attempt, clock, outcomes, marks, ends, payload"


class RowDamaged(sqlite3.DatabaseError):
    """What is in a row is not what was written there."""


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
    for table, columns in (("jobs", JOB_COLUMNS), ("results", RESULT_COLUMNS)):
        for *row, noted in db.execute(f"SELECT {columns}, sum FROM {table}"):
            if noted is not None and sum_of(row) != noted:
                yield f"a record in the table {table} was changed"

"""Tables that hold ids of jobs as ranges: a million jobs in a row are one row."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any


def rows_within(db: sqlite3.Connection, table: str, columns: str, ids: range) -> list[Any]:
    """The rows with an id in this range, of a table whose rows are ranges that do not overlap."""
    first = f"SELECT coalesce(max(first_id), ?) FROM {table} WHERE first_id <= ?"
    query = f"SELECT {columns} FROM {table} WHERE first_id >= ({first}) AND first_id < ? AND first_id + jobs > ?"
    return db.execute(query, (ids.start, ids.start, ids.stop, ids.start)).fetchall()


class IdTable:
    """A set of ids."""

    def __init__(self, db: sqlite3.Connection, name: str) -> None:
        self._db = db
        self._name = name

    def __iter__(self) -> Iterator[range]:
        """The ranges, ascending. They may overlap."""
        for first_id, jobs in self._db.execute(f"SELECT first_id, jobs FROM {self._name} ORDER BY first_id"):
            yield range(first_id, first_id + jobs)

    def within(self, ids: range) -> list[range]:
        """The ranges with some of these ids."""
        found = rows_within(self._db, self._name, "first_id, jobs", ids)
        return [range(first_id, first_id + jobs) for first_id, jobs in found]

    def add(self, ranges: Iterable[range]) -> None:
        longer = "ON CONFLICT (first_id) DO UPDATE SET jobs = max(jobs, excluded.jobs)"
        query = f"INSERT INTO {self._name} (first_id, jobs) VALUES (?, ?) {longer}"
        self._db.executemany(query, [(one.start, len(one)) for one in ranges])

    def set(self, ranges: Iterable[range]) -> None:
        """These, and no others."""
        self._db.execute(f"DELETE FROM {self._name}")
        self.add(ranges)

    def remove(self, ranges: Iterable[range]) -> None:
        """Take these out. (Where ranges overlap, some may stay: so it is for ids that nobody asks for any more.)"""
        for one in ranges:
            found = rows_within(self._db, self._name, "first_id, jobs", one)
            self._db.executemany(f"DELETE FROM {self._name} WHERE first_id = ?", [(id,) for id, _ in found])
            for id, jobs in found:
                self.add(left for left in (range(id, one.start), range(one.stop, id + jobs)) if left)


class RerunTable:
    """Ids of jobs that run again, and as which attempt."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def __iter__(self) -> Iterator[tuple[range, int]]:
        for first_id, jobs, attempt in self._db.execute("SELECT first_id, jobs, attempt FROM reruns ORDER BY first_id"):
            yield range(first_id, first_id + jobs), attempt

    def set(self, reruns: Iterable[tuple[range, int]]) -> None:
        """These, and no others."""
        self._db.execute("DELETE FROM reruns")
        rows = [(ids.start, len(ids), attempt) for ids, attempt in reruns]
        self._db.executemany("INSERT INTO reruns VALUES (?,?,?)", rows)


class HorizonTable:
    """How far jobs were passed on: for each priority and client, the last batch, and how many of its jobs were."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def all(self) -> dict[tuple[int, int], tuple[int, int]]:
        rows = self._db.execute("SELECT priority, client, seq, taken FROM horizons")
        return {(priority, client): (seq, taken) for priority, client, seq, taken in rows}

    def set(self, priority: int, client: int, seq: int, taken: int) -> None:
        self._db.execute("INSERT OR REPLACE INTO horizons VALUES (?,?,?,?)", (priority, client, seq, taken))

    def clear(self) -> None:
        self._db.execute("DELETE FROM horizons")

    def last(self) -> int:
        """The batch that was passed on last of all; 0: none was."""
        (seq,) = self._db.execute("SELECT max(seq) FROM horizons").fetchone()
        return seq or 0

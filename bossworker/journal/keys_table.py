"""What the jobs are, by their keys (`job_key`): so that one that is added again is known."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from bossworker.journal.id_tables import IdTable
from bossworker.journal.ranges import Ranges
from bossworker.journal.row_sums import sum_of


class KeysTable:
    """See the module. `known`: ids of the jobs whose keys are in it, or that have none."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self.known = IdTable(db, "keyed")

    def add(self, ids: Iterable[int], keys: Iterable[bytes]) -> None:
        """Note the keys of jobs; one that is all zeros is none."""
        pairs = list(zip(ids, keys))
        rows = [(key, id, sum_of((key, id))) for id, key in pairs if any(key)]
        self._db.executemany("INSERT OR IGNORE INTO keys VALUES (?,?,?)", rows)
        known = Ranges(self.known)
        for id, _ in pairs:
            known.add(id, id + 1)
        self.known.set(known)

    def ids_of(self, key: bytes) -> list[int]:
        """The jobs with this key, the newest first."""
        rows = self._db.execute("SELECT id FROM keys WHERE key = ? ORDER BY id DESC", (key,))
        return [id for (id,) in rows]

    def delete(self, doomed: Ranges) -> None:
        self.known.remove(doomed)
        for one in doomed:
            self._db.execute("DELETE FROM keys WHERE id >= ? AND id < ?", (one.start, one.stop))

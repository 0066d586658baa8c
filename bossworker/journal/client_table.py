"""Clients of doors whose jobs are in the journal: who they are, and which numbers they have.

The number stands above a client's own ids (``messages.CLIENT_BITS``): so a job's id in the journal tells whose it is,
and the boss has its clients take turns by it. Numbers stay with identities as long as there is something of theirs.
"""

from __future__ import annotations

import sqlite3

from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.messages import CLIENT_BITS, FIRST_KEPT_CLIENT, LAST_CLIENT

FIRST_OF_CLIENTS = FIRST_KEPT_CLIENT << CLIENT_BITS  # ids from here on are those of clients' jobs
OWN_BITS = (1 << CLIENT_BITS) - 1


def ids_of(number: int) -> range:
    """All the ids that jobs of a client may have."""
    return range(number << CLIENT_BITS, number + 1 << CLIENT_BITS)


class ClientTable:
    """See the module."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def number_of(self, identity: str) -> int | None:
        found = self._db.execute("SELECT number FROM clients WHERE identity = ?", (identity,)).fetchone()
        return None if found is None else int(found[0])

    def add(self, identity: str) -> int | None:
        """A number for one that has none, in the open transaction. None: all are in use."""
        (last,) = self._db.execute("SELECT max(number) FROM clients").fetchone()
        number = FIRST_KEPT_CLIENT if last is None else last + 1
        if number > LAST_CLIENT:
            free = self._free()
            if free is None:
                return None
            number = free
        self._db.execute("INSERT OR REPLACE INTO clients VALUES (?,?,1)", (number, identity))
        return number

    def _free(self) -> int | None:
        """The number of a client of which nothing is left."""
        behind = f"number << {CLIENT_BITS}", f"(number + 1) << {CLIENT_BITS}"
        theirs = f"SELECT 1 FROM jobs WHERE first_id >= {behind[0]} AND first_id < {behind[1]}"
        found = self._db.execute(f"SELECT number FROM clients WHERE NOT EXISTS ({theirs}) LIMIT 1").fetchone()
        return None if found is None else int(found[0])

    def next_id(self, number: int) -> int:
        """Above all of its own ids that it has used."""
        (found,) = self._db.execute("SELECT next_id FROM clients WHERE number = ?", (number,)).fetchone()
        return int(found)

    def note(self, batch: Batch) -> None:
        """Jobs of a client are accepted, in the open transaction."""
        own = (batch.first_id & OWN_BITS) + batch.count
        query = "UPDATE clients SET next_id = max(next_id, ?) WHERE number = ?"
        self._db.execute(query, (own, batch.first_id >> CLIENT_BITS))

"""All tasks of a pool at once: their supervisors are asked together, and what dead ones left lying is cleared away."""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Any

from bossworker.system import identity
from bossworker.tasks.client.task_record import Facts, TaskRecord
from bossworker.tasks.errors import TaskGone, TaskRefused
from bossworker.tasks.wire.control_connection import ControlConnection

ANSWER_SECONDS = 2.0  # for the supervisors of a search; one that is stopped is described by its files
ASKED_AT_ONCE = 200  # supervisors, each of which takes a descriptor


def describe_all(records: list[TaskRecord]) -> list[tuple[int, str, dict[str, Any]]]:
    """Supervisor's pid, id and info of those tasks that are there, and that this process may look at."""
    told: list[tuple[int, str, dict[str, Any]]] = []
    for first in range(0, len(records), ASKED_AT_ONCE):
        found = [(record, record.facts()) for record in records[first : first + ASKED_AT_ONCE]]
        asked = [(record, facts.pid, _ask(record, facts)) for record, facts in found if facts.pid is not None]
        deadline = time.monotonic() + ANSWER_SECONDS
        for record, pid, connection in asked:
            info = _answer(record, connection, deadline)
            if info:
                told.append((pid, record.id, info))
    return told


def _ask(record: TaskRecord, facts: Facts) -> ControlConnection | None:
    """Ask the supervisor, if it lives, or may live where this process cannot see it. None if there is none to ask."""
    if facts.sight == identity.GONE:
        record.clear()
        return None
    with suppress(TaskGone):
        connection = record.connect(facts)
        with suppress(TaskGone):
            connection.send({"op": "info", "task": record.id})
        return connection
    return None


def _answer(record: TaskRecord, connection: ControlConnection | None, deadline: float) -> dict[str, Any] | None:
    if connection is not None:
        with suppress(TaskGone, TaskRefused):
            try:
                info = connection.answer(deadline)[0].get("info")
                return info if isinstance(info, dict) else None
            finally:
                connection.close()
    info = record.info()
    return None if info["supervisor"]["pid"] is None else info  # deleted meanwhile, or not for us to read

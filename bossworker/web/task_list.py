"""Tasks of the default pool: seen, written to, signalled, restarted."""

from __future__ import annotations

from typing import Any

from bossworker.cli.entries import EntryError, TaskEntry, is_running, task_entries
from bossworker.cli.looking import command_line, state_of
from bossworker.web.command_jobs import STREAM_BYTES, status_of

MOST_TASKS = 500  # that are shown, the newest


def listing() -> list[dict[str, Any]]:
    """All of them, the newest first."""
    found = []
    for entry in task_entries()[:MOST_TASKS]:
        try:
            found.append(_told(entry.describe()))
        except EntryError:  # deleted just now
            continue
    return found


def _told(found: dict[str, Any]) -> dict[str, Any]:
    return {**found, "line": command_line(found), "state": state_of(found), "status": status_of(found)}


def find(task_id: str) -> TaskEntry | None:
    """The one of this id."""
    return next((entry for entry in task_entries() if entry.id == task_id), None)


def describe(task_id: str) -> dict[str, Any] | None:
    """All that is known of one."""
    entry = find(task_id)
    return None if entry is None else _told(entry.describe())


def output(task_id: str, stream: str, since: int) -> dict[str, Any] | None:
    """What it has written from this byte on; a negative number counts from the end."""
    entry = find(task_id)
    if entry is None:
        return None
    running = is_running(entry.describe())  # before we read: what is read then is all
    begin, data = entry.read(stream, since, STREAM_BYTES)
    return {"since": begin, "next": begin + len(data), "text": data.decode("utf-8", "replace"), "running": running}

"""Tasks of the default pool: seen, written to, signalled, restarted."""

from __future__ import annotations

import threading
from typing import Any

from bossworker.cli.entries import EntryError, is_running
from bossworker.cli.looking import command_line, state_of
from bossworker.cli.task_entries import TaskEntry, task_entries
from bossworker.system import proc
from bossworker.web.command_jobs import STREAM_BYTES, status_of
from bossworker.web.process_usage import UsageWatch

MOST_TASKS = 500  # that are shown, the newest
MOST_MESSAGES = 50  # of ``data`` in one answer,
MESSAGE_CHARS = 4000  # and what is shown of each
SEND_SECONDS = 5.0  # for a task to take what it is sent
STOP_SECONDS = 5.0  # for a command to end when it is asked to, before it is killed


class TaskList:
    """See the module."""

    send_seconds = SEND_SECONDS

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._usage = UsageWatch()

    def listing(self) -> list[dict[str, Any]]:
        """All of them, the newest first."""
        found = []
        for entry in task_entries()[:MOST_TASKS]:
            try:
                found.append(self._told(entry))
            except EntryError:  # deleted just now
                continue
        return found

    def _told(self, entry: TaskEntry) -> dict[str, Any]:
        found = entry.describe()
        told = {"line": command_line(found), "state": state_of(found), "status": status_of(found)}
        return {**found, **told, "usage": self._usage_of(entry, found["pid"])}

    def _usage_of(self, entry: TaskEntry, pid: int | None) -> dict[str, Any] | None:
        """None as well where the supervisor counts its pids otherwise than we do: in a container, or elsewhere."""
        if pid is None or pid not in proc.children(entry.supervisor):
            return None
        with self._lock:
            return self._usage.look(pid)

    def find(self, task_id: str) -> TaskEntry | None:
        """The one of this id."""
        return next((entry for entry in task_entries() if entry.id == task_id), None)

    def describe(self, task_id: str) -> dict[str, Any] | None:
        """All that is known of one."""
        entry = self.find(task_id)
        return None if entry is None else {**self._told(entry), "messages": entry.count_messages()}

    def output(self, task_id: str, stream: str, since: int) -> dict[str, Any] | None:
        """What it has written from this byte on; a negative number counts from the end."""
        entry = self.find(task_id)
        if entry is None:
            return None
        running = is_running(entry.describe())  # before we read: what is read then is all
        begin, data = entry.read(stream, since, STREAM_BYTES)
        return {"since": begin, "next": begin + len(data), "text": data.decode("utf-8", "replace"), "running": running}

    def messages(self, task_id: str, since: int) -> dict[str, Any] | None:
        """The messages that it has sent as ``data``, from this one on; a negative number counts from the end."""
        entry = self.find(task_id)
        if entry is None:
            return None
        running = is_running(entry.describe())
        begin, found = entry.messages(since, MOST_MESSAGES)
        texts = [_shown(message) for message in found]
        return {"since": begin, "next": begin + len(found), "messages": texts, "running": running}

    def restart(self, entry: TaskEntry, stop: bool) -> None:
        """Execute its command once more. `stop`: end it before, if it runs; else EntryError."""
        if stop:
            entry.stop(STOP_SECONDS)
        entry.again()


def _shown(message: bytes) -> str:
    text = message.decode("utf-8", "replace")
    return text if len(text) <= MESSAGE_CHARS else f"{text[:MESSAGE_CHARS]}… ({len(message):,} bytes)"

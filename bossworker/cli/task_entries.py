"""Tasks, in the form of entries."""

from __future__ import annotations

import signal as signals
import time
from collections.abc import Callable
from typing import Any

from bossworker.cli.entries import EntryError, GoneError, LateError, name_in


class TaskEntry:
    """A task of `bossworker.tasks`, in the default pool."""

    kind = "task"

    def __init__(self, task: Any) -> None:
        self._task = task
        self.id: str = task.id

    @property
    def name(self) -> str:
        return name_in(self._told(self._task.info).get("meta", {}))

    def _told(self, call: Callable[[], Any]) -> Any:
        """EntryError for what a task refuses; GoneError when it was deleted."""
        from bossworker.tasks import TaskError, TaskGone

        try:
            return call()
        except TaskError as error:
            if isinstance(error, TaskGone) and not self._is_there():
                raise GoneError(f"there is no task {self.id} any more") from error
            raise EntryError(f"task {self.id}: {error}") from error

    def _is_there(self) -> bool:
        """Whether there are its files, at least: its supervisor may have ended."""
        from bossworker.tasks import TaskGone

        try:
            return bool(self._task.info(fresh=True))
        except TaskGone:
            return False

    def describe(self) -> dict[str, Any]:
        """As of a job."""
        info = self._told(lambda: self._task.info(fresh=True))
        status, times, usage = info["status"], info["times"], info["usage"]
        command = info["command"]
        return {
            "id": self.id,
            "kind": self.kind,
            "name": name_in(info["meta"]) or None,
            "status": status["state"],
            "exit_code": status["exit_code"],
            "signal": status["signal"],
            "reason": status["reason"] or None,
            "paused": status["paused"],
            "command": [command] if isinstance(command, str) else command,
            "shell": info["shell"],
            "cwd": info["cwd"],
            "pid": info["pid"],
            "created": times["created"],
            "started": times["started"],
            "ended": times["ended"],
            "elapsed": _so_far(times, status),
            "user_time": usage["user_time"],
            "system_time": usage["system_time"],
            "max_rss": usage["max_rss"],
            "timeout": None,
            "meta": info["meta"],
            "directory": None,
        }

    def wait(self, timeout: float | None) -> None:
        self._told(lambda: self._task.wait(timeout))

    def signal(self, number: int) -> bool:
        return bool(self._told(lambda: self._task.kill(number)))

    def pause(self, on: bool) -> bool:
        return bool(self._told(lambda: self._task.pause(on)))

    def read(self, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
        at, found = self._peek(stream, since, limit)
        return at, bytes(found)

    def messages(self, since: int, limit: int) -> tuple[int, list[bytes]]:
        """What it has sent as ``data``, from a message on (from the end, if negative), and where this begins."""
        at, found = self._peek("data", since, limit)
        return at, list(found)

    def count_messages(self) -> int:
        """How many messages it has sent so far."""
        return int(self._told(lambda: self._task.stream("data").limit))

    def _peek(self, stream: str, since: int, limit: int | None) -> tuple[int, Any]:
        source = self._task.stream(stream)
        begin, end = self._told(lambda: (source.start, source.limit))
        at = max(begin, min(end, end + since if since < 0 else since))
        return at, self._told(lambda: source.peek(at, limit))

    def send(self, text: str, timeout: float | None = None, stream: str = "stdin") -> None:
        data = text.encode("utf-8", "surrogateescape")  # as it was typed
        taken = self._told(lambda: self._task.stream(stream).write(data, timeout))
        if taken < len(data):
            raise LateError(f"task {self.id} has taken {taken} of {len(data)} bytes: it does not read")

    def close_input(self) -> None:
        """Its stdin ends."""
        self._told(lambda: self._task.stream("stdin").close())

    @property
    def supervisor(self) -> int:
        """The process above its command."""
        return int(self._task.pid)

    def stop(self, grace: float) -> None:
        """End its command, if it runs: TERM and, this many seconds later, KILL. EntryError when it does not end."""
        for number in (signals.SIGTERM, signals.SIGKILL):
            if not self.signal(number) or self._told(lambda: self._task.wait(grace)) is not None:
                return
        raise EntryError(f"task {self.id} does not end")

    def again(self) -> TaskEntry:
        """Its supervisor executes the command once more. EntryError when it still runs."""
        if not self._told(self._task.restart):
            raise EntryError(f"task {self.id} still runs")
        return self

    def delete(self) -> None:
        self._told(self._task.delete)


def task_entries() -> list[TaskEntry]:
    """All tasks of the default pool, the newest first; none where there is no such pool."""
    from bossworker.tasks import TaskError, TaskPool

    try:
        return [TaskEntry(task) for task in reversed(TaskPool(mkdir_if_missing=False).search())]
    except (OSError, TaskError, RuntimeError):
        return []


def _so_far(times: dict[str, Any], status: dict[str, Any]) -> float | None:
    if status["running"] and times["started"] is not None:
        return max(0.0, time.time() - float(times["started"]))
    return None if times["elapsed"] is None else float(times["elapsed"])

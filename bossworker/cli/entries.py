"""Jobs and tasks, looked at in one way: what `ps`, `show`, `log`, `wait` and the others do to either."""

from __future__ import annotations

import os
import signal as signals
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from bossworker import jobs
from bossworker.commands import output, record
from bossworker.commands.ended_job import open_stream
from bossworker.commands.record import Info, Status
from bossworker.system import descendants, proc

NAME = "name"  # in the metadata
QUEUE = "queue"  # the same, of one that was queued: its group, and more
NOT_STARTED = "not started"  # what the reason of one begins with whose turn never came
QUEUED = "queued"  # the status of one that has not started
LOOK = 0.05  # seconds between two looks for more output
_RANDOM = 20  # hexadecimal digits at the end of an id, which nobody can guess
STREAMS = ("stdout", "stderr")


STARTING, _SOON = 2.0, 0.01  # seconds that a job may take to start; between looks whether it has


class EntryError(Exception):
    """What cannot be done to a job or task; the text is for people."""


class Entry(Protocol):
    """A job, a task, a queued command or a pool: whatever `ps` lists. What it cannot do is an EntryError."""

    kind: str
    id: str

    @property
    def name(self) -> str: ...

    def describe(self) -> dict[str, Any]:
        """The documented form, JSON values."""

    def wait(self, timeout: float | None) -> None:
        """Until it has ended, or that many seconds are over."""

    def signal(self, number: int) -> bool:
        """Whether it was sent: something runs."""

    def pause(self, on: bool) -> bool:
        """Stop all of it where it is, or let it go on."""

    def read(self, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
        """What it has written to a stream, from a byte on (from the end, if negative), and where this begins."""

    def send(self, text: str) -> None:
        """Hand it a text."""

    def again(self) -> Entry:
        """Start it once more."""

    def delete(self) -> None:
        """End it, and delete its files."""


class JobEntry:
    """A job of `bossworker.jobs`, detached or one that has failed in `run`."""

    kind = "job"

    def __init__(self, jobid: str) -> None:
        self.id = jobid
        self._info: Info | None = None

    def look(self) -> Info:
        """How it stands. EntryError when it is gone."""
        self._info = jobs.info(self.id)
        if self._info is None:
            raise EntryError(f"there is no job {self.id} any more")
        return self._info

    @property
    def info(self) -> Info:
        return self._info or self.look()

    @property
    def name(self) -> str:
        return str(self.info.meta.get(NAME, ""))

    def describe(self) -> dict[str, Any]:
        """The documented form of a job, JSON values."""
        info = self.look()
        began = not info.reason.startswith(NOT_STARTED)
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name or None,
            "status": str(info.status.value),
            "exit_code": info.exit_code,
            "signal": info.signal,
            "reason": info.reason or None,
            "paused": _is_stopped(info.pid) if info.status is Status.RUNNING else False,
            "command": info.args[2:] if info.shell else info.args,
            "shell": info.shell,
            "cwd": info.cwd,
            "pid": info.pid if info.status is Status.RUNNING else None,
            "created": info.created_at,
            "started": info.started_at if began else None,
            "ended": info.ended_at,
            "elapsed": info.elapsed if began else None,
            "user_time": info.user_time,
            "system_time": info.system_time,
            "max_rss": info.max_rss,
            "timeout": info.timeout or None,
            "meta": info.meta,
            "directory": info.directory,
        }

    def wait(self, timeout: float | None) -> None:
        """Until it has ended, or that many seconds are over."""
        jobs.wait(self.id, timeout)

    def signal(self, number: int) -> bool:
        """Whether it was sent: something runs."""
        until = time.monotonic() + STARTING
        while not jobs.signal(self.id, number):
            # Between its turn in a queue and the start of its process, there is nothing yet that could get it.
            if time.monotonic() > until or not runs(self):
                return False
            time.sleep(_SOON)
        return True

    def pause(self, on: bool) -> bool:
        """Stop all of it where it is, or let it go on."""
        return self.signal(signals.SIGSTOP if on else signals.SIGCONT)

    def read(self, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
        """What it has written to a stream, from a byte on (from the end, if negative), and where this begins."""
        return read_stream(record.open_job(self.id), stream, since, limit)

    def send(self, text: str) -> None:
        """EntryError: a job reads nothing but what it was started with."""
        raise EntryError(f"job {self.id} reads nothing that is sent; tasks (bossworker.tasks.spawn) do")

    def again(self) -> Entry:
        """Start its command once more, as a new job. EntryError when what it read is not there any more.

        One that was queued is queued again.
        """
        info = self.look()
        if QUEUE in info.meta:
            from bossworker.cli.queued_entries import add_again  # which only those need that queue commands

            return add_again(info)
        stdin = info.stdin
        if stdin is not None and not os.path.isabs(stdin):
            raise EntryError(f"job {self.id} cannot be started again: what it read ({stdin}) is not kept")
        command: Any = info.args[2] if info.shell else info.args
        return JobEntry(
            jobs.start(
                command,
                shell=info.shell,
                timeout=info.timeout,
                grace=info.grace,
                memory=info.memory,
                max_output=info.max_output,
                stdin=None if stdin is None else Path(stdin),
                pty=info.pty,
                env=info.env,
                cwd=info.cwd,
                meta={**info.meta, "retry_of": self.id},
            )
        )

    def delete(self) -> None:
        """End it, and delete its files."""
        jobs.clean(self.id)


def read_stream(folder: int | None, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
    """The same of a job directory that is open, and is closed here; None: there is none."""
    if folder is None:
        return max(0, since), b""
    try:
        fd = open_stream(folder, stream)
    except OSError:
        return max(0, since), b""
    finally:
        os.close(folder)
    try:
        size = os.fstat(fd).st_size
        begin = output.begin_of(fd, min(size, max(0, size + since) if since < 0 else since))
        return begin, output.read_at(fd, begin, limit)
    finally:
        os.close(fd)


class TaskEntry:
    """A task of `bossworker.tasks`, in the default pool."""

    kind = "task"

    def __init__(self, task: Any) -> None:
        self._task = task
        self.id: str = task.id

    @property
    def name(self) -> str:
        return str(self._told(self._task.info).get("meta", {}).get(NAME, ""))

    def _told(self, call: Callable[[], Any]) -> Any:
        """EntryError for what a task refuses."""
        from bossworker.tasks import TaskError

        try:
            return call()
        except TaskError as error:
            raise EntryError(f"task {self.id}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """As of a job."""
        info = self._told(lambda: self._task.info(fresh=True))
        status, times, usage = info["status"], info["times"], info["usage"]
        command = info["command"]
        return {
            "id": self.id,
            "kind": self.kind,
            "name": info["meta"].get(NAME),
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

    def send(self, text: str, stream: str = "stdin", timeout: float | None = None) -> None:
        """EntryError when it has not taken all of it in time."""
        data = text.encode()
        taken = self._told(lambda: self._task.stream(stream).write(data, timeout))
        if taken < len(data):
            raise EntryError(f"task {self.id} has taken {taken} of {len(data)} bytes: it does not read")

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


def is_running(found: dict[str, Any]) -> bool:
    """Whether it has not ended, as far as we know."""
    return found["status"] in (QUEUED, "created", "running")


def runs(entry: Entry) -> bool:
    """Whether it does at this instant; one that is gone does not."""
    found = described(entry)
    return found is not None and is_running(found)


def described(entry: Entry) -> dict[str, Any] | None:
    """All that there is to say of it; None when it was deleted just now."""
    try:
        return entry.describe()
    except EntryError:
        return None


def has_failed(found: dict[str, Any]) -> bool:
    """Whether it has ended, and not well."""
    return str(found["status"]).startswith("terminated")


def is_cancelled(found: dict[str, Any]) -> bool:
    """Whether somebody has had it end before it had an exit status: mostly, it was queued."""
    ended = found["exit_code"] is not None or found["signal"] is not None
    asked = found["status"] == "terminated by request"
    return asked and not ended and not str(found["reason"]).startswith(NOT_STARTED)


def exit_status(found: dict[str, Any]) -> int:
    """What a shell would have as ``$?``, once it has ended."""
    if found["exit_code"] is not None:
        return int(found["exit_code"])
    if found["signal"] is not None:
        return 128 + int(found["signal"])
    return 0 if found["status"] == "completed" else 1


def task_entries() -> list[TaskEntry]:
    """All tasks of the default pool, the newest first; none where there is no such pool."""
    from bossworker.tasks import TaskError, TaskPool

    try:
        return [TaskEntry(task) for task in reversed(TaskPool(mkdir_if_missing=False).search())]
    except (OSError, TaskError, RuntimeError):
        return []


def short(entry_id: str) -> str:
    """The beginning of its random part: what people type."""
    return entry_id[-_RANDOM:][:8]


def is_meant(entry_id: str, text: str) -> bool:
    """Whether a text is the beginning of an id, or of its random part."""
    return entry_id.startswith(text) or entry_id[-_RANDOM:].startswith(text)


def _is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped; or cannot go on, since it waits for a child to execute that is stopped (vfork)."""
    if pid is None:
        return False
    state, _ = proc.state_and_start(pid)
    return state == "T" or (state == "D" and any(map(_is_stopped, descendants.children(pid))))


def _so_far(times: dict[str, Any], status: dict[str, Any]) -> float | None:
    if status["running"] and times["started"] is not None:
        return max(0.0, time.time() - float(times["started"]))
    return None if times["elapsed"] is None else float(times["elapsed"])

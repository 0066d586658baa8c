"""Jobs, in the form of entries: those that have started, and commands that wait in a queue to become jobs."""

from __future__ import annotations

import os
import signal as signals
import time
from pathlib import Path
from typing import Any

from bossworker import jobs
from bossworker.cli.entries import (
    CANCELLED,
    NOT_STARTED,
    QUEUED,
    Entry,
    EntryError,
    GoneError,
    name_in,
    queue_in,
    runs,
    short,
)
from bossworker.cli.queue_files import QueueFolder, all_groups
from bossworker.cli.room import full_disk, room_for
from bossworker.commands import jobdir, output, record
from bossworker.commands.ended_job import open_stream
from bossworker.commands.record import Info, Status
from bossworker.commands.roots import find_root
from bossworker.system import descendants, proc

STARTING, _SOON = 2.0, 0.01  # seconds that a job may take to start; between looks whether it has
LOOK_SECONDS = 0.1  # between looks whether it has started,
TAKE_UP_SECONDS = 1.0  # and whether somebody sees to it


class JobEntry:
    """A job of `bossworker.jobs`, detached or one that has failed in `run`."""

    kind = "job"

    def __init__(self, jobid: str) -> None:
        self.id = jobid
        self._info: Info | None = None

    def look(self) -> Info:
        """How it stands. GoneError when it is gone."""
        self._info = jobs.info(self.id)
        if self._info is None:
            raise GoneError(f"there is no job {self.id} any more")
        return self._info

    @property
    def info(self) -> Info:
        return self._info or self.look()

    @property
    def name(self) -> str:
        return name_in(self.info.meta)

    def describe(self) -> dict[str, Any]:
        """The documented form of a job, JSON values."""
        info = self.look()
        began = not info.reason.startswith((NOT_STARTED, CANCELLED))
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

    def send(self, text: str, timeout: float | None = None) -> None:
        """EntryError: a job reads nothing but what it was started with."""
        raise EntryError(f"job {self.id} reads nothing that is sent; tasks (bossworker.tasks.spawn) do")

    def again(self) -> Entry:
        """Start its command once more, as a new job. EntryError when what it needs is not there any more.

        One that was queued is queued again.
        """
        info = self.look()
        if queue_in(info.meta):
            return add_again(info)
        if not info.args:
            raise EntryError(f"job {self.id} cannot be started again: what it ran is not known: {info.reason}")
        stdin = info.stdin
        if stdin is not None and not os.path.isabs(stdin):
            raise EntryError(f"job {self.id} cannot be started again: what it read ({stdin}) is not kept")
        command: Any = info.args[2] if info.shell else info.args
        try:
            with room_for("job"):
                jobid = jobs.start(
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
        except ValueError as error:  # its folder is gone, or our encoding has no letters for what it ran
            raise EntryError(f"job {self.id} cannot be started again: {error}") from error
        return JobEntry(jobid)

    def delete(self) -> None:
        """End it, and delete its files. EntryError when they stay."""
        try:
            jobs.clean(self.id)
        except OSError as error:
            raise EntryError(f"job {self.id} cannot be deleted: {error.strerror or error}") from error
        if os.path.lexists(os.path.join(find_root(), self.id)):
            why = record.read(self.id).elsewhere or "it is another user's"
            raise EntryError(f"job {self.id} is not deleted: {why}")


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


class QueuedEntry:
    """One that waits, or did so when it was listed. What was asked for is read when it is needed: there may be many."""

    kind = "job"

    def __init__(self, folder: QueueFolder, jobid: str) -> None:
        self.id = jobid
        self._folder = folder

    def _look(self) -> tuple[JobEntry | None, dict[str, Any]]:
        """The job that it has become; or None, and what was asked for. GoneError when it is neither here nor there."""
        request = self._folder.request(self.id)  # first: it is deleted once the job is there, and has ended
        if record.read(self.id).is_there:
            return JobEntry(self.id), {}
        if request is None:
            raise GoneError(f"there is no job {self.id} any more")
        return None, request

    @property
    def name(self) -> str:
        job, request = self._look()
        return job.name if job is not None else name_in(request["command"]["meta"])

    @property
    def _started(self) -> JobEntry | None:
        return self._look()[0]

    def describe(self) -> dict[str, Any]:
        """As of a job; `reason` tells what it waits for."""
        job, request = self._look()
        if job is not None:
            return job.describe()
        command = request["command"]
        return {
            "id": self.id,
            "kind": self.kind,
            "name": name_in(command["meta"]) or None,
            "status": QUEUED,
            "exit_code": None,
            "signal": None,
            "reason": self._waits_for(request) or None,
            "paused": self._folder.settings.paused,
            "command": [command["cmd"]] if command["shell"] else command["cmd"],
            "shell": command["shell"],
            "cwd": command["cwd"],
            "pid": None,
            "created": request["created"],
            "started": None,
            "ended": None,
            "elapsed": None,
            "user_time": None,
            "system_time": None,
            "max_rss": None,
            "timeout": command["timeout"] or None,
            "meta": command["meta"],
            "directory": None,
        }

    def _waits_for(self, request: dict[str, Any]) -> str:
        if request["not_before"] > time.time():
            return f"not before {time.strftime('%m-%d %H:%M:%S', time.localtime(request['not_before']))}"
        if self._folder.trouble:
            return self._folder.trouble
        if self._folder.last_words:
            return f"the process of its queue had to be started again: {self._folder.last_words}"
        before = [short(one) for one in request["after"] if record.read(one).state != jobdir.COMPLETED]
        return f"after {', '.join(before)}" if before else full_disk()

    def wait(self, timeout: float | None) -> None:
        """Until the job that it becomes has ended."""
        until = None if timeout is None else time.monotonic() + timeout
        look = 0.0
        while self._started is None:
            if time.monotonic() >= look:  # whoever sees to it may be killed meanwhile
                self._folder.take_up()
                if self._folder.trouble:
                    raise EntryError(self._folder.trouble)
                look = time.monotonic() + TAKE_UP_SECONDS
            if until is not None and time.monotonic() >= until:
                return
            time.sleep(LOOK_SECONDS)
        jobs.wait(self.id, None if until is None else max(0.0, until - time.monotonic()))

    def signal(self, number: int) -> bool:
        """Whatever the signal: it will not be started."""
        if (job := self._started) is not None:
            return job.signal(number)
        self._folder.ask(cancel=[self.id])
        return True

    def pause(self, on: bool) -> bool:
        if (job := self._started) is not None:
            return job.pause(on)
        option = "--pause" if on else "--resume"
        raise EntryError(f"job {self.id} has not started: bossworker group {self._folder.group} {option}")

    def read(self, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
        """Nothing yet."""
        return JobEntry(self.id).read(stream, since, limit)

    def send(self, text: str, timeout: float | None = None) -> None:
        JobEntry(self.id).send(text, timeout)

    def again(self) -> Entry:
        if (job := self._started) is not None:
            return job.again()
        raise EntryError(f"job {self.id} has not ended: it is queued")

    def delete(self) -> None:
        """It will not be started, and nothing of it stays."""
        started, request = self._started, self._folder.request(self.id)
        self._folder.remove(self.id)  # first: whoever sees to the group keeps what is there and has not started
        if started is None:
            try:
                self._folder.ask(cancel=[self.id])
            except BaseException:  # it may be handed over already, and would run though nobody sees it
                if request is not None and "damaged" not in request:
                    self._folder.put(request)
                raise
        JobEntry(self.id).delete()


def queued_entries(take_up: bool = True) -> list[QueuedEntry]:
    """All that wait, in all groups, and those that run.

    Args:
        take_up: Where nobody sees to a group, have somebody do so.
    """
    found: list[QueuedEntry] = []
    for folder in all_groups():
        if take_up:
            folder.take_up()
        found += [QueuedEntry(folder, jobid) for jobid in folder.waiting_ids()]
    return found


def add(
    folder: QueueFolder, command: dict[str, Any], *, after: list[str], not_before: float, priority: int
) -> QueuedEntry:
    """Queue a command; it is on the disk then, and somebody sees to its group. TypeError, ValueError, OSError."""
    queue = {"group": folder.group, "priority": priority, "after": after}
    jobid = jobdir.new_id()
    request = {
        "id": jobid,
        "command": {**command, "meta": {**command["meta"], "queue": queue}},
        "environment": dict(os.environ),
        "created": time.time(),
        "after": after,
        "not_before": not_before,
        "priority": priority,
    }
    folder.put(request)
    if not folder.settings.paused:
        folder.poke()
    return QueuedEntry(folder, jobid)


def add_again(info: record.Info) -> QueuedEntry:
    """Queue a command once more that was queued, in its group, now that what it came after has ended."""
    queue = queue_in(info.meta)
    command = {
        "cmd": info.args[2] if info.shell else info.args,
        "shell": info.shell,
        "env": info.env,
        "cwd": info.cwd,
        "timeout": info.timeout,
        "memory": info.memory,
        "meta": {**info.meta, "retry_of": info.jobid},
    }
    return add(QueueFolder(queue["group"]), command, after=[], not_before=0.0, priority=queue["priority"])


def _is_stopped(pid: int | None) -> bool:
    """Whether a process is stopped; or cannot go on, since it waits for a child to execute that is stopped (vfork)."""
    if pid is None:
        return False
    state, _ = proc.state_and_start(pid)
    return state == "T" or (state == "D" and any(map(_is_stopped, descendants.children(pid))))

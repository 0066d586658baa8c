"""A task's directory as readers find it: what was asked, how it stands, what it wrote, whoever is dead by now."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bossworker.commands import jobdir
from bossworker.system import identity
from bossworker.tasks.client.leftovers import end_remains
from bossworker.tasks.errors import TaskGone, TaskRefused
from bossworker.tasks.wire import task_info
from bossworker.tasks.wire.stream_files import DATA, NAMES, STORED
from bossworker.tasks.wire.stream_reader import ByteReader, Gone, MessageReader

if TYPE_CHECKING:
    from bossworker.tasks.client.task_pool import TaskPool
    from bossworker.tasks.wire.control_connection import ControlConnection

ANSWER_SECONDS = 2.0  # for the supervisors of a search; one that is stopped is described by its files
ASKED_AT_ONCE = 200  # supervisors, each of which takes a descriptor


class TaskRecord:
    """One task's directory. Reads anew each time."""

    def __init__(self, pool: str, job_id: str) -> None:
        self.id = job_id
        self.folder = f"{pool}/{job_id}"

    def status(self) -> dict[str, Any]:
        """What status.json says; empty when there is none to be read."""
        return self._read(jobdir.STATUS)

    def supervisor(self) -> int | None:
        """The pid that its supervisor has or had."""
        return task_info.pid_of(self.status().get("supervisor"))

    def supervised(self) -> bool:
        """Whether its supervisor is still that process."""
        return identity.holds(self.status().get("supervisor"))

    def readable(self) -> bool:
        """Whether its status may be read, and it has not been deleted."""
        return bool(self.status())

    def lets_go_of_what_was_read(self) -> bool:
        """Whether its streams keep only a part of what has been read."""
        return task_info.facts(self._read(jobdir.JOB)).get("retain_output") is not None

    def exists(self) -> bool:
        """Whether the task has not been deleted."""
        return os.path.isdir(self.folder)

    def end_remains(self) -> None:
        """End what a supervisor that was killed could not end any more."""
        if self.exists():
            status = self.status()
            if not task_info.facts(status).get("left"):
                self._end_remains(status)

    def info(self) -> dict[str, Any]:
        """The account of the task by what is on the disk alone. Ends what a dead supervisor could not end any more."""
        status = self.status()
        alive = identity.holds(status.get("supervisor"))
        if not alive and status.get("state") in (jobdir.RUNNING, jobdir.CREATED):
            self._end_remains(status)
            status |= {"state": jobdir.BY_ERROR, "reason": "its supervisor died"}
        job = self._read(jobdir.JOB)
        meta = self._read(task_info.META) or job.get("meta") or {}
        return task_info.info(self.id, job, status, meta, self._streams(alive), alive=alive)

    def reader(self, stream: int) -> ByteReader | MessageReader:
        """For a stream that is on the disk."""
        return (MessageReader if stream == DATA else ByteReader)(self.folder, NAMES[stream])

    def _end_remains(self, status: dict[str, Any]) -> None:
        with suppress(FileNotFoundError):
            end_remains(self.id, status, owner=os.lstat(self.folder).st_uid)

    def _streams(self, alive: bool) -> dict[str, Any]:
        told: dict[str, Any] = {NAMES[0]: {"start": 0, "limit": 0, "eof": not alive}}
        for stream in STORED:
            with suppress(Gone, OSError):
                start, limit, ended = self.reader(stream).extent()
                told[NAMES[stream]] = {"start": start, "limit": limit, "eof": ended or not alive}
        return told

    def _read(self, name: str) -> dict[str, Any]:
        with suppress(OSError, jobdir.Damaged):
            folder = jobdir.open_folder(self.folder)
            try:
                return jobdir.read_json(folder, name)
            finally:
                os.close(folder)
        return {}


def describe_all(pool: TaskPool, found: list[tuple[int, TaskRecord]]) -> list[tuple[int, str, dict[str, Any]]]:
    """Pid, id and account of those tasks that are still there: the living supervisors are asked all at once."""
    told: list[tuple[int, str, dict[str, Any]]] = []
    for first in range(0, len(found), ASKED_AT_ONCE):
        asked = [(pid, record, _ask(pool, pid, record)) for pid, record in found[first : first + ASKED_AT_ONCE]]
        deadline = time.monotonic() + ANSWER_SECONDS
        for pid, record, connection in asked:
            info = _answer(record, connection, deadline)
            if info:
                told.append((pid, record.id, info))
    return told


def _ask(pool: TaskPool, pid: int, record: TaskRecord) -> ControlConnection | None:
    if not record.supervised():
        return None
    with suppress(TaskGone):
        connection = pool.connect(pid)
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

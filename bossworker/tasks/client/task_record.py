"""A task's directory as readers find it: what was asked, how it stands, and what it wrote, even when all are dead."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from bossworker.commands import jobdir, removal, safe_files
from bossworker.commands.record import reraise_if_out_of_fds
from bossworker.system import identity
from bossworker.tasks.client.leftovers import end_leftovers
from bossworker.tasks.errors import TaskGone
from bossworker.tasks.wire import directory, task_info
from bossworker.tasks.wire.control_connection import ControlConnection
from bossworker.tasks.wire.stream_files import DATA, NAMES, STORED
from bossworker.tasks.wire.stream_reader import ByteReader, Gone, MessageReader


class Facts(NamedTuple):
    """What a task's directory says of its supervisor.

    Status and owner are read by one descriptor. In a directory that others may write to, a path could lead to the task
    of one user for the status, and to that of another for the owner.
    """

    status: dict[str, Any]
    """What status.json says. Of a task that is just being made, only its supervisor. Empty when nothing can be read."""
    owner: int
    """The user who owns the directory."""
    hidden: bool = False
    """Whether this process may not look into the directory."""

    @property
    def pid(self) -> int | None:
        """The pid that the supervisor has or had, where it lives."""
        return task_info.pid_of(self.status.get("supervisor"))

    @property
    def sight(self) -> str:
        """`identity.ALIVE`, `identity.GONE`, or why it cannot be seen from here whether the supervisor lives."""
        found = identity.look(self.status.get("supervisor"))
        if found not in (identity.ALIVE, identity.GONE) and task_info.facts(self.status).get("left"):
            return identity.GONE  # it has said so itself
        return found


NOTHING = Facts({}, -1)


class TaskRecord:
    """One task's directory. Reads anew each time."""

    def __init__(self, pool: str, task_id: str) -> None:
        self.id = task_id
        self.pool = pool
        self.folder = f"{pool}/{task_id}"

    def facts(self) -> Facts:
        """What is known of the supervisor, from one look. OSError when this process has no descriptor for that."""
        try:
            with self._opened() as folder:
                return Facts(_status(folder), os.fstat(folder).st_uid)
        except PermissionError:
            return NOTHING._replace(hidden=True)
        except OSError as error:
            reraise_if_out_of_fds(error)
            return NOTHING

    def may_live(self) -> bool:
        """Whether the supervisor lives, or may live where this process cannot see it."""
        return self.facts().sight != identity.GONE

    def keeps_all(self) -> bool:
        """Whether the streams keep what has been read."""
        with suppress(OSError), self._opened() as folder:
            return task_info.facts(_read(folder, jobdir.JOB) or {}).get("retain_output") is None
        return True

    def exists(self) -> bool:
        """Whether the task has not been deleted."""
        return os.path.isdir(self.folder)

    def reader(self, stream: int) -> ByteReader | MessageReader:
        """For a stream that is on the disk."""
        return (MessageReader if stream == DATA else ByteReader)(self.folder, NAMES[stream])

    # -- what is true ---------------------------------------------------------------------------------------

    def info(self) -> dict[str, Any]:
        """All about the task, by what is on the disk alone. Ends what a dead supervisor could not end any more."""
        facts = self.facts()
        # The supervisor writes its last status and ends. We read the status, then look at the process: if it has done
        # both in between, what we have read is of before.
        if facts.sight == identity.GONE:
            # Its last status may have been written between our look at the file and our look at the process.
            facts = self.facts()
        alive = {identity.ALIVE: True, identity.GONE: False}.get(facts.sight)
        status = dict(facts.status)
        if alive is not True and status.get("state") in (jobdir.RUNNING, jobdir.CREATED):
            if alive is None:
                status |= {"state": jobdir.UNKNOWN, "reason": facts.sight}
            else:
                end_leftovers(self.id, status, facts.owner)
                status |= {"state": jobdir.BY_ERROR, "reason": "its supervisor died"}
        return self._tell(status, alive)

    def _tell(self, status: dict[str, Any], alive: bool | None) -> dict[str, Any]:
        job: dict[str, Any] = {}
        meta: dict[str, Any] = {}
        with suppress(OSError), self._opened() as folder:
            job = _read(folder, jobdir.JOB) or {}
            meta = _read(folder, task_info.META) or job.get("meta") or {}
        return task_info.info(self.id, job, status, meta, self._streams(alive), alive=alive)

    def end_leftovers(self) -> None:
        """End what a supervisor that was killed could not end any more. Nothing, as long as it may live."""
        facts = self.facts()
        if facts.sight == identity.GONE and not task_info.facts(facts.status).get("left"):
            end_leftovers(self.id, facts.status, facts.owner)

    def _streams(self, alive: bool | None) -> dict[str, Any]:
        told: dict[str, Any] = {NAMES[0]: {"start": 0, "limit": 0, "eof": alive is False}}
        for stream in STORED:
            with suppress(Gone, OSError):
                start, limit, ended = self.reader(stream).extent()
                told[NAMES[stream]] = {"start": start, "limit": limit, "eof": ended or alive is False}
        return told

    @contextmanager
    def _opened(self) -> Iterator[int]:
        folder = safe_files.open_folder(self.folder)
        try:
            yield folder
        finally:
            os.close(folder)

    # -- its supervisor -------------------------------------------------------------------------------------

    def connect(self, facts: Facts, pid: int | None = None) -> ControlConnection:
        """A connection to the supervisor. TaskGone when there is none, or none for us.

        Args:
            pid: What the supervisor's pid should be, where the task's directory is not for us to read.
        """
        wanted = pid if facts.pid is None else facts.pid
        try:
            # The pid that the kernel names is ours to compare only if we could see the supervisor. Otherwise whoever
            # owns the task's directory may speak for it.
            seen = facts.hidden or facts.sight in (identity.ALIVE, identity.GONE)
            name = task_info.socket_name(self.id)
            return ControlConnection(self.pool, name, pid=wanted, owner=None if seen else facts.owner)
        except ConnectionRefusedError as error:
            raise TaskGone(f"the supervisor {wanted} of {self.pool} is dead") from error
        except FileNotFoundError as error:
            raise TaskGone(f"no supervisor {wanted} in {self.pool}") from error
        except OSError as error:
            raise TaskGone(f"the supervisor {wanted} of {self.pool} cannot be reached: {error}") from error

    @property
    def socket(self) -> str:
        """The path of the socket that the supervisor listens on."""
        return f"{self.pool}/{task_info.socket_name(self.id)}"

    @property
    def output(self) -> str:
        """The path of the file that the supervisor's own stdout goes to."""
        return f"{self.pool}/{task_info.output_name(self.id)}"

    def discard(self) -> None:
        """Delete the task's directory, if it is there. OSError: it stays, and is the task's as before."""
        pool = os.open(self.pool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with suppress(FileNotFoundError):
                removal.discard(pool, self.id)
        finally:
            os.close(pool)

    def clear(self, said: bool = False) -> None:
        """Remove the socket of a supervisor that is gone; and what it has said, if that is nothing or `said`."""
        with suppress(OSError):
            os.unlink(self.socket)
        with suppress(OSError):
            if said or not os.lstat(self.output).st_size:  # otherwise it may say why it died
                os.unlink(self.output)


def _status(folder: int) -> dict[str, Any]:
    status = _read(folder, jobdir.STATUS)
    if status is not None:
        return status
    supervisor = (_read(folder, jobdir.JOB) or {}).get("supervisor")
    return {"state": jobdir.CREATED, "supervisor": supervisor} if supervisor else {}


def _read(folder: int, name: str) -> dict[str, Any] | None:
    """What a file says: None when it is missing; nothing when it is damaged, or not for us to read."""
    try:
        return jobdir.read_status(folder) if name == jobdir.STATUS else safe_files.read_json(folder, name)
    except FileNotFoundError:
        return None
    except (OSError, safe_files.Damaged) as error:
        reraise_if_out_of_fds(error)
        return {}


def find(pool: str, pid: int) -> TaskRecord:
    """The task whose supervisor has, or had, this pid: one that lives, else the newest that this process could see.

    TaskGone when there is none; its cause is a PermissionError when there may be one that is hidden from this process.
    """
    ended = elsewhere = hidden = None
    for task_id in reversed(directory.task_ids(pool)):
        record = TaskRecord(pool, task_id)
        facts = record.facts()
        hidden = hidden or (record if facts.hidden else None)
        if facts.pid != pid:
            continue
        if (sight := facts.sight) == identity.ALIVE:
            return record
        if sight == identity.GONE:
            ended = ended or record
        else:
            elsewhere = elsewhere or record
    found = ended or elsewhere
    if found is None:
        cause = PermissionError(f"{hidden.folder} is not for this user to read") if hidden else None
        raise TaskGone(f"no task {pid} in {pool}") from cause
    return found

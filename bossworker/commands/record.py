"""What a job directory says of a job, held against what really runs."""

from __future__ import annotations

import enum
import errno
import os
import time
from dataclasses import dataclass, field
from typing import Any, TypeGuard

from bossworker.commands import job_status, jobdir, safe_files
from bossworker.commands.roots import Root, find_root, is_id, open_root
from bossworker.commands.safe_files import Damaged
from bossworker.system import identity

START_SECONDS = 60.0  # after which a job that nobody has begun to start, and whose program is gone, never will be

_FINISHED = frozenset((jobdir.COMPLETED, jobdir.BY_REQUEST, jobdir.BY_ERROR))


class Status(enum.StrEnum):
    """How a job stands."""

    UNKNOWN = jobdir.UNKNOWN
    CREATED = jobdir.CREATED
    RUNNING = jobdir.RUNNING
    COMPLETED = jobdir.COMPLETED
    TERMINATED_BY_REQUEST = jobdir.BY_REQUEST
    TERMINATED_BY_ERROR = jobdir.BY_ERROR


@dataclass(frozen=True, slots=True)
class Info:
    """All that is known of a job. Times are Unix seconds; what is not known (yet) is None."""

    jobid: str
    status: Status
    args: list[str]
    shell: bool
    cwd: str | None
    """The folder it was told to run in; None for its own."""
    env: dict[str, str | None]
    stdin: str | None
    timeout: float
    grace: float | None
    """Seconds between TERM and KILL, if it was told; None: as whoever watches over it has it."""
    memory: int
    """Bytes that it may hold; 0: no limit."""
    max_output: int
    """Bytes of each stream that are kept; 0: all."""
    pty: bool
    meta: dict[str, Any]
    directory: str
    created_at: float | None
    started_at: float | None
    ended_at: float | None
    elapsed: float | None
    """Seconds that it ran, or has run so far."""
    pid: int | None
    supervisor_pid: int | None
    """Who writes the status: a supervisor, or a pool's worker."""
    exit_code: int | None
    signal: int | None
    """The signal that ended it."""
    core_dumped: bool | None
    user_time: float | None
    system_time: float | None
    max_rss: int | None
    """Bytes, of the largest of its processes that were waited for.

    Of one smaller than its supervisor, what was last seen; if it ended before, an estimate by its page faults."""
    reason: str
    """Why it was made to end, could not be started, or is not what its directory says; mostly empty.

    ``on host NAME``: it may run where this process cannot see it."""


@dataclass(slots=True)
class JobRecord:
    """A job's directory as it was read, and the status that is true."""

    jobid: str
    path: str
    state: str = jobdir.UNKNOWN
    reason: str = ""
    elsewhere: str = ""
    """Why it cannot be told from here whether it runs: "on host NAME", for instance. Then the state is unknown."""
    job: dict[str, Any] = field(default_factory=dict)
    status: dict[str, Any] = field(default_factory=dict)

    @property
    def is_there(self) -> bool:
        """Whether it has a directory, whatever that holds."""
        return bool(self.path)

    @property
    def finished(self) -> bool:
        return self.state in _FINISHED

    @property
    def known(self) -> bool:
        return self.state != jobdir.UNKNOWN

    @property
    def may_change(self) -> bool:
        """Whether it has not ended, as far as we know: there is something to wait for."""
        return bool(self.elsewhere) or self.state in (jobdir.CREATED, jobdir.RUNNING)


# -- from any process, by id --------------------------------------------------------------------------------------


def status(jobid: str, *, root: Root = None) -> Status:
    """How a job stands; never more than is true: a job whose processes are gone does not run.

    One that may run where this process cannot see it (on another host, or in a container, that shares the root) is
    ``unknown`` until its end is on record; `details` say where.
    """
    return Status(read(jobid, root).state)


def is_finished(jobid: str, *, root: Root = None) -> bool:
    """Whether it has ended, well or badly. (An unknown one has not.)"""
    return read(jobid, root).finished


def details(jobid: str, *, root: Root = None) -> list[str]:
    """What there is to say of its status, in words, such as ``exit code 5`` and ``elapsed time 3 seconds``."""
    return _details(read(jobid, root))


def info(jobid: str, *, root: Root = None) -> Info | None:
    """All that is known of it; None of a job that is unknown. One whose directory is damaged has a `reason`."""
    record = read(jobid, root)
    return _info(record) if record.known or record.reason else None


def get_configuration(jobid: str, *, root: Root = None) -> tuple[dict[str, Any], str | None]:
    """The raw records (what was asked, and how it stands, in one dict) and the path of the status file.

    ``({}, None)`` for an unknown job. For the curious: what is in it may change between versions.
    """
    record = read(jobid, root)
    if not (record.known or record.elsewhere):
        return {}, None
    return record.job | record.status, f"{record.path}/{jobdir.STATUS}"


def listing(root: Root = None) -> list[str]:
    """The ids of all jobs under a root, the oldest first. Whether each is whole, `status` tells."""
    try:
        folder = open_root(root)
        try:
            with os.scandir(folder) as entries:
                return sorted(one.name for one in entries if is_id(one.name) and one.is_dir(follow_symlinks=False))
        finally:
            os.close(folder)
    except (OSError, ValueError) as error:  # a NUL in the root
        reraise_if_out_of_fds(error)
        return []


# -- reading ------------------------------------------------------------------------------------------------------


def open_job(jobid: object, root: Root = None) -> int | None:
    """The descriptor of a job's directory; None if there is no such job, or it or its root is another user's.

    That may say anything: of a process of ours, for instance, that it is the job's command, to be ended with it.
    """
    if not is_id(jobid):
        return None
    try:
        return _open_own(str(jobid), root)
    except (OSError, ValueError) as error:
        reraise_if_out_of_fds(error)
        return None


def _open_own(jobid: str, root: Root) -> int:
    folder = open_root(root)
    try:
        job = safe_files.open_folder(jobid, folder)
    finally:
        os.close(folder)
    if jobdir.is_own(job):
        return job
    os.close(job)
    raise PermissionError(errno.EPERM, "it is another user's", jobid)


def reraise_if_out_of_fds(error: Exception) -> None:
    """Raise it, if it says that there are no descriptors to be had: then we know nothing of any job."""
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE):
        raise error


def read(jobid: object, root: Root = None) -> JobRecord:
    """What is true of a job. Whatever the id is or the directory holds, no error; OSError only without descriptors."""
    fd = open_job(jobid, root)
    if fd is None:
        return JobRecord("", "")
    try:
        return read_open(fd, str(jobid), f"{find_root(root)}/{jobid}")
    finally:
        os.close(fd)


def read_open(fd: int, jobid: str, path: str) -> JobRecord:
    """The same for a directory that is open."""
    record = JobRecord(jobid, path)
    try:
        # All by one descriptor: a job that is deleted and whose name is taken again meanwhile is not mixed up with the
        # other.
        record.job = _checked(safe_files.read_json(fd, jobdir.JOB), jobdir.JOB)
        record.status = _read_status(fd, record.job)
        _judge(record)
        if not (record.known or record.elsewhere):
            # Nobody runs it. Or its supervisor has written the last word and gone, both between our look at the status
            # and our look at the processes: so it is read once more, and only that counts.
            record.status = _read_status(fd, record.job)
            _judge(record, at_last=True)
            if record.finished and "exit_code" not in record.status and _was_asked_to_end(fd):
                record.state = jobdir.BY_REQUEST
    except FileNotFoundError:
        record.reason = "" if not record.job else f"{jobdir.STATUS} is gone"
    except (OSError, Damaged) as error:
        reraise_if_out_of_fds(error)
        record.state, record.reason, record.status = jobdir.UNKNOWN, str(error), {}
    return record


def _was_asked_to_end(fd: int) -> bool:
    """Of a job whose supervisor was not there to say so."""
    return not job_status.ENDING_SIGNALS.isdisjoint(jobdir.requested_signals(fd))


def _read_status(fd: int, job: dict[str, Any]) -> dict[str, Any]:
    """What is on record; before there is anything, whether somebody is in charge already."""
    try:
        return _checked(jobdir.read_status(fd), jobdir.STATUS)
    except FileNotFoundError:
        if isinstance(ended := job.get(jobdir.ENDED), dict):  # it was kept once it had ended
            return _checked(ended, jobdir.JOB)
        in_charge = {"supervisor": job["supervisor"]} if "supervisor" in job else {}
        return {"state": jobdir.CREATED, **in_charge}


def _judge(record: JobRecord, at_last: bool = False) -> None:
    """Set the state that is true; when nobody runs a job that should be running, only `at_last`."""
    status = record.status
    state = status.get("state")
    if not isinstance(state, str):
        raise Damaged(f"{jobdir.STATUS} is damaged: its state is {state!r:.100}")
    if state in _FINISHED:
        _check(status)
        record.state, record.reason = state, str(status.get("reason") or _why_killed(status))
    elif state not in (jobdir.CREATED, jobdir.RUNNING):
        raise Damaged(f"{jobdir.STATUS} is damaged: its state is {state!r:.100}")
    elif identity.holds(status.get("supervisor")) and not status.get("given_up"):
        record.state, record.reason = state, str(status.get("reason") or "")
    elif identity.holds(status.get("command")):
        record.state = state
        record.reason = str(status.get("reason") or "its supervisor is gone: its exit status will not be known")
    elif where := _elsewhere(record):
        record.elsewhere = record.reason = where
    elif "supervisor" not in status and _may_still_start(record.job):
        record.state = state
    elif at_last:
        record.state = jobdir.BY_REQUEST if status.get("given_up") else jobdir.BY_ERROR
        record.reason = _why_gone(status)


def _elsewhere(record: JobRecord) -> str:
    """Why we cannot see those who may run it; empty when we can, and they are gone."""
    status = record.status
    named = [status["supervisor"], status.get("command")] if "supervisor" in status else [record.job.get("by")]
    return next(filter(None, map(identity.unseen, named)), "")


def _why_killed(status: dict[str, Any]) -> str:
    return "likely out of memory" if status.get("out_of_memory") else ""


_LARGEST = 1e15  # of Unix seconds, it is a time that can be shown; of bytes, more than there is
_KINDS = {"argv": list, "env": dict, "meta": dict, "exit_code": int | None, "signal": int | None}
_TIMES = ("created", "started")
_NUMBERS = ("started", "ended", "elapsed", "user_time", "system_time", "max_rss")


def _checked(found: dict[str, Any], file: str) -> dict[str, Any]:
    """The same. Damaged, if what readers rely on is not what it should be: one such job must not spoil a list."""
    wrong = [name for name, kind in _KINDS.items() if name in found and not isinstance(found[name], kind)]
    wrong += [name for name in _TIMES if found.get(name) is not None and not _is_number(found[name])]
    if wrong:
        raise Damaged(f"{file} is damaged: {wrong[0]} is {found[wrong[0]]!r:.100}")
    return found


def _check(status: dict[str, Any]) -> None:
    """Damaged, if what readers compute with is not what it should be."""
    for name in _NUMBERS:
        if not _is_number(status.get(name)):
            raise Damaged(f"{jobdir.STATUS} is damaged: {name} is {status.get(name)!r:.100}")


def _is_number(value: object) -> TypeGuard[float]:
    """One that can be computed with: no NaN, no infinity, no int beyond all floats."""
    return isinstance(value, (int, float)) and -_LARGEST < value < _LARGEST


def _may_still_start(job: dict[str, Any]) -> bool:
    created = job.get("created")
    age = time.time() - created if _is_number(created) else START_SECONDS
    return age < START_SECONDS or identity.holds(job.get("by"))


def _why_gone(status: dict[str, Any]) -> str:
    supervisor = status.get("supervisor")
    if status.get("given_up"):
        return str(status.get("reason"))
    if not isinstance(supervisor, list):
        return "it was never started: the program that asked for it is gone"
    if supervisor[2:3] != [identity.boot_id()]:
        return "the machine was restarted: its exit status is not known"
    return "its supervisor is gone: its exit status is not known"


def _details(record: JobRecord) -> list[str]:
    status, lines = record.status, [record.reason] if record.reason else []
    if record.state == jobdir.RUNNING and "started" in status:
        return [*lines, f"started at {_at(status['started'])}"]
    if not (record.finished and status.get("state") in _FINISHED):
        return lines
    if status.get("signal") is not None:
        lines += [f"terminated by signal {status['signal']}", f"with{'' if status.get('core') else 'out'} coredump"]
    else:
        lines += [f"exit code {status.get('exit_code')}"]
    how = "completed" if record.state == jobdir.COMPLETED else "terminated"
    return [*lines, f"{how} at {_at(status['ended'])}", f"elapsed time {int(status['elapsed'])} seconds"]


def _at(seconds: object) -> str:
    try:
        return time.ctime(seconds)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, OSError):
        return "an unknown time"


def _info(record: JobRecord) -> Info:
    job, status = record.job, record.status
    started = status.get("started")
    so_far = None
    if record.state == jobdir.RUNNING and _is_number(started):
        so_far = max(0.0, time.time() - started)  # the clock may have been set back
    return Info(
        jobid=record.jobid,
        status=Status(record.state),
        args=job.get("argv", []),
        shell=job.get("shell", False),
        cwd=job.get("cwd"),
        env=job.get("env", {}),
        stdin=job.get("stdin"),
        timeout=job.get("timeout", 0.0),
        grace=job.get("grace"),
        memory=job.get("memory", 0),
        max_output=job.get("max_output", 0),
        pty=job.get("pty", False),
        meta=job.get("meta", {}),
        directory=record.path,
        created_at=job.get("created"),
        started_at=started,
        ended_at=status.get("ended"),
        elapsed=status.get("elapsed") if so_far is None else so_far,
        pid=_pid(status.get("command")),
        supervisor_pid=_pid(status.get("supervisor")),
        exit_code=status.get("exit_code"),
        signal=status.get("signal"),
        core_dumped=status.get("core"),
        user_time=status.get("user_time"),
        system_time=status.get("system_time"),
        max_rss=status.get("max_rss"),
        reason=record.reason,
    )


def _pid(named: object) -> int | None:
    return named[0] if isinstance(named, list) and named and isinstance(named[0], int) else None

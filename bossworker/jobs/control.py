"""What is done to jobs: they are started, signalled, waited for and deleted."""

from __future__ import annotations

import os
import signal as signals
import stat
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bossworker.commands import jobdir, record
from bossworker.commands.record import JobRecord, Status
from bossworker.commands.request import check
from bossworker.commands.roots import Root, find_root, is_id, make_root
from bossworker.commands.supervision import launching
from bossworker.jobs.waiting import JobWatch
from bossworker.system import descendants, identity
from bossworker.system.checks import check_seconds, check_signal

END_SECONDS = 10.0  # for a job to be gone that was sent KILL
DEBRIS_SECONDS = 3600.0  # after which what nobody finished making, or deleting, is cleared away

_TO_GROUP = ("KILL", "TERM", "INT", "HUP", "QUIT", "STOP", "TSTP", "CONT")
GROUP_SIGNALS = frozenset(signals.Signals[f"SIG{name}"] for name in _TO_GROUP)
"""What a terminal sends, too: they go to the command's whole process group, the others to the command alone."""

Arguments = Sequence[str | os.PathLike[str]]


def start(
    args: str | Arguments,
    *,
    shell: bool = False,
    timeout: float = 0,
    stdin: bytes | str | os.PathLike[str] | None = None,
    env: Mapping[str, str | None] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    meta: Mapping[str, Any] | None = None,
    root: Root = None,
) -> str:
    """Start a command and return its job id at once; it goes on when this program ends, however it ends.

    A supervisor of its own sees it through, in a session of its own and with none of our descriptors. One that cannot
    be run is a job that ended, with exit code 127 or 126 and the reason in its stderr. What a command leaves running
    when it ends by itself lives on. Nothing else that is made to end takes it along (on Linux): neither a pool's worker
    whose handler starts it, nor another command that does.

    Args:
        args: The program and its arguments; one str for ``/bin/sh`` with `shell`. A program without a slash is looked
            up in the PATH, one with is relative to `cwd`.
        timeout: Seconds it may run, 0 for no limit. Then it and what it started get TERM, and 2 seconds later KILL.
            (The supervisor sees to it: where somebody has killed that, nobody does.)
        stdin: What to feed, or the path of a file to read from; nothing by default.
        env: Variables to add; None removes one.
        cwd: Where it runs; by default in the job's own folder, whose files are its results.
        meta: Whatever JSON can hold, under str keys; kept with the job.
        root: The folder for job directories; made if it is not there.

    Raises:
        TypeError, ValueError: Names what is wrong with an argument.
        OSError: The root or the job directory cannot be made (a full disk, for instance), stdin cannot be stored (in
            the folder for temporary files), or there is no process to be had. Nothing is left of it.

    Of one that is interrupted (by Ctrl-C, for instance) nothing is left either, or it runs and is listed.
    """
    asked = {"cmd": args, "shell": shell, "stdin": stdin, "env": env, "cwd": cwd, "timeout": timeout, "meta": meta}
    request = check(asked, name="args")
    directory, streams = jobdir.create(make_root(root), request.record())
    try:
        launching.start(directory, streams, request)
    except BaseException as error:
        with suppress(OSError):
            if not isinstance(error, OSError):  # Ctrl-C, for instance: unless somebody runs it already, nobody shall
                directory.claim()
            jobdir.discard(directory.path)
        raise
    finally:
        for fd in streams:
            os.close(fd)
        directory.close()
    return directory.id


def wait(jobid: str, timeout: float | None = None, *, root: Root = None) -> Status:
    """Wait until a job has ended, for at most `timeout` seconds; how it stands then. An unknown one is not waited for.

    One that runs on another host, or in a container, is waited for by its directory: until its supervisor there has put
    its end on record. If that supervisor was killed, this never happens.

    Raises:
        TypeError, ValueError: `timeout` is no number of seconds.
    """
    until = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
    with JobWatch(jobid, root) as watch:
        while watch.look().may_change:
            if until is not None and time.monotonic() >= until:
                break
            watch.sleep(until)
        return Status(watch.record.state)


def signal(jobid: str, signal: int | str = signals.SIGKILL, *, root: Root = None) -> bool:
    """Send a signal to a running job; whether it was sent.

    KILL ends all that the command has started; where its supervisor was killed, what is still below the command or in
    its process group. TERM, INT, HUP, QUIT, STOP, TSTP and CONT go to its process group, as from a terminal, any other
    to the command alone. When it ends by TERM, INT, HUP, QUIT or ABRT, what it has left is made to end, too. When it
    ends by the signal, it is ``terminated by request``; so is one that was asked to end and does with an exit code
    other than 0.

    Args:
        signal: A number from 1 to 64, or a name such as ``TERM``.

    Raises:
        TypeError, ValueError: There is no such signal.
    """
    number = check_signal(signal)
    folder = record.open_job(jobid, root)
    if folder is None:
        return False
    try:
        now = record.read_open(folder, jobid, "")
        command = now.status.get("command")
        if now.state != jobdir.RUNNING or not identity.holds(command):
            return False
        return _send(folder, now, command, number)
    finally:
        os.close(folder)


def _send(folder: int, now: JobRecord, command: identity.Identity, number: int) -> bool:
    """Put it on record first, so that whoever sees the command end knows why."""
    with suppress(OSError):  # a full disk must not keep anybody from ending what fills it
        jobdir.request_signal(folder, number)
    left_alone = number == signals.SIGKILL and not identity.holds(now.status.get("supervisor"))
    doomed = _identities(int(command[0])) if left_alone else []
    sent = identity.send(command, number, group=number in GROUP_SIGNALS)
    for one in doomed:
        identity.send(one, number)
    return sent


def _identities(pid: int) -> list[identity.Identity]:
    """What a command has started, while it still is their ancestor."""
    return [one for one in map(identity.of, descendants.descendants(pid)) if one is not None]


# -- deleting -----------------------------------------------------------------------------------------------------


def clean(
    jobid: str | None = None,
    *,
    older_than: float | None = None,
    status: str | Sequence[str] | None = None,
    root: Root = None,
) -> int:
    """Delete a job and all its files. One that runs is ended first, by KILL.

    Without an id: all jobs that have ended, and to which `older_than` and `status` apply. What runs is left alone then,
    and so is what cannot be read and might run, unless `status` names ``Status.UNKNOWN``.

    Returns, in both forms, how many *files* were deleted, not how many jobs: each job has a few of its own, besides
    what its command made. 0: there was nothing to delete.

    Args:
        older_than: Seconds since a job was started, at the least.
        status: One or several, such as ``Status.COMPLETED``.

    Raises:
        TypeError, ValueError: There is no condition, or one and an id, or one that makes no sense.
    """
    if jobid is not None:
        if older_than is not None or status is not None:
            raise ValueError("clean takes a job id, or older_than and status, not both")
        return _clean_one(jobid, root)
    if older_than is None and status is None:
        raise ValueError("clean needs a job id, or older_than or status; older_than=0 means all that have ended")
    age = 0.0 if older_than is None else check_seconds("older_than", older_than)
    wanted = _check_statuses(status)
    return sum(_clean_one(one, root) for one in record.listing(root) if _may_go(one, root, age, wanted)) + _clear(root)


def _check_statuses(status: str | Sequence[str] | None) -> set[Status] | None:
    if status is None:
        return None
    try:
        return set(map(Status, [status] if isinstance(status, str) else status))
    except ValueError:
        allowed = ", ".join(repr(one.value) for one in Status)
        raise ValueError(f"status must be one or several of {allowed}, not {status!r}") from None


def _may_go(jobid: str, root: Root, age: float, wanted: set[Status] | None) -> bool:
    now = record.read(jobid, root)
    if not (now.finished if wanted is None else now.state in wanted - {jobdir.CREATED, jobdir.RUNNING}):
        return False
    return age <= 0 or time.time() - jobdir.time_of(jobid) >= age


def _clean_one(jobid: str, root: Root) -> int:
    path = f"{find_root(root)}/{jobid}"
    try:
        if is_id(jobid) and stat.S_ISDIR(os.lstat(path).st_mode) and _end(jobid, root):
            return jobdir.discard(path)
    except (OSError, ValueError) as error:  # a NUL in the root
        record.reraise_if_out_of_fds(error)
    return 0


def _end(jobid: str, root: Root) -> bool:
    """See to it that nothing writes into the directory any more; False when it cannot be helped."""
    deadline = time.monotonic() + END_SECONDS
    with JobWatch(jobid, root) as watch:
        while watch.look().may_change:
            if watch.record.elsewhere or time.monotonic() > deadline:
                return False
            signal(jobid, signals.SIGKILL, root=root)
            watch.sleep(min(deadline, time.monotonic() + 0.1))
    return True


def _clear(root: Root) -> int:
    """Delete what a crash left half made or half deleted."""
    path, count = find_root(root), 0
    try:
        names = os.listdir(path)
    except OSError:
        return 0
    for name in names:
        jobid = name.removeprefix(jobdir.HIDDEN)
        if jobid != name and is_id(jobid) and time.time() - jobdir.time_of(jobid) > DEBRIS_SECONDS:
            count += jobdir.remove_tree(f"{path}/{name}")
    return count

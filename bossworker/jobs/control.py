"""What is done to jobs: they are started, signalled and waited for."""

from __future__ import annotations

import errno
import os
import signal as signals
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from bossworker.commands import jobdir, record
from bossworker.commands.record import JobRecord, Status
from bossworker.commands.removal import discard_own
from bossworker.commands.request import Request, check
from bossworker.commands.roots import Root, find_root, make_root
from bossworker.commands.supervision import launching
from bossworker.jobs.waiting import JobWatch
from bossworker.system import descendants, identity, proc
from bossworker.system.checks import check_seconds, check_signal
from bossworker.system.signals import held

_TO_GROUP = ("KILL", "TERM", "INT", "HUP", "QUIT", "STOP", "TSTP", "CONT")
GROUP_SIGNALS = frozenset(signals.Signals[f"SIG{name}"] for name in _TO_GROUP)
"""What a terminal sends, too: they go to the command's whole process group, the others to the command alone."""

Arguments = Sequence[str | os.PathLike[str]]


def start(
    args: str | Arguments,
    *,
    shell: bool = False,
    timeout: float = 0,
    grace: float | None = None,
    memory: int = 0,
    max_output: int = 0,
    stdin: bytes | str | os.PathLike[str] | None = None,
    stderr: str | None = None,
    pty: bool = False,
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
        shell: Whether `args` is one str, which ``/bin/sh -c`` runs.
        timeout: Seconds it may run, 0 for no limit. Then it and what it started get TERM, and after `grace` KILL.
            (The supervisor sees to it: where somebody has killed that, nobody does.)
        grace: Seconds between TERM and KILL, for it to tidy up; 2 by default.
        memory: Bytes that it and what it started may hold together, 0 for no limit. Above, it ends as by a timeout.
        max_output: Bytes of each stream that are kept, the newest, or a little more; 0 for all. What is older is given
            back to the disk while it runs.
        stdin: What to feed, or the path of a file to read from; nothing by default.
        stderr: ``"stdout"``: it goes there.
        pty: Whether it has a terminal, for stdout and stderr (both are kept as stdout), and for stdin unless there is
            something to feed. From that it reads nothing.
        env: Variables to add; None removes one.
        cwd: Where it runs; by default in the job's own folder, whose files are its results.
        meta: Whatever JSON can hold, under str keys; kept with the job.
        root: The folder for job directories; made if it is not there.

    Raises:
        TypeError, ValueError: Names what is wrong with an argument.
        OSError: The root or the job directory cannot be made (a full disk, for instance), or the root is another
            user's; stdin cannot be stored (in the folder for temporary files); there is no process to be had, no
            /proc (Linux), or no Python for the supervisor (see ``BOSSWORKER_PYTHON``). Nothing is left of it.

    Of one that is interrupted (by Ctrl-C, for instance) nothing is left either, or it runs and is listed.
    """
    request = check(
        {
            "cmd": args,
            "shell": shell,
            "timeout": timeout,
            "grace": grace,
            "memory": memory,
            "max_output": max_output,
            "stdin": stdin,
            "stderr": stderr,
            "pty": pty,
            "env": env,
            "cwd": cwd,
            "meta": meta,
        },
        name="args",
    )
    if sys.platform == "linux" and not proc.is_ours():
        raise OSError(errno.ENOSYS, f"a detached job could not be found again: {identity.NO_PROC}")
    with held():  # what raises in between would leave descriptors that nobody closes
        return _start(request, root)


def _start(request: Request, root: Root) -> str:
    folder = make_root(root)
    try:
        launching.prepare()
        directory, streams = jobdir.create_at(folder, find_root(root), request.record())
    finally:
        os.close(folder)
    try:
        # From here on two may be at the directory: we, who delete it if this fails, and a supervisor that was sent.
        # Whoever claims it first has it.
        launching.start(directory, streams, request)
    except BaseException as error:
        with suppress(OSError):
            if not isinstance(error, OSError):  # Ctrl-C, for instance: unless somebody runs it already, nobody shall
                directory.claim()
            discard_own(directory)
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
        watch.await_end(until)
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
        # It may end between this look and the signal. `identity.send` looks once more, at a process that it holds on
        # to.
        if now.state != jobdir.RUNNING or not identity.holds(command):
            return False
        return _send(folder, now, command, number)
    finally:
        os.close(folder)


def _send(folder: int, now: JobRecord, command: identity.Identity, number: int) -> bool:
    """Put it on record first, so that whoever sees the command end knows why."""
    first = False
    with suppress(OSError):  # a full disk must not keep anybody from ending what fills it
        first = jobdir.request_signal(folder, number)
    left_alone = number == signals.SIGKILL and not identity.holds(now.status.get("supervisor"))
    # Before the command is killed: what it has started is only found below it, and nobody adopts it who would tell.
    doomed = _identities(int(command[0])) if left_alone else []
    sent = identity.send(command, number, group=number in GROUP_SIGNALS)
    for one in doomed:
        identity.send(one, number)
    # The command has ended by itself between our look and the signal: then it is not by our word that it has. Another
    # one's word stays, since that signal may have been sent.
    if first and not sent:
        with suppress(OSError):
            jobdir.withdraw_signal(folder, number)
    return sent


def _identities(pid: int) -> list[identity.Identity]:
    """What a command has started, while it still is their ancestor."""
    return [one for one in map(identity.of, descendants.descendants(pid)) if one is not None]

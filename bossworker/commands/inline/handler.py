"""The built-in work handler: a job is an external command, run in a pool's worker and kept in a job directory.

The worker is the command's supervisor, and so is any process that calls the handler itself. It adopts what the
command's children leave behind, so all that the command has started is below it, beside what is not the command's.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Mapping
from typing import Any

from bossworker.commands import job_status, jobdir, output
from bossworker.commands.inline.family import adoption
from bossworker.commands.inline.interruption import DefaultSigchld, Interruption
from bossworker.commands.inline.run import LOST, CommandRun
from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.request import Request, check, check_keep, with_absolute_paths
from bossworker.commands.roots import Root, check_root, find_root, make_root, open_root
from bossworker.errors import MEMORY_EXCEEDED, TIMED_OUT, JobTimeout
from bossworker.failure import Failure, Outcome
from bossworker.system import identity
from bossworker.system.checks import check_count

INLINE_OUTPUT = 65536  # bytes
STOPPED = "stopped by the pool"


class CommandHandler:
    """A work handler that runs each job as a command, in a job directory of its own. `run_command` is one.

    A job is a dict::

        cmd                 the program and its arguments, a list; or one str, with shell=True
        shell               whether /bin/sh runs it
        stdin               bytes or str to feed, or a Path to read from; nothing by default
        env                 variables to add to those that the pool was made with; None removes one
        cwd                 where it runs; by default in the job's own folder. Like a path for stdin, relative to
                            the folder of whoever adds the job
        timeout, grace      seconds that it may run, and between TERM and KILL when it is made to end (default: 0.5)
        memory              bytes that it and all that it has started may hold together
        max_output          bytes of each stream that are kept, the newest
        stderr              "stdout": it goes there
        pty                 whether it has a terminal, for stdout and stderr, and for stdin unless it is given one
        text, encoding      whether the result has str or bytes, and of what encoding the str
        keep                "all", "failed" or "none", instead of the handler's
        meta                what JSON can hold, under str keys

    The result has ``jobid``, ``status``, ``exit_code``, ``signal``, ``elapsed``, ``user_time`` and ``system_time``
    (seconds), ``max_rss`` (bytes; of a command smaller than its worker what was last seen, or an estimate by its page
    faults if it ended before), ``stdout``, ``stderr``, ``stdout_truncated``, ``stderr_truncated``, ``meta``, and an
    ``ERROR`` unless the command ended with exit code 0. The ``error_kind`` is ``bad_job`` if it could not be started,
    ``crash`` if a signal ended it, ``reported`` if it ended with another exit code, ``timeout`` or ``memory``.
    `bossworker.jobs` answers for it by its id while it runs, and for as long as its directory stays.

    A timeout and a cancel end all that the command has started: TERM, after the grace (or sooner, when ``kill_grace``
    is short) KILL. One that cannot be ended, for it has other rights or is frozen, has its result some seconds later,
    which says that it lives on. What it leaves running when it ends by itself lives on until its worker ends.

    It may be called outside a pool as well, in several threads, too. Then an exception that comes in between, such as
    KeyboardInterrupt, ends all that the command has started before it passes through; what has left the command's
    session within an instant is known by ``BOSSWORKER_JOB`` in its environment, the job's id. In a program with threads
    the command has those signals blocked that the calling thread has; and where that is not the main one, those ignored
    that the program has, and no exit status while SIGCHLD is one of them.
    """

    def __init__(self, root: Root = None, keep: str = "failed", inline_output: int = INLINE_OUTPUT) -> None:
        """
        Args:
            root: The folder for job directories; as for `bossworker.jobs` by default.
            keep: Which of them stay: ``all``, ``failed`` (those with an ERROR) or ``none``.
            inline_output: This many bytes, at the end of each stream, are in the result; all are in the directory.

        Raises:
            TypeError, ValueError: Names what is wrong.
        """
        check_root(root)
        self.root = None if root is None else find_root(root)
        self.keep = check_keep("keep", keep)
        self.inline_output = check_count("inline_output", inline_output)

    def __call__(self, job: Mapping[str, Any]) -> Mapping[str, Any]:
        """Run one. Never raises for what the command does; OSError when there is no room for its directory."""
        try:
            request = check(job)
        except (TypeError, ValueError) as error:
            return Failure(Outcome.BAD_JOB, {"ERROR": f"BossWorkerAsync: bad job: {error}"})
        interruption = Interruption()
        try:
            with adoption, DefaultSigchld():
                return self._run(request, interruption)
        finally:
            interruption.restore()

    # The pool calls it where a job is added: caller/controls.py, prepare_of.
    prepare_job = staticmethod(with_absolute_paths)

    def _run(self, request: Request, interruption: Interruption) -> Mapping[str, Any]:
        run = self._new_run(request, interruption)
        try:
            run.start()
            try:
                if why := run.attend():
                    run.stop(why)
            except JobTimeout as time_is_up:
                interruption.hold_back()
                run.stop(_why_stopped(time_is_up), time_is_up.grace)
            return self._conclude(run)
        except BaseException as error:
            run.give_up(error)
            raise
        finally:
            run.close()

    def _new_run(self, request: Request, interruption: Interruption) -> CommandRun:
        return CommandRun(self._create(request), request, interruption)

    def _create(self, request: Request) -> tuple[JobDirectory, tuple[int, int]]:
        root = self.root or find_root()
        try:
            folder = open_root(root)
        except (FileNotFoundError, NotADirectoryError):
            folder = make_root(root)
        try:
            return jobdir.create_at(folder, root, _record(request))
        finally:
            os.close(folder)

    def _conclude(self, run: CommandRun) -> Mapping[str, Any]:
        status = run.end()
        result = self._result(run, status)
        kind, error = _error(status, run)
        keep = run.request.keep or self.keep
        run.conclude(status, run.lives_on or keep == "all" or (keep == "failed" and kind is not Outcome.OK))
        if kind is Outcome.OK:
            return result
        result["ERROR"] = error
        return result if kind is Outcome.REPORTED else Failure(kind, result)

    def _result(self, run: CommandRun, status: dict[str, Any]) -> dict[str, Any]:
        stdout, stderr = (_end_of(fd, self.inline_output, run.request.encoding) for fd in run.streams)
        return {
            "jobid": run.directory.id,
            "status": status["state"],
            **job_status.measured(status),
            "stdout": stdout[0],
            "stderr": stderr[0],
            "stdout_truncated": stdout[1],
            "stderr_truncated": stderr[1],
            "meta": run.request.meta,
        }


def _record(request: Request) -> dict[str, Any]:
    """With the worker as supervisor, from the beginning."""
    return {**request.record(), "supervisor": identity.own()}


def run_command(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The work handler for external commands: ``BossWorker(run_command)``. See `CommandHandler`."""
    return _handler(job)


run_command.prepare_job = with_absolute_paths  # type: ignore[attr-defined]
_handler = CommandHandler()


def _end_of(fd: int, limit: int, encoding: str | None) -> tuple[str | bytes, bool]:
    """The last `limit` bytes of a file, as text or as they are, and whether there are more, or were."""
    size = os.lseek(fd, 0, os.SEEK_END)
    if not size:
        return "" if encoding else b"", False
    data = output.read_at(fd, -limit) if limit else b""
    return data.decode(encoding, "replace") if encoding else data, len(data) < size


def _error(status: dict[str, Any], run: CommandRun) -> tuple[Outcome, str]:
    """What kind of error it is, and what the result's ERROR says; OK when the command ended with exit code 0."""
    code, number = status["exit_code"], status["signal"]
    if run.reason:
        return _stopped(run)
    if run.failure is not None:  # it never ran, and never will
        return Outcome.BAD_JOB, f"exit code {code}: {run.failure.reason}"
    if run.lost:
        return Outcome.REPORTED, LOST
    if number is not None:
        return Outcome.CRASH, f"terminated by signal {_name(number)}" + _why(run)
    return (Outcome.REPORTED, f"exit code {code}" + _why(run)) if code else (Outcome.OK, "")


def _why_stopped(time_is_up: JobTimeout) -> str:
    return str(time_is_up).removeprefix("BossWorkerAsync: ") if time_is_up.memory else STOPPED


def _stopped(run: CommandRun) -> tuple[Outcome, str]:
    """Of one that was made to end."""
    lives_on = f"; {run.hopeless}" if run.hopeless else ""
    if run.reason.startswith(MEMORY_EXCEEDED):
        return Outcome.MEMORY, f"BossWorkerAsync: {run.reason}{lives_on}"
    return Outcome.TIMEOUT, f"{TIMED_OUT}{lives_on}"


def _name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _why(run: CommandRun) -> str:
    """Why a command may have failed: there was no memory, or it had nowhere to write to."""
    if run.out_of_memory:
        return ", likely out of memory"
    return " (no space left on the job directory's disk)" if output.is_full(os.fstatvfs(run.directory.fd)) else ""

"""The built-in work handler: a job is an external command, run in a pool's worker and kept in a job directory.

The worker is the command's supervisor, and so is any process that calls the handler itself. It adopts what the
command's children leave behind, so all that the command has started is below it, beside what is not the command's.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from resource import struct_rusage
from typing import Any

from bossworker.commands import job_status, jobdir
from bossworker.commands.inline.family import Family, adoption
from bossworker.commands.inline.interruption import DefaultSigchld, Interruption
from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.request import Request, check
from bossworker.commands.roots import Root, check_root, find_root, make_root, open_root
from bossworker.errors import TIMED_OUT, JobTimeout
from bossworker.failure import Failure, Outcome
from bossworker.system import descendants, identity, processes, program
from bossworker.system.checks import check_count

KEEP = ("all", "failed", "none")
INLINE_OUTPUT = 65536  # bytes
GRACE = 0.5  # seconds between TERM and KILL, unless the job or the pool says otherwise
LAST_SECONDS = 0.5  # of what the pool leaves us, for KILL and the last word
RECORD_AFTER = 0.005  # seconds; a command that ends sooner goes from "created" to its end, and saves a file for it
LEAST_SPACE = 65536  # bytes; a disk with less is full: what is freed now need not have been free for the command
STOPPED = "stopped by the pool"
LOST = "its exit status is not known: it was reaped by another part of the program, or SIGCHLD is ignored"

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds, where an end can only be looked for


class CommandHandler:
    """A work handler that runs each job as a command, in a job directory of its own. `run_command` is one.

    A job is a dict: ``cmd``, a list, the program and its arguments (or one str, with ``shell=True``), and optionally
    ``stdin`` (bytes or str to feed, or a Path), ``env`` (variables to add; None removes one), ``cwd`` (default: the
    job's own folder), ``timeout`` (seconds), ``meta`` (what JSON can hold, under
    str keys).

    The result has ``jobid``, ``status``, ``exit_code``, ``signal``, ``elapsed``, ``user_time`` and ``system_time``
    (seconds), ``max_rss`` (bytes; never less than the worker had when it started the command), ``stdout`` and
    ``stderr`` (text), ``stdout_truncated``, ``stderr_truncated``, ``meta``, and an ``ERROR`` unless the command ended
    with exit code 0. `bossworker.jobs` answers for it by its id.

    A timeout and a cancel end all that the command has started: TERM, half a second later KILL (sooner, when
    ``kill_grace`` is short). What it leaves running when it ends by itself lives on until its worker ends.

    It may be called outside a pool as well, in several threads, too. Then an exception that comes in between, such as
    KeyboardInterrupt, ends all that the command has started before it passes through; what has left the command's
    session within an instant is known by ``BOSSWORKER_JOB`` in its environment, the job's id. In a program with threads
    the command has those signals blocked that the calling thread has; and where that is not the main one, those ignored
    that the program has, and no exit status while SIGCHLD is one of them.
    """

    def __init__(self, root: Root = None, keep: str = "all", inline_output: int = INLINE_OUTPUT) -> None:
        """
        Args:
            root: The folder for job directories; as for `bossworker.jobs` by default.
            keep: Which of them stay: ``all``, ``failed`` (those with an ERROR) or ``none``.
            inline_output: So many bytes, at the end of each stream, are in the result; all are in the directory.

        Raises:
            TypeError, ValueError: Names what is wrong.
        """
        check_root(root)
        if keep not in KEEP:
            raise ValueError(f"keep must be one of {', '.join(map(repr, KEEP))}, not {keep!r}")
        self.root = None if root is None else find_root(root)
        self.keep = keep
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

    def _run(self, request: Request, interruption: Interruption) -> Mapping[str, Any]:
        run = _Run(self._create(request), request, interruption)
        try:
            run.start()
            try:
                if not _ends_in_time(run, interruption):
                    run.stop(f"timed out after {request.timeout:g} seconds", GRACE)
            except JobTimeout as time_is_up:
                interruption.hold_back()
                run.stop(STOPPED, *_shares(time_is_up.grace, GRACE))
            return self._result(run, run.conclude())
        except BaseException as error:
            run.give_up(error)
            raise
        finally:
            run.close()

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

    def _result(self, run: _Run, status: dict[str, Any]) -> Mapping[str, Any]:
        stdout, stderr = (_end_of(fd, self.inline_output) for fd in run.streams)
        result = {
            "jobid": run.directory.id,
            "status": status["state"],
            "exit_code": status["exit_code"],
            "signal": status["signal"],
            "elapsed": status["elapsed"],
            "user_time": status["user_time"],
            "system_time": status["system_time"],
            "max_rss": status["max_rss"],
            "stdout": stdout[0],
            "stderr": stderr[0],
            "stdout_truncated": stdout[1],
            "stderr_truncated": stderr[1],
            "meta": run.request.meta,
        }
        error = _error(status, run)
        if run.lives_on:
            pass
        elif self.keep == "none" or (self.keep == "failed" and not error):
            with suppress(OSError):  # of another user, for instance: its job stays listed
                run.directory.discard()
        if not error:
            return result
        result["ERROR"] = error
        return Failure(Outcome.TIMEOUT, result) if run.reason else result


def _record(request: Request) -> dict[str, Any]:
    """With the worker as supervisor, from the beginning."""
    return {**request.record(), "supervisor": identity.own()}


def run_command(job: Mapping[str, Any]) -> Mapping[str, Any]:
    """The work handler for external commands: ``BossWorker(run_command)``. See `CommandHandler`."""
    return _handler(job)


class _Run:
    """One command, from its start to the last word about it."""

    def __init__(
        self, created: tuple[JobDirectory, tuple[int, int]], request: Request, interruption: Interruption
    ) -> None:
        self.directory, self.streams = created
        self.request = request
        self.interruption = interruption
        self.family = Family(self.directory.id, interruption.in_pool)
        self.status = job_status.created(identity.own())
        self.pid = 0
        self.started = 0.0  # monotonic seconds
        self.reason = ""
        self.failure: program.CannotStart | None = None
        self.exit: tuple[int, struct_rusage, float] | None = None
        self.lost = False  # somebody else has reaped it
        self.hopeless = ""  # who cannot be ended, and why
        self.concluded = False

    def start(self) -> None:
        """OSError when there is no room; then nothing is left of the directory. Or when no process can be made."""
        try:
            self.directory.take_room()
            stdin = self.request.open_stdin()
        except OSError:
            with suppress(OSError):
                self.directory.discard()
            self.concluded = True
            raise
        try:
            self.started = time.monotonic()
            self.pid = self.family.pid = self._execute(stdin)
        except program.CannotStart as failure:
            self.failure = failure
            program.tell(self.streams[1], failure)
        finally:
            self.status = job_status.running(identity.own(), [self.pid, 0, identity.boot_id()], time.time())
            os.close(stdin)

    def _execute(self, stdin: int) -> int:
        request, directory = self.request, self.directory
        return program.start(
            request.encoded_argv(),
            request.environment(directory.id),
            os.fsencode(request.cwd) if request.cwd else directory.files(),
            (stdin, *self.streams),
            last_step=program.empty_signal_mask() if threading.active_count() == 1 else None,
        )

    def record(self) -> None:
        """That it runs, and as what."""
        self.status["command"] = identity.of(self.pid)
        try:
            self.directory.write_status(self.status)
        except OSError:  # the command may have deleted its directory
            pass

    def wait(self, seconds: float = 0.0) -> bool:
        """Until it has ended, or its own time or `seconds` are over; whether it has ended. It stays to be reaped."""
        if self.failure is not None:
            return True
        if self.request.timeout:
            left = max(0.0001, self.started + self.request.timeout - time.monotonic())
            seconds = min(left, seconds or left)
        return _await_end(self.pid, seconds)

    def stop(self, reason: str, grace: float, patience: float = descendants.PATIENCE) -> None:
        """End all that it has started, unless it has just ended by itself."""
        self._reap()
        if self.exit is None and self.failure is None:
            self.reason = reason
            self._end_tree(grace, patience)

    def give_up(self, error: BaseException) -> None:
        """Something unforeseen, perhaps amid its start: end all that it has started, and write the last word."""
        if self.concluded:
            return
        self.reason = self.reason or f"given up: {type(error).__name__}"
        try:
            self._end_tree(GRACE)
        except BaseException:  # whoever interrupts twice is in a hurry
            self._end_tree(0.0)
            raise
        finally:
            self.conclude()

    def _end_tree(self, grace: float, patience: float = descendants.PATIENCE) -> None:
        ending = descendants.Ending(grace, self.pid, self.family.members, patience)
        while (pause := ending.step()) is not None and not ending.hopeless:
            time.sleep(pause)
            self._reap()
            if self.exit is not None:
                self.family.reap_group()
            if (left := self.interruption.take()) is not None:  # the pool's time is up as well
                ending.hurry(*_shares(left, grace))
        self.hopeless = ending.hopeless

    def _reap(self) -> None:
        """Reap the command and the orphans that came to us by it; nobody else's children."""
        if self.pid and self.exit is None and not self.lost:
            try:
                reaped, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.lost = True
            else:
                if reaped:
                    self.exit = status, usage, time.monotonic() - self.started
        self.family.reap()

    def conclude(self) -> dict[str, Any]:
        """Reap it, end what a requested signal has left, and write the last word, if there is a place for it."""
        self._reap()
        status = self._last_status(time.time())
        try:
            self.directory.write_last_status(status)
        except OSError:  # a command may have deleted its directory; there was room for the word
            pass
        self.concluded = True
        return status

    @property
    def lives_on(self) -> bool:
        """Whether we have given it up, and it runs."""
        return bool(self.hopeless) and self.exit is None

    def _last_status(self, now: float) -> dict[str, Any]:
        if self.failure is not None:
            return job_status.not_started(self.status, self.failure.exit_code, self.failure.reason, now)
        if self.exit is not None:
            return self._ended(*self.exit)
        if self.hopeless:
            self.status["command"] = identity.of(self.pid)
            return job_status.given_up(self.status, f"{self.reason}; {self.hopeless}", now)
        if not self.pid:
            return job_status.not_started(self.status, program.NOT_EXECUTABLE, self.reason, now)
        return job_status.lost(self.status, self.reason or LOST, now)

    def _ended(self, code: int, usage: struct_rusage, elapsed: float) -> dict[str, Any]:
        requested = 0
        if code:
            requested = job_status.requested(code, jobdir.requested_signals(self.directory.fd))
            if job_status.ends_all(code, requested):
                self._end_tree(0.0 if requested == signal.SIGKILL else GRACE)
        reason = f"{self.reason}; {self.hopeless}" if self.hopeless else self.reason
        return job_status.ended(self.status, code, usage, elapsed, reason=reason, requested=requested)

    def close(self) -> None:
        """Give up the descriptors, and what it has left running."""
        self.family.leave()
        for fd in self.streams:
            os.close(fd)
        self.directory.close()


def _shares(left: float, grace: float) -> tuple[float, float]:
    """What the pool leaves us before it kills its worker, shared between grace and patience, with a rest."""
    grace = min(grace, max(left / 2, left - LAST_SECONDS))
    return grace, min(descendants.PATIENCE, 0.6 * (left - grace))


def _ends_in_time(run: _Run, interruption: Interruption) -> bool:
    """Wait for the end; whether it came before the command's own time was up. JobTimeout passes through."""
    for seconds in (RECORD_AFTER, 0.0):
        interruption.let_through()
        ended = run.wait(seconds)
        interruption.hold_back()
        if ended:
            return True
        if seconds:
            run.record()
    return False


def _await_end(pid: int, timeout: float) -> bool:
    """Wait for a child to end, without reaping it; whether it has, within `timeout` seconds (0: however long)."""
    if not timeout and hasattr(os, "waitid"):
        with suppress(ChildProcessError):  # SIGCHLD is ignored, or somebody else has reaped it
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        return True
    ended = processes.pidfd(pid)
    if ended is None:
        return _look_for_end(pid, timeout)
    try:
        return processes.await_fd(ended, select.POLLIN, timeout or None)
    finally:
        os.close(ended)


def _look_for_end(pid: int, timeout: float) -> bool:
    deadline = time.monotonic() + timeout if timeout else float("inf")
    pause = _FIRST_PAUSE
    while identity.start_time(pid) is not None:
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
    return True


def _end_of(fd: int, limit: int) -> tuple[str, bool]:
    """The last `limit` bytes of a file as text, and whether there are more."""
    size = os.lseek(fd, 0, os.SEEK_END)
    if not size:
        return "", False
    start = max(0, size - limit)
    data = os.pread(fd, size - start, start)
    return data.decode("utf-8", "replace"), start > 0


def _error(status: dict[str, Any], run: _Run) -> str:
    """What the result's ERROR says; empty when the command ended with exit code 0."""
    code, number = status["exit_code"], status["signal"]
    if run.reason:
        return f"{TIMED_OUT}; {run.hopeless}" if run.hopeless else TIMED_OUT
    if run.failure is not None:
        return f"exit code {code}: {run.failure.reason}"
    if run.lost:
        return LOST
    if number is not None:
        return f"terminated by signal {_name(number)}" + _full(run)
    return f"exit code {code}" + _full(run) if code else ""


def _name(number: int) -> str:
    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)


def _full(run: _Run) -> str:
    """Why a command may have failed that had nowhere to write to."""
    disk = os.fstatvfs(run.directory.fd)
    return "" if disk.f_bavail * disk.f_frsize >= LEAST_SPACE else " (no space left on the job directory's disk)"


_handler = CommandHandler()

"""One command that a worker sees through, from its start to the last word about it."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from resource import struct_rusage
from typing import Any

from bossworker.commands import job_status
from bossworker.commands.inline.end_watch import RECORD_AFTER, EndWatch, waits
from bossworker.commands.inline.family import Family
from bossworker.commands.inline.interruption import Interruption
from bossworker.commands.jobdir import JobDirectory
from bossworker.commands.quota import Quota
from bossworker.commands.removal import discard_own
from bossworker.commands.request import Request
from bossworker.commands.terminal import Terminal
from bossworker.system import descendants, identity, program
from bossworker.system.memory import ChildPeak, OomWatch
from bossworker.system.wall_clock import start_times

GRACE = 0.5  # seconds between TERM and KILL, unless the job says otherwise, or the pool leaves us less
LAST_SECONDS = 0.5  # of what the pool leaves us, for KILL and the last word
OOM_AFTER = 0.02  # seconds between looks, when the kernel's counters are read, too; to fill a memory takes longer
LOST = "its exit status is not known: it was reaped by another part of the program, or SIGCHLD is ignored"


class CommandRun:
    """`start`, `attend`, `stop` if it must, `end`, `conclude`, `close`; whatever is raised: `give_up`."""

    def __init__(
        self, created: tuple[JobDirectory, tuple[int, int]], request: Request, interruption: Interruption
    ) -> None:
        self.directory, self.streams = created
        self.request = request
        self.interruption = interruption
        self.family = Family(self.directory.id, interruption.in_pool)
        self.quota = Quota(request.memory, request.max_output, self.streams, self.family.members)
        self.grace = GRACE if request.grace is None else request.grace
        self.status = job_status.created(identity.own())
        self.pid = 0
        self.reason = ""  # why we make it end
        self.failure: program.CannotStart | None = None
        self.exit: tuple[int, struct_rusage, float] | None = None
        self.lost = False  # somebody else has reaped it
        self.hopeless = ""  # who cannot be ended, and why
        self.out_of_memory = False  # as the kernel's counters have it
        self.concluded = False
        self._started_at, self._started = 0.0, 0.0  # Unix, monotonic seconds
        self._terminal: Terminal | None = None
        self._end: EndWatch | None = None
        self._oom: OomWatch | None = None
        self._peak = ChildPeak()

    # -- start ------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the command. OSError when there is no room (then its directory is deleted), or no process to be had."""
        try:
            self.directory.take_room()
            if self.request.pty:
                self._terminal = Terminal(self.streams[0])
            stdin = self.request.open_stdin()
        except OSError:
            with suppress(OSError):
                discard_own(self.directory)
            self.concluded = True
            raise
        try:
            self._started_at, self._started = start_times()
            # Ctrl-C may come when the command runs and its pid has not been stored. `give_up` finds it as a child that
            # was not there before, or by its job's id.
            self.pid = self.family.pid = self._execute(stdin)
        except program.CannotStart as failure:
            self.failure = failure
            program.tell(self._stdio(stdin)[2], failure)
        finally:
            self.status = job_status.running(identity.own(), [self.pid, 0, identity.boot_id()], self._started_at)
            os.close(stdin)
            if self._terminal is not None:
                self._terminal.is_started()

    def _execute(self, stdin: int) -> int:
        request, directory = self.request, self.directory
        return program.start(
            request.encoded_argv(),
            request.environment(directory.id),
            os.fsencode(request.cwd) if request.cwd else directory.files(),
            self._stdio(stdin),
            last_step=self._last_step(),
        )

    def _stdio(self, stdin: int) -> tuple[int, int, int]:
        out, err = self.streams
        if self._terminal is not None:
            return self._terminal.stdio(None if self.request.stdin is None else stdin)
        return stdin, out, out if self.request.merged else err

    def _last_step(self) -> Callable[[], object] | None:
        step = program.empty_signal_mask() if threading.active_count() == 1 else None
        return step if self._terminal is None else self._terminal.last_step(step)

    # -- while it runs ----------------------------------------------------------------------------------

    def attend(self) -> str:
        """Until it has ended: empty; or until it has to be stopped: why. JobTimeout passes through."""
        if self.failure is not None:
            return ""
        self._end = EndWatch(self.pid, self._terminal, self.interruption)
        timeout = self.request.timeout
        if self._end.wait(min(timeout, RECORD_AFTER) if timeout else RECORD_AFTER):  # as most do
            return ""
        return self._attend_longer(self._end, self._started + timeout if timeout else float("inf"))

    def _attend_longer(self, end: EndWatch, until: float) -> str:
        """The same, until a monotonic time, with a look now and again at what it takes."""
        self._peak.look(self.pid)
        self._record()
        for seconds in waits(bool(self.quota)):
            left = until - time.monotonic()
            if left <= 0:
                return f"timed out after {self.request.timeout:g} seconds"
            if end.wait(min(seconds, left)):
                return ""
            self._peak.look(self.pid)
            if seconds >= OOM_AFTER:
                self._oom = self._oom or OomWatch()
            if self.quota and (why := self.quota.check()):
                return why
        raise AssertionError("there is always another look")

    def _record(self) -> None:
        """That it runs, and as what."""
        # We have not reaped it, so the pid is still its own, dead or alive.
        self.status["command"] = identity.of(self.pid)
        try:
            self.directory.write_status(self.status)
        except OSError:  # the command may have deleted its directory
            pass

    # -- its end ----------------------------------------------------------------------------------------

    def stop(self, reason: str, pool_leaves: float | None = None) -> None:
        """End all that it has started, unless it has just ended by itself.

        Args:
            pool_leaves: Seconds until the pool kills this worker, if it will.
        """
        # It may have ended in the very moment that its time was up: then it ended by itself.
        self._reap()
        if self.exit is None and self.failure is None:
            self.reason = reason
            self._end_tree(self.grace, pool_leaves)

    def give_up(self, error: BaseException) -> None:
        """Something unforeseen, perhaps amid its start: end all that it has started, and write the last word."""
        if self.concluded:
            return
        self.reason = self.reason or f"given up: {type(error).__name__}"
        try:
            self._end_tree(self.grace)
        except BaseException:  # whoever interrupts twice is in a hurry
            self._end_tree(0.0)
            raise
        finally:
            self.conclude(self.end())

    def _end_tree(self, grace: float, pool_leaves: float | None = None) -> None:
        ending = descendants.Ending(grace, self.pid, self.family.members)
        while True:
            if pool_leaves is not None:
                ending.hurry(*_shares(pool_leaves, grace))
            pause = ending.step()
            if pause is None or ending.hopeless:
                break
            time.sleep(pause)
            self._reap()
            if self.exit is not None:
                self.family.reap_group()
            if self._terminal is not None:
                self._terminal.take()
            # The job's own time may be up as well: that is held back all the while, so that it cannot cut off the
            # ending, and is asked for at each step.
            pool_leaves = self.interruption.take()
        self.hopeless = ending.hopeless

    def _reap(self) -> None:
        """Reap the command and the orphans that came to us by it; nobody else's children."""
        if self.pid and self.exit is None and not self.lost:
            try:
                # Another part of the program may wait for all children, and be quicker: then the exit status is lost,
                # and said to be.
                reaped, status, usage = os.wait4(self.pid, os.WNOHANG)
            except ChildProcessError:
                self.lost = True
            else:
                if reaped:
                    self.exit = status, usage, time.monotonic() - self._started
        self.family.reap()

    @property
    def lives_on(self) -> bool:
        """Whether we have given it up, and it runs."""
        return bool(self.hopeless) and self.exit is None

    # -- the last word ----------------------------------------------------------------------------------

    def end(self) -> dict[str, Any]:
        """Reap it, end what a requested signal has left; how it has ended."""
        self._reap()
        status = self._last_status(time.time())
        if self._terminal is not None:
            self._terminal.take()
        self.quota.trim(at_last=True)
        return status

    def conclude(self, status: dict[str, Any], keep: bool = True) -> None:
        """Write the last word, if there is a place for it; or delete the directory, if that may be."""
        self.concluded = True
        if not keep:
            with suppress(OSError):  # something in it is another user's, for instance
                discard_own(self.directory)
                return
        with suppress(OSError):  # a command may have deleted its directory; there was room for the word
            self.directory.write_last_status(status)

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
            requested = job_status.requested(code, self.directory.requested_signals(os.WIFEXITED(code)))
            if job_status.ends_all(code, requested):
                self._end_tree(0.0 if requested == signal.SIGKILL else self.grace)
            self.out_of_memory = not (self.reason or requested) and self._oom is not None and self._oom.likely(code)
        return job_status.ended(
            self.status,
            code,
            usage,
            elapsed,
            reason=f"{self.reason}; {self.hopeless}" if self.hopeless else self.reason,
            requested=requested,
            max_rss=self._peak.of(usage),
            out_of_memory=self.out_of_memory,
        )

    def close(self) -> None:
        """Give up the descriptors, and what it has left running."""
        self.family.leave()
        if self._end is not None:
            self._end.close()
        if self._terminal is not None:
            self._terminal.close()
        for fd in self.streams:
            os.close(fd)
        self.directory.close()


def _shares(left: float, grace: float) -> tuple[float, float]:
    """What the pool leaves us before it kills its worker, shared between grace and patience, with a rest."""
    grace = min(grace, max(left / 2, left - LAST_SECONDS))
    return grace, min(descendants.PATIENCE, 0.6 * (left - grace))

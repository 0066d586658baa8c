"""The life of one command: started, watched, ended when its time is up, and its last word written down.

A supervisor is a process of its own, leads a session, and adopts what the command's children leave behind. It holds
nothing but the job directory. When it is killed, the command runs on, and the directory names both, so that readers
find out what is true.
"""

from __future__ import annotations

import os
import time

from bossworker.commands import job_status, jobdir
from bossworker.system import identity, program
from bossworker.system.cpython import signal
from bossworker.system.descendants import Ending, adopt_orphans, descendants, die_with_parent
from bossworker.system.eventloop import Loop
from bossworker.system.memory import ChildPeak, OomWatch
from bossworker.system.wall_clock import start_times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from resource import struct_rusage
    from typing import Any

    from bossworker.commands.jobdir import JobDirectory

GRACE = 2.0  # seconds between TERM and KILL
FIRST_LOOK, LONGEST_LOOK = 0.005, 60.0  # seconds between looks at the memory that a command takes


class Order:
    """What to run; see `program.start` for the types."""

    __slots__ = ("argv", "cwd", "environment", "grace", "keep", "outlives_us", "stdio", "timeout", "umask")

    def __init__(
        self,
        argv: list[bytes],
        environment: list[bytes],
        cwd: bytes,
        stdio: tuple[int, int, int],
        *,
        umask: int = -1,
        timeout: float = 0.0,
        grace: float = GRACE,
        keep: tuple[int, ...] = (),
        outlives_us: bool = True,
    ) -> None:
        """
        Args:
            timeout: Seconds it may run, 0 for no limit.
            keep: Descriptors that it gets besides `stdio`. Those of `stdio` become the supervisor's.
            outlives_us: Whether it runs on when the supervisor is killed; otherwise the kernel ends it (Linux).
        """
        self.argv = argv
        self.environment = environment
        self.cwd = cwd
        self.stdio = stdio
        self.umask = umask
        self.timeout = timeout
        self.grace = grace
        self.keep = keep
        self.outlives_us = outlives_us


class Supervisor:
    """Sees one command through. Subclasses that serve more register it with the loop, and override the steps.

    `begin` and `run` are all that is called from outside; the steps in between are, in order::

        prepare             room for the last word is taken, and who is in charge is on record
        start               the command runs
        on_exit             it has ended and is reaped
        conclude            nothing of it is left, and the last word is written
    """

    def __init__(self, directory: JobDirectory, order: Order, loop: Loop) -> None:
        self.directory = directory
        self.order = order
        self.loop = loop
        self.pid = 0  # of the command, until it is reaped
        self.status: dict[str, Any] = {}
        self.reason = ""  # why we make it end
        self.noted = False  # whether there is a log
        self._peak = ChildPeak()
        self._oom: OomWatch | None = None
        self._ending: Ending | None = None
        self._exit: tuple[int, struct_rusage, float] | None = None
        self._started = 0.0  # monotonic seconds
        self._started_at = 0.0  # Unix seconds

    # -- from outside -----------------------------------------------------------------------------------

    def begin(self) -> None:
        """Prepare and start. OSError when the directory cannot be written to; then nothing was started."""
        # Before anything is started: what a command leaves behind must find us as its next parent, however soon it
        # does.
        adopt_orphans()
        # Before the start, too: a command that ends at once writes into the loop's pipe, and is reaped in the first
        # turn.
        self.loop.on_child(self.reap)
        self.prepare()
        self.start()

    def run(self) -> None:
        """Until the last word is written."""
        self.loop.run()

    def end(self, reason: str, grace: float | None = None) -> None:
        """Make the command end, and all that it started: TERM, and `grace` seconds later KILL."""
        if self._ending is not None:
            self._ending.hurry(self.order.grace if grace is None else grace)
        elif self.pid:
            self.end_all(reason, grace)

    def end_all(self, reason: str, grace: float | None = None) -> None:
        """The same, also when the command itself has ended; with less grace than before, if it is asked for again."""
        grace = self.order.grace if grace is None else grace
        self.reason = reason
        self.note(jobdir.WARNING if reason else jobdir.INFO, "ending", reason=reason, grace=grace)
        if self._ending is None:
            self._begin_ending(grace)
        else:
            self._ending.hurry(grace)

    def members(self) -> list[int]:
        """All that is to end when the command is made to end, parents first."""
        return descendants(os.getpid())

    # -- steps ------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Take room for the last word, and go on record as the one in charge. FileExistsError when another one is."""
        # Nothing is started before this: of two supervisors that were sent for one job, one gets through here.
        self.directory.claim()
        self.status = job_status.created(identity.own())
        self.directory.write_status(self.status)

    def start(self) -> None:
        """Start the command, or note why it cannot be."""
        order = self.order
        self._peak, self._oom = ChildPeak(), None
        self._started_at, self._started = start_times()  # before it: its time is never told too short
        try:
            # The command may have ended by now. It is not reaped before the loop turns, so its pid and its start time
            # are its own until then.
            self.pid = self._execute(order)
        except program.CannotStart as error:
            self.on_cannot_start(error)
        except OSError as error:
            self.on_cannot_start(program.CannotStart(program.NOT_EXECUTABLE, f"no process for it: {error.strerror}"))
        else:
            self.on_started()
        finally:
            for fd in set(order.stdio):
                os.close(fd)

    def on_started(self) -> None:
        """It runs: say so."""
        self.status = job_status.running(identity.own(), identity.of(self.pid), self._started_at)
        self.write_status()
        if self.order.timeout:
            self.loop.after(self.order.timeout, self._time_is_up)
        pid = self.pid
        self.loop.after(FIRST_LOOK, lambda: self._look(pid, FIRST_LOOK))  # when it has been loaded, at least

    def note(self, level: str, what: str, **facts: object) -> None:
        """Put something into the log."""
        self.noted = True
        self.directory.note(level, what, pid=self.pid or "", **facts)

    def note_end(self, status: dict[str, Any]) -> None:
        """The same for how the command has ended, if there is a log."""
        if self.noted:
            self.note(
                jobdir.INFO, "ended", state=status["state"], exit_code=status["exit_code"], signal=status["signal"]
            )

    def write_status(self) -> None:
        """Put on record how it stands. If that cannot be (its directory may be deleted), the old status stands."""
        try:
            self.directory.write_status(self.status)
        except OSError:
            pass

    def on_cannot_start(self, error: program.CannotStart) -> None:
        """Nothing runs: say so where people look, and end."""
        self.note(jobdir.WARNING, "not started", reason=error.reason)
        self.complain(error)
        self.directory.write_last_status(
            job_status.not_started(self.status, error.exit_code, error.reason, time.time())
        )
        self.loop.stop()

    def complain(self, error: program.CannotStart) -> None:
        """Write where the command's own complaints would be."""
        program.tell(self.order.stdio[2], error)

    def on_exit(self) -> None:
        """The command has ended. What it left running lives on, unless somebody asked for its end."""
        assert self._exit is not None
        # Its end was asked for while it ended by itself: the ending goes on, and concludes when nobody is left.
        if self._ending is not None:
            return
        # Whoever sends a signal puts that on record first: so the word is there by now if the command has ended by it.
        number = self.requested_signal()
        if job_status.ends_all(self._exit[0], number):
            self._begin_ending(0.0 if number == signal.SIGKILL else self.order.grace)
        else:
            self.conclude()

    def conclude(self) -> None:
        """Write the last word."""
        status = self.last_status()
        self.note_end(status)
        self.directory.write_last_status(status)
        self.loop.stop()

    def on_hopeless(self, why: str) -> None:
        """Somebody cannot be ended, though KILL was sent. Say so; if it is the command itself, wait on for its end."""
        self.reason = f"{self.reason}; {why}" if self.reason else why
        self.note(jobdir.WARNING, "not ended", reason=why)
        if self._exit is not None:
            self.on_all_gone()
        else:
            self.status["reason"] = self.reason
            self.write_status()

    def on_all_gone(self) -> None:
        """All that was to be ended is gone."""
        self._ending = None
        if self._exit is not None:
            self.conclude()

    def last_status(self) -> dict[str, Any]:
        """How the command has ended."""
        assert self._exit is not None
        wait_status, usage, elapsed = self._exit
        requested = self.requested_signal()
        by_itself = not (self.reason or requested)
        return job_status.ended(
            self.status,
            wait_status,
            usage,
            elapsed,
            reason=self.reason,
            requested=requested,
            max_rss=self._peak.of(usage),
            out_of_memory=by_itself and self._oom is not None and self._oom.likely(wait_status),
        )

    def requested_signal(self) -> int:
        """The signal that the command ended by, or was to, because somebody asked; 0 if there is none."""
        assert self._exit is not None
        wait_status = self._exit[0]
        return job_status.requested(wait_status, self.directory.requested_signals(os.WIFEXITED(wait_status)))

    # -- inside -----------------------------------------------------------------------------------------

    def last_step(self) -> Callable[[], object] | None:
        """What the child has to do before exec."""
        return None if self.order.outlives_us else die_with_parent()

    def _look(self, pid: int, wait: float) -> None:
        """See how much memory it takes, now and again, while it is this command that runs."""
        # The command may have ended since the timer was set, and, of a task, another one run.
        if pid == self.pid:
            self._oom = self._oom or OomWatch()
            self._peak.look(pid)
            self.loop.after(wait, lambda: self._look(pid, min(4 * wait, LONGEST_LOOK)))

    def _execute(self, order: Order) -> int:
        return program.start(
            order.argv,
            order.environment,
            order.cwd,
            order.stdio,
            umask=order.umask,
            keep=order.keep,
            last_step=self.last_step(),
        )

    def _time_is_up(self) -> None:
        self.end(f"timed out after {self.order.timeout:g} seconds")

    def reap(self) -> None:
        """Reap the command, and orphans that came to us."""
        ended = self.pid
        while True:
            try:
                # Until nothing is left: one SIGCHLD may stand for several ends.
                pid, wait_status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            if pid == self.pid:
                self._exit = wait_status, usage, time.monotonic() - self._started
                self.pid = 0
        if ended and not self.pid:
            self.on_exit()

    def _begin_ending(self, grace: float) -> None:
        self._ending = Ending(grace, self.pid, self.members)
        self._go_on_ending()

    def _go_on_ending(self) -> None:
        assert self._ending is not None
        # Before each step: whoever has ended is reaped, so that its number is not signalled once it means another, and
        # a zombie is not waited for.
        self.reap()
        was_hopeless = self._ending.hopeless
        pause = self._ending.step()
        if pause is None:
            self.on_all_gone()
            return
        if self._ending.hopeless and not was_hopeless:
            self.on_hopeless(self._ending.hopeless)
        if self._ending is not None:
            self.loop.after(pause, self._go_on_ending)

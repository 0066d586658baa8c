"""One command that a host sees through: from its start to the record of its end."""

from __future__ import annotations

import os
import time

from bossworker.commands import output
from bossworker.commands.hosting.capture import Capture
from bossworker.commands.hosting.hosting_wire import (
    BAD_JOB,
    CANCELLED,
    CRASH,
    DIRECT,
    EXCEPTION,
    GROUP,
    MEMORY,
    REPORTED,
    TIMEOUT,
    EndRecord,
    HostedJob,
    HostSettings,
)
from bossworker.commands.hosting.relaying import LineRelay
from bossworker.system import program
from bossworker.system.wall_clock import start_times

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage
    from typing import Any

    from bossworker.commands.hosting.cells import Cells
    from bossworker.commands.inline.family import Family
    from bossworker.system.descendants import Ending
    from bossworker.system.identity import Identity
    from bossworker.system.memory import ChildPeak, OomWatch
    from bossworker.system.starter import StartedProgram, Starter

OOM_AFTER = 0.02  # seconds after which the kernel's counters are read, too; to fill a memory takes longer
TIMED_OUT = "BossWorkerAsync: timed out"


class Hosted:
    """A command in a slot of a host."""

    relay: LineRelay | None = None
    pid = 0
    fd = -1  # readable when it has ended; -1: where there is no such thing
    started_at = started = 0.0  # Unix, monotonic seconds
    refusal: program.CannotStart | None = None
    exit: tuple[int, struct_rusage, float] | None = None
    kind = ""  # why it is made to end, as its record will say
    reason = ""
    ending: Ending | None = None
    family: Family | None = None
    hopeless = ""  # who cannot be ended, and why
    gone = False  # its record is made
    wrote = False  # anything that is in its record alone
    peak: ChildPeak | None = None
    oom: OomWatch | None = None
    _start: StartedProgram | None = None
    _stderr = -1
    _identity: Identity | None = None

    def __init__(self, job: HostedJob, jobid: str, capture: Capture) -> None:
        self.job = job
        self.jobid = jobid
        self.capture = capture

    def start(self, starter: Starter, files: list[bytes], stdio: tuple[int, int, int], cells: Cells) -> None:
        """Start it; if its program does not run, `refusal` says why, then or when it has ended.

        Any other exception: no process can be made of it.

        Args:
            files: What its program may be.
        """
        job = self.job
        self.started_at, self.started = start_times()
        self._stderr = stdio[2]
        cells.starting(job.cell, self.started_at)
        try:
            self._start = starter.start(job.argv, files, job.cwd, own_variables(job, self.jobid), stdio)
            self.pid = self._start.pid
        except program.CannotStart as refusal:
            self._refuse(refusal)
        finally:
            cells.running(job.cell, self.pid)

    def could_not_start(self, error: Exception) -> None:
        """So it will not run."""
        if isinstance(error, program.CannotStart):
            self._stderr = self.capture.streams[1]
            self._refuse(error)
        else:
            self.kind, self.reason = EXCEPTION, f"{type(error).__name__}: {error}"

    def was_started(self, begun: StartedProgram, started_at: float, started: float) -> None:
        """By a spawner."""
        self._start, self.pid = begun, begun.pid
        self.started_at, self.started = started_at, started
        self._stderr = self.capture.streams[1]

    def _see_whether_refused(self, status: int) -> None:
        if status and self._start is not None and (refusal := self._start.refusal(self.job.argv, self.job.cwd)):
            self._refuse(refusal)

    def _refuse(self, refusal: program.CannotStart) -> None:
        self.refusal = refusal
        program.tell(self._stderr, refusal)

    @property
    def executes(self) -> bool:
        """Whether what is seen of its process is its program's; before, it is ours."""
        return self._start is not None and self._start.executes

    # -- while it runs ----------------------------------------------------------------------------------

    def has_ended(self) -> bool:
        """Reap it, if it has."""
        if self.exit is not None:
            return True
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:  # nobody else reaps here; so there is nothing to wait for
            return False
        if pid:
            self.exit = status, usage, time.monotonic() - self.started
            self._see_whether_refused(status)
        return bool(pid)

    def look(self, seconds: float) -> None:
        """See what memory it takes, after it has run for that long."""
        from bossworker.system import identity
        from bossworker.system.memory import ChildPeak, OomWatch

        self._identity = self._identity or identity.of(self.pid)
        self.peak = self.peak or ChildPeak()
        self.peak.look(self.pid)
        if seconds >= OOM_AFTER and self.oom is None:
            self.oom = OomWatch()

    # -- its end ------------------------------------------------------------------------------------------

    def record(self, settings: HostSettings) -> tuple[Any, ...]:
        """How it has ended, as it is told. What failed, and not because somebody has cancelled it, is kept."""
        kind, reason = self._verdict()
        jobid = self._keep(settings) if kind and kind != CANCELLED else ""
        stdout, stderr = self.capture.take(settings.folder, self.jobid)
        if settings.how != GROUP:
            stdout = stderr = b""
        self.wrote = bool(stdout or stderr)
        seconds = time.monotonic() - self.started if self.exit is None else self.exit[2]
        if not (kind or self.wrote or self.relay):
            return self.job.id, seconds, self.started_at
        code = self._code()
        exit_code, signal = (code, None) if code is None or code >= 0 else (None, -code)
        received = self.relay.received if self.relay is not None else 0
        times = seconds, self.started_at
        return EndRecord(self.job.id, kind, reason, exit_code, signal, *times, stdout, stderr, jobid, received)

    def _code(self) -> int | None:
        """Of its exit; negative: the signal that ended it."""
        if self.refusal is not None:
            return self.refusal.exit_code
        return None if self.exit is None else os.waitstatus_to_exitcode(self.exit[0])

    def _verdict(self) -> tuple[str, str]:
        if self.exit is not None and not (self.exit[0] or self.kind):
            return "", ""
        lives_on = f"; {self.hopeless}" if self.hopeless else ""
        if self.kind in (TIMEOUT, CANCELLED):
            return self.kind, f"{TIMED_OUT}{lives_on}"
        if self.kind:
            return self.kind, f"BossWorkerAsync: {self.reason}{lives_on}" if self.kind == MEMORY else self.reason
        if self.refusal is not None:
            return BAD_JOB, f"exit code {self.refusal.exit_code}: {self.refusal.reason}"
        assert self.exit is not None
        code = os.waitstatus_to_exitcode(self.exit[0])
        words = f"exit code {code}" if code > 0 else f"terminated by signal {_signal_name(-code)}"
        return (REPORTED if code > 0 else CRASH), words + self._why(self.exit[0])

    def _why(self, status: int) -> str:
        """Why it may have failed: there was no memory, or it had nowhere to write to."""
        if self.oom is not None and self.oom.likely(status):
            return ", likely out of memory"
        return " (no space left for its output)" if output.is_full(os.fstatvfs(self.capture.streams[0])) else ""

    def _keep(self, settings: HostSettings) -> str:
        from bossworker.commands.hosting import kept

        streams = () if settings.how == DIRECT else self.capture.streams
        return kept.keep(self.jobid, self.job, settings, self._status(), streams)

    def _status(self) -> dict[str, Any]:
        from bossworker.commands import job_status
        from bossworker.system import identity
        from bossworker.system.memory import ChildPeak

        command = self._identity or [self.pid, 0, identity.boot_id()]
        status = job_status.running(identity.own(), command, self.started_at)
        now = time.time()
        if self.refusal is not None:
            return job_status.not_started(status, self.refusal.exit_code, self.refusal.reason, now)
        if self.exit is None:
            if not self.pid:
                return job_status.not_started(status, program.NOT_EXECUTABLE, self.reason, now)
            return job_status.given_up(status, f"{self.reason}; {self.hopeless}", now)
        code, usage, elapsed = self.exit
        return job_status.ended(
            status,
            code,
            usage,
            elapsed,
            reason=f"{self.reason}; {self.hopeless}" if self.hopeless else self.reason,
            max_rss=(self.peak or ChildPeak()).of(usage),
            out_of_memory=not self.kind and self.oom is not None and self.oom.likely(code),
        )


def own_variables(job: HostedJob, jobid: str) -> list[str]:
    """What a command finds in its environment, and no other: ``NAME=value`` each."""
    return [f"BOSSWORKER_JOB={jobid}", *[f"{name}={value}" for name, value in job.env.items()]]


def _signal_name(number: int) -> str:
    import signal

    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)

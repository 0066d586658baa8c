"""One command that a host sees through: from its start to the record of its end."""

from __future__ import annotations

import os
import time

from bossworker.commands.hosting.capture import Capture
from bossworker.commands.hosting.hosting_wire import (
    BAD_JOB,
    CANCELLED,
    CRASH,
    DIRECT,
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
    from bossworker.system.starter import Starter

OOM_AFTER = 0.02  # seconds after which the kernel's counters are read, too; to fill a memory takes longer
LEAST_SPACE = 65536  # bytes; a disk with less is full
TIMED_OUT = "BossWorkerAsync: timed out"


class Hosted:
    """A command in a slot of a host."""

    __slots__ = (
        "_identity", "capture", "ending", "exit", "family", "fd", "gone", "hopeless", "job", "jobid", "kind", "oom",
        "peak", "pid", "reason", "refusal", "relay", "started", "started_at",
    )  # fmt: skip

    def __init__(self, job: HostedJob, jobid: str, capture: Capture) -> None:
        self.job = job
        self.jobid = jobid
        self.capture = capture
        self.relay: LineRelay | None = None
        self.pid = 0
        self.fd = -1  # readable when it has ended; -1: where there is no such thing
        self.started_at = self.started = 0.0  # Unix, monotonic seconds
        self.refusal: program.CannotStart | None = None
        self.exit: tuple[int, struct_rusage, float] | None = None
        self.kind = ""  # why it is made to end, as its record will say
        self.reason = ""
        self.ending: Ending | None = None
        self.family: Family | None = None
        self.hopeless = ""  # who cannot be ended, and why
        self.gone = False  # its record is made
        self.peak: ChildPeak | None = None
        self.oom: OomWatch | None = None
        self._identity: Identity | None = None

    def start(self, starter: Starter, files: list[bytes], stdio: tuple[int, int, int], cells: Cells) -> None:
        """Start it; if its program does not run, `refusal` says why. OSError, ValueError: no process can be made of it.

        Args:
            files: What its program may be.
        """
        job = self.job
        own = [f"{name}={value}" for name, value in job.env.items()]
        own.append(f"BOSSWORKER_JOB={self.jobid}")
        self.started_at, self.started = start_times()
        cells.starting(job.cell, self.started_at)
        try:
            self.pid = starter.start(job.argv, files, job.cwd, own, stdio)
        except program.CannotStart as refusal:
            self.refusal = refusal
            program.tell(stdio[2], refusal)
        finally:
            cells.running(job.cell, self.pid)

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

    def record(self, settings: HostSettings) -> EndRecord:
        """How it has ended. What failed, and not because somebody has cancelled it, is kept."""
        kind, reason = self._verdict()
        code = None if self.exit is None else os.waitstatus_to_exitcode(self.exit[0])
        if self.refusal is not None:
            code = self.refusal.exit_code
        jobid = self._keep(settings) if kind and kind != CANCELLED else ""
        stdout, stderr = self.capture.take(settings.folder, self.jobid)
        return EndRecord(
            self.job.id,
            kind,
            reason,
            code if code is not None and code >= 0 else None,
            -code if code is not None and code < 0 else None,
            time.monotonic() - self.started if self.exit is None else self.exit[2],
            self.started_at,
            stdout if settings.how == GROUP else b"",
            stderr if settings.how == GROUP else b"",
            jobid,
            self.relay.received if self.relay is not None else 0,
        )

    def _verdict(self) -> tuple[str, str]:
        lives_on = f"; {self.hopeless}" if self.hopeless else ""
        if self.kind in (TIMEOUT, CANCELLED):
            return self.kind, f"{TIMED_OUT}{lives_on}"
        if self.kind:
            return self.kind, f"BossWorkerAsync: {self.reason}{lives_on}" if self.kind == MEMORY else self.reason
        if self.refusal is not None:
            return BAD_JOB, f"exit code {self.refusal.exit_code}: {self.refusal.reason}"
        assert self.exit is not None
        code = os.waitstatus_to_exitcode(self.exit[0])
        if not code:
            return "", ""
        words = f"exit code {code}" if code > 0 else f"terminated by signal {_signal_name(-code)}"
        return (REPORTED if code > 0 else CRASH), words + self._why(self.exit[0])

    def _why(self, status: int) -> str:
        """Why it may have failed: there was no memory, or it had nowhere to write to."""
        if self.oom is not None and self.oom.likely(status):
            return ", likely out of memory"
        disk = os.fstatvfs(self.capture.streams[0])
        full = disk.f_blocks and disk.f_bavail * disk.f_frsize < LEAST_SPACE
        return " (no space left for its output)" if full else ""

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


def _signal_name(number: int) -> str:
    import signal

    try:
        return f"{number} ({signal.Signals(number).name})"
    except ValueError:
        return str(number)

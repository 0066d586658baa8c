"""What is told of commands whose records were lost with the process that ran them: as much as their cells tell."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bossworker.commands.hosting.cells import ENDED, RUNNING, CellContents
from bossworker.commands.hosting.hosting_wire import CRASH, GROUP, REPORTED, EndRecord

HOST_DIED = "the process that runs commands was killed"


class LostRecords:
    """Makes them."""

    def __init__(
        self, how: str, host: str, ended: Mapping[int, int], cause: str = HOST_DIED, kind: str = CRASH
    ) -> None:
        """
        Args:
            how: Where output goes, as in `HostSettings`.
            host: How the process has ended, in brackets; or nothing.
            ended: Pids of commands that had ended by themselves, and were not reaped before; with their status.
            cause: What has happened, in words.
            kind: Of what may have run.
        """
        self._how = how
        self._cause = f"{cause} {host}".rstrip()
        self._ended = ended
        self._kind = kind

    def make(self, job_id: int, cell: CellContents, now: float) -> EndRecord:
        """Of a command that may have run. `now`: Unix seconds; at the latest then it was over."""
        seconds = max(0.0, now - cell.started_at)
        if cell.state == ENDED:
            return self._of_ended(job_id, cell, cell.seconds, cell.status, bool(cell.output))
        if cell.state == RUNNING and cell.pid in self._ended:
            return self._of_ended(job_id, cell, seconds, self._ended[cell.pid], self._how == GROUP)
        what = "it was running" if cell.state == RUNNING else "it may just have started"
        return EndRecord(job_id, self._kind, f"{what} when {self._cause}", None, None, seconds, cell.started_at)

    def _of_ended(self, job_id: int, cell: CellContents, seconds: float, status: int, lost: bool) -> EndRecord:
        value = os.waitstatus_to_exitcode(status)
        code, signal = (value, None) if value >= 0 else (None, -value)
        words = f"exit code {value}" if value >= 0 else f"terminated by signal {-value}"
        kind = "" if not value else REPORTED if value > 0 else CRASH
        if lost:
            kind, words = kind or self._kind, f"{words}, but its output was lost when {self._cause}"
        return EndRecord(job_id, kind, words if kind else "", code, signal, seconds, cell.started_at)

"""Waiting for a job that is somebody else's child: for the end of its command."""

from __future__ import annotations

import os
import select
import time
from types import TracebackType
from typing import Self

from bossworker.commands import record
from bossworker.commands.record import JobRecord
from bossworker.commands.roots import Root
from bossworker.system import identity

FIRST_TICK = 0.001  # seconds between looks where an end cannot be waited for, doubled up to
TICK = 0.05
ELSEWHERE_TICK = 0.5  # of one on another host, perhaps over a network
LONGEST_SLEEP = 3600.0  # seconds; poll takes no more than 24.8 days at once, and a look an hour costs nothing


class JobWatch:
    """Looks at a job, and sleeps until there may be something new."""

    def __init__(self, jobid: str, root: Root = None) -> None:
        self.jobid = jobid
        self.root = root
        self.record = JobRecord("", "")
        self._pidfd = -1
        self._pause = FIRST_TICK

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._unwatch()

    def look(self) -> JobRecord:
        """How it stands now."""
        self.record = record.read(self.jobid, self.root)
        return self.record

    def await_end(self, until: float | None) -> None:
        """Look until the job has ended, or that (monotonic) time."""
        while self.look().may_change and (until is None or time.monotonic() < until):
            self.sleep(until)

    def sleep(self, until: float | None) -> None:
        """Until the command ends, or that (monotonic) time, or some hour passes; look again then.

        Or for an instant, while its last word is being written.
        """
        left = LONGEST_SLEEP if until is None else min(max(0.0, until - time.monotonic()), LONGEST_SLEEP)
        if self._watches():
            poll = select.poll()
            poll.register(self._pidfd, select.POLLIN)
            poll.poll(1000 * left)
        else:
            time.sleep(min(self._pause, left))
            self._pause = min(2 * self._pause, ELSEWHERE_TICK if self.record.elsewhere else TICK)

    def _watches(self) -> bool:
        """Whether there is a descriptor that tells of the command's end."""
        command = self.record.status.get("command")
        if self._pidfd < 0 and hasattr(os, "pidfd_open") and identity.holds(command):
            try:
                self._pidfd = os.pidfd_open(int(command[0]))
            except OSError:
                return False
        # Between the first question and the opening, the command may have ended, and its pid have been given to another
        # process. If it is still there now, the descriptor is its own.
        if identity.holds(command):
            return self._pidfd >= 0
        self._unwatch()
        return False

    def _unwatch(self) -> None:
        if self._pidfd >= 0:
            os.close(self._pidfd)
        self._pidfd = -1

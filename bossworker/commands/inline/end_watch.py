"""Waiting for the end of a command that is a child of ours; nothing is reaped here."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator

from bossworker.commands.inline.interruption import Interruption
from bossworker.commands.quota import TICK
from bossworker.commands.terminal import Terminal
from bossworker.system import identity, processes

RECORD_AFTER = 0.005  # seconds; a command that ends sooner goes from "created" to its end, and saves a file for it
LONGEST_WAIT = 60.0  # seconds between looks at one that has neither limits nor a terminal

_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.02  # seconds, where an end can only be looked for


def waits(limited: bool) -> Iterator[float]:
    """For how many seconds to wait until the next look at a command that has been put on record."""
    seconds = TICK if limited else RECORD_AFTER
    while True:
        yield seconds
        if not limited:  # a look is cheap, and few are needed: each after four times as long as the one before
            seconds = min(4 * seconds, LONGEST_WAIT)


class EndWatch:
    """Waits for one child's end, and copies meanwhile what comes over its terminal, if it has one."""

    def __init__(self, pid: int, terminal: Terminal | None, interruption: Interruption) -> None:
        """JobTimeout passes through as we sleep, at no other time: what it cuts off would be lost."""
        self._pid = pid
        self._terminal = terminal
        self._interruption = interruption
        self._ended = processes.pidfd(pid)

    def wait(self, seconds: float) -> bool:
        """Whether it has ended within this time."""
        return self._look(seconds) if self._ended is None else self._poll(self._ended, seconds)

    def close(self) -> None:
        """Give up the descriptor."""
        if self._ended is not None:
            os.close(self._ended)
        self._ended = None

    def _poll(self, ended: int, seconds: float) -> bool:
        poll = select.poll()
        poll.register(ended, select.POLLIN)
        if self._terminal is not None:
            poll.register(self._terminal.fd, select.POLLIN)
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self._interruption.let_through()
            # JobTimeout may be raised here, and up to the next line: nothing has been reaped or copied by then, so what
            # this call has found is found again.
            found = dict(poll.poll(left * 1000))
            self._interruption.hold_back()
            if self._terminal is not None and self._terminal.fd in found and not self._terminal.take():
                poll.unregister(self._terminal.fd)
            if ended in found:
                return True
        return False

    def _look(self, seconds: float) -> bool:
        """Where there are no descriptors of processes."""
        until = time.monotonic() + seconds
        pause = _FIRST_PAUSE
        while identity.start_time(self._pid) is not None:
            left = until - time.monotonic()
            if left <= 0:
                return False
            self._interruption.let_through()
            time.sleep(min(pause, left))
            self._interruption.hold_back()
            if self._terminal is not None:
                self._terminal.take()
            pause = min(2 * pause, _LONGEST_PAUSE)
        return True

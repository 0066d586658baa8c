"""A pipe that is readable once a signal has come, for whoever sleeps in a poll.

A signal that comes after Python has last looked for one, but before the poll's system call, does not end that call: its
handler would run when something else does. Python's C handler writes to this pipe, however, at once.
"""

from __future__ import annotations

import os
from contextlib import suppress

from bossworker.system.cpython import signal


class SignalPipe:
    """Around what polls it. Of the main thread's program there is one at a time, and the innermost hears."""

    def __enter__(self) -> SignalPipe:
        self._reading, self._writing = os.pipe()
        for fd in (self._reading, self._writing):
            os.set_blocking(fd, False)
        self._before = signal.set_wakeup_fd(self._writing, warn_on_full_buffer=False)
        return self

    def __exit__(self, *error: object) -> None:
        signal.set_wakeup_fd(self._before)
        os.close(self._reading)
        os.close(self._writing)

    def fileno(self) -> int:
        """To be polled for reading."""
        return self._reading

    def drain(self) -> None:
        """Whoever was woken says so, or the next poll returns at once. Handlers run in any case."""
        with suppress(BlockingIOError):
            # Before the signals' consequences are looked at: one that comes behind that look writes again, and the next
            # poll returns at once.
            while os.read(self._reading, 4096):
                pass

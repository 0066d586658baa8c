"""How a thread sleeps until a child ends or another thread has news. No SIGCHLD handler: that one is the program's."""

from __future__ import annotations

import os
import select
from collections.abc import Sequence
from itertools import chain
from operator import call

from bossworker.system import processes
from bossworker.system.one_step import take_steps

TICK_SECONDS = 0.01  # between two looks at children that cannot be watched
MOST_WATCHED = 200  # children, a descriptor each while a thread sleeps; more would eat into the program's own
_LONGEST_SECONDS = 86_400.0  # poll counts milliseconds in 32 bits


class Sleeper:
    """One sleep of one thread. Made under the lock, after a look that found nothing: so no news can be missed."""

    def __init__(self) -> None:
        self._woken = False
        self._fds: list[int] = []
        self._fds.extend(chain.from_iterable(map(call, (os.pipe,))))  # no signal handler runs before they are in there

    def wake(self) -> None:
        """End the sleep, also one that has not begun."""
        # In this order: Ctrl-C in between has the next one write once more. The other way round, nobody would.
        if not self._woken:
            os.write(self._fds[1], b"!")
            self._woken = True

    def sleep(self, pids: Sequence[int], seconds: float | None) -> None:
        """Until one of these children ends, somebody calls `wake`, the time is up; or for no reason."""
        poll = select.poll()
        poll.register(self._fds[0], select.POLLIN)
        watched: list[int] = []
        try:
            for pid in pids[:MOST_WATCHED]:
                _watch(pid, poll, watched)
            if len(watched) < len(pids):
                seconds = TICK_SECONDS if seconds is None else min(seconds, TICK_SECONDS)
            poll.poll(None if seconds is None else min(max(seconds, 0), _LONGEST_SECONDS) * 1000)
        finally:
            for fd in watched:
                os.close(fd)

    def close(self) -> None:
        """Give the descriptors back."""
        closing = map(os.close, self._fds)
        self._fds = []
        take_steps(closing)  # no signal handler has run since `closing` was made

    def __del__(self) -> None:
        """A Ctrl-C can come in the middle of `close`, or before it; or even before there is anything."""
        if hasattr(self, "_fds"):
            self.close()


def _watch(pid: int, poll: select.poll, watched: list[int]) -> None:
    """Have the poll end when a child does, where that can be had."""
    fd = processes.pidfd(pid)
    if fd is not None:
        watched.append(fd)
        poll.register(fd, select.POLLIN)

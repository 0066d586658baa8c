"""How a thread sleeps until a child ends or another thread has news. No SIGCHLD handler: that one is the program's."""

from __future__ import annotations

import os
import select
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from operator import call

TICK_SECONDS = 0.01  # between two looks at children that cannot be watched
MOST_WATCHED = 200  # children, a descriptor each while a thread sleeps; more would eat into the program's own
_LONGEST_SECONDS = 86_400.0  # poll counts milliseconds in 32 bits


class Sleeper:
    """One sleep of one thread. Made under the lock, after a look that found nothing: so no news can be missed."""

    __slots__ = ("__del__", "__weakref__", "_fds", "_woken", "close")

    close: Callable[[], object]
    """Give the descriptors back, unless that has been done."""

    def __init__(self) -> None:
        self._woken = False
        self._fds: list[int] = []
        # One call into C, which runs through the list as it is then: a signal handler that raises comes before it or
        # after it. The destructor is the same call, and not a function of Python's: such a handler would end that one
        # before its first line, and nobody would close them any more.
        self.close = self.__del__ = partial(next, filter(None, map(os.close, self._fds)), None)
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
        watched = sum(self._watch(pid, poll) for pid in pids[:MOST_WATCHED])
        if watched < len(pids):
            seconds = TICK_SECONDS if seconds is None else min(seconds, TICK_SECONDS)
        poll.poll(None if seconds is None else min(max(seconds, 0), _LONGEST_SECONDS) * 1000)

    def _watch(self, pid: int, poll: select.poll) -> bool:
        """Have the poll end when a child does; False where that cannot be had."""
        try:
            self._fds.extend(map(os.pidfd_open, (pid,)))
        except (AttributeError, OSError):  # not Linux, or no descriptor is left, or it is no child any more
            return False
        poll.register(self._fds[-1], select.POLLIN)
        return True

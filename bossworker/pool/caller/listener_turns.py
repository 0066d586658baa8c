"""Which of a program's threads listens to the boss: one at a time, whichever needs something from it.

There is no thread of our own that listens for all of them, though that would be simpler, for three reasons: a program
that forks would fork while it has a thread, of which CPython warns from 3.12 on; the child of such a fork could find
any lock that our thread held taken for ever; and a result would cross a thread switch on its way, which costs more than
all else that the caller does for it.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress


class ListenerTurns:
    """Gives one thread at a time its turn to listen; the others wait until it has news for them, or leaves.

    Args:
        vacated: Called once closed, by the last thread to leave. It may be called more than once.
    """

    def __init__(self, vacated: Callable[[], None]) -> None:
        self._vacated = vacated
        # It can be taken twice by one thread: a signal handler may close the connection while its thread has the lock.
        self._lock = threading.RLock()
        self.taken = False  # whether a thread listens now
        self.closed = False  # no thread may begin to
        self.waiters: deque[_Waiter] = deque()

    def take(self, listen: Callable[[], object]) -> bool:
        """Call `listen` when no other thread does so now; whether it was called."""
        mine = False
        try:
            with self._lock:
                if not self.taken and not self.closed:
                    # No signal handler runs between the two assignments, or nobody would ever listen again: see Inbox.
                    self.taken = mine = True
            if mine:
                listen()
        finally:
            if mine:
                self.taken = False
                self._leave()
        return mine

    def wait(self, ready: Callable[[], bool], seconds: float | None) -> None:
        """Sleep until the thread that listens has news or leaves, for at most `seconds`."""
        waiter = _Waiter()
        self.waiters.append(waiter)
        try:
            # The listener may have left, or have brought the news, before it could see us among the waiters.
            if self.taken and not ready():
                waiter.wait(seconds)
        finally:
            with suppress(ValueError):
                self.waiters.remove(waiter)
            self._leave()

    def wake_waiters(self) -> None:
        """Make the threads that wait look at their condition again."""
        for waiter in list(self.waiters):
            waiter.wake()

    def close(self) -> None:
        """Let no thread listen any more; the last to leave, or else this one, gives back what was listened to."""
        self.closed = True
        with self._lock:
            if not self.taken and not self.waiters:
                self._vacated()

    def _leave(self) -> None:
        self.wake_waiters()  # one of them takes over
        if self.closed:
            self.close()


class _Waiter:
    """Wakes one thread, once. (A Condition must take its lock again when it is interrupted, and can fail in that.)"""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float | None) -> None:
        self._lock.acquire(True, -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken before
            self._lock.release()

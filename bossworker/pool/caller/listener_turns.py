"""Which of a program's threads listens to the boss: one at a time, whichever needs something from it.

There is no thread of our own that listens for all of them, though that would be simpler, for three reasons: a program
that forks would fork while it has a thread, of which CPython warns from 3.12 on; the child of such a fork could find
any lock that our thread held taken for ever; and a result would cross a thread switch on its way, which costs more than
all else that the caller does for it.

For the same reason, whoever waits for something that takes its time, as a reader of events does, is *patient*: it
leaves its turn to any thread that wants one, and takes another only once nobody has had one for an instant. Meanwhile
it sleeps: the others wake it when its own has come, and not for each result.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress

PATIENCE_SECONDS = 0.1  # after the last turn of somebody who is not patient


class ListenerTurns:
    """Gives one thread at a time its turn to listen; the others wait until it has news for them, or leaves.

    Args:
        vacated: Called once closed, by the last thread to leave. It may be called more than once.
    """

    def __init__(self, vacated: Callable[[], None]) -> None:
        self._vacated = vacated
        # It can be taken twice by one thread: a signal handler may close the connection while its thread has the lock.
        self._lock = threading.RLock()
        self.taken = False  # whether a thread listens now,
        self.patient = False  # and would rather that another did
        self.closed = False  # no thread may begin to
        self.waiters: deque[_Waiter] = deque()  # that are not patient
        self._patient_waiters: deque[_Waiter] = deque()
        self._wanted_at = -PATIENCE_SECONDS  # when somebody who is not patient last had a turn, or wanted one

    def take(self, listen: Callable[[], object], patient: bool = False) -> bool:
        """Call `listen` when no other thread does so now; whether it was called."""
        mine = False
        try:
            with self._lock:
                if not self.taken and not self.closed and not (patient and self._wanted()):
                    self.patient = patient
                    # No signal handler runs between the two assignments, or nobody would ever listen again: see Inbox.
                    self.taken = mine = True
            if mine:
                listen()
        finally:
            if mine:
                # First the turn, then the others: one that is woken, or that is just about to sleep, must find it free.
                # The other way round, it would find it taken, sleep, and be woken by nobody.
                self.taken = False
                try:
                    self._pass_on(patient)
                except BaseException:  # Ctrl-C, before all were woken: nobody else would wake them
                    self._pass_on(patient)
                    raise
        return mine

    def _pass_on(self, patient: bool) -> None:
        """We listen no more. (May be called twice.)"""
        if not patient:
            self._wanted_at = time.monotonic()
        self._leave(patient)

    def _wanted(self) -> bool:
        """Whether there is somebody who is not patient."""
        return bool(self.waiters) or time.monotonic() < self._wanted_at + PATIENCE_SECONDS

    def claim(self) -> None:
        """Have those who are patient take no turn for now. (One of them that has it now must be made to leave.)"""
        self._wanted_at = time.monotonic()

    def wait(self, ready: Callable[[], bool], seconds: float | None) -> None:
        """Sleep until the thread that listens has news or leaves, for at most `seconds`."""
        self._sleep(self.waiters, _Waiter(), lambda: self.taken and not ready(), seconds)

    def wait_patiently(self, ready: Callable[[], bool], seconds: float | None) -> None:
        """The same, though the thread that listens may leave and come back many times, until `ready()`.

        At first it is looked for as long as a thread may be away. If one listens then, it may do so for hours: the next
        time that it leaves we are to be told.
        """
        pause = PATIENCE_SECONDS if seconds is None else min(seconds, PATIENCE_SECONDS)
        self._sleep(self._patient_waiters, _Waiter(ready), lambda: not ready(), pause)
        rest = None if seconds is None else seconds - pause
        if rest is None or rest > 0:
            self._sleep(self._patient_waiters, _Waiter(), lambda: self.taken and not ready(), rest)

    def _sleep(self, waiters: deque[_Waiter], waiter: _Waiter, must: Callable[[], bool], seconds: float | None) -> None:
        patient = waiters is self._patient_waiters
        try:
            # In this order. Whoever listens leaves its turn, then wakes those that are listed: if it does so before we
            # are on the list, `must` sees that it has left; if after, it wakes us.
            waiters.append(waiter)
            # The listener may have left, or have brought the news, before it could see us among the waiters.
            if must() and not self.closed:
                waiter.wait(seconds)
        finally:
            try:
                waiters.remove(waiter)  # no signal handler runs before this, which is C
            except ValueError:  # one has run before it was among them
                pass
            try:
                self._leave(patient)
            except BaseException:  # see `take`
                self._leave(patient)
                raise

    def wake_waiters(self) -> None:
        """Make the threads that wait look at their condition again."""
        for waiter in [*self.waiters, *self._patient_waiters]:
            waiter.wake()

    def close(self) -> None:
        """Let no thread listen any more; the last to leave, or else this one, gives back what was listened to."""
        # Before the look: a thread that is about to listen finds this, or is found here to be listening, and then is
        # the one that gives back.
        self.closed = True
        with self._lock:
            if not self.taken and not self.waiters and not self._patient_waiters:
                self._vacated()

    def _leave(self, patient: bool) -> None:
        """One of those who wait takes over. (If we are back in an instant, those who are patient need not know.)"""
        for waiter in [*self.waiters, *self._patient_waiters]:
            if patient or self.closed or waiter.is_due():
                waiter.wake()
        if self.closed:
            self.close()


class _Waiter:
    """Wakes one thread, once. (A Condition must take its lock again when it is interrupted, and can fail in that.)

    `ready`: what it has to be for it to be woken by a thread that comes back; None: it is to be woken in any case.
    """

    def __init__(self, ready: Callable[[], bool] | None = None) -> None:
        self._ready = ready
        self._lock = threading.Lock()
        self._lock.acquire()

    def wait(self, seconds: float | None) -> None:
        self._lock.acquire(True, -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX))

    def is_due(self) -> bool:
        return self._ready is None or self._ready()

    def wake(self) -> None:
        with suppress(RuntimeError):  # it has been woken before
            self._lock.release()

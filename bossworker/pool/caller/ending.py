"""How a pool ends: in order, soon, or at once."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.wire.messages import Kind
from bossworker.system import signals
from bossworker.system.callers_line import warn_caller

if TYPE_CHECKING:
    from bossworker.pool.caller.futures import OpenFutures
    from bossworker.pool.caller.own_page import OwnPage
    from bossworker.pool.door.listening import Door

ENDING_TICK = 0.001  # seconds between looks whether another thread is through with it
LEAVE_SECONDS = 1.0  # beyond kill_grace, for workers that were told to stop to leave in order


class PoolEnding:
    """The three ways. Each leaves a handle that has ended; but for `in_order`, which may be interrupted or give up."""

    def __init__(
        self, connection: Connection, inbox: Inbox, outbox: Outbox, state: HandleState, books: Sequence[OpenFutures]
    ) -> None:
        self._connection = connection
        self._inbox = inbox
        self._outbox = outbox
        self._state = state
        self._books = books  # those of the handle: it may get more of them
        self.doors: list[Door] = []  # that are open, or were
        self.pages: list[OwnPage] = []  # the same
        self.opening_page = threading.RLock()
        self.over = False  # whether nothing is left that would have to be closed
        self._ender = 0  # the thread that lets the boss go just now; 0: none

    def in_order(self, timeout: float | None) -> None:
        """What is queued is done, the workers leave, the results stay. TimeoutError after this many seconds."""
        line = self._connection
        deadline = None if timeout is None else time.monotonic() + timeout
        # No job can be sent behind this: whoever adds some holds the outbox's lock, or finds it closed.
        self._outbox.close(timeout)
        if not line.wait_until(lambda: line.said.orderly, deadline) and not (line.gone or line.closed):
            raise TimeoutError(f"the pool was not through with its work after {timeout} seconds")
        if not line.said.orderly:
            self._state.look_back()
        with signals.held():
            self._let_boss_go(force=False)
            self._connection.close(keep_sign=self._state.fileno_used)
        self._close_books()
        self.over = not self._state.fileno_used
        self._warn_of_exit_errors()
        self._state.check_alive()

    def soon(self, kill_grace: float) -> None:
        """Running handlers get JobTimeout, and this many seconds to tidy up; the rest is ended at once."""
        line, state = self._connection, self._state
        try:
            if not state.ended and not line.gone:
                state.closing = True
                line.send(Kind.STOP)
                line.wake()
                line.wait_until(lambda: line.said.orderly, time.monotonic() + kill_grace + LEAVE_SECONDS)
        finally:
            self.at_once()

    def at_once(self) -> None:
        """Nothing is left within a second, neither processes nor results."""
        with signals.held():  # what raises in between would leave a boss that nobody waits for
            self._connection.before_drop()
            self._state.fileno_used = False
            self._inbox.clear()
            self._let_boss_go(force=True)
            # Until the boss was gone, another thread may have taken results in.
            self._inbox.clear()
            self._connection.close()
        self._close_books()
        self.over = True

    def _close_books(self) -> None:
        for book in self._books:
            book.close()
        while self.pages:
            self.pages.pop().close()
        while self.doors:
            self.doors.pop().close()

    def _let_boss_go(self, force: bool) -> None:
        self._state.closing = True
        thread = threading.get_ident()
        # Two threads may end the pool at once. Between this look and the marks below there is no call, so one of them
        # ends it. The other finds both marks: with `ended` alone, it would take the processes for gone already.
        if self._state.ended:
            self.await_end()
            return
        self._ender, self._state.ended = thread, True
        try:
            self._connection.end(force)
        finally:
            self._ender = 0

    def await_end(self) -> None:
        """Another thread is ending the pool: its processes are gone once it is through, which does not take long."""
        # But we may be a signal handler that has interrupted the very thread that is at it, which does not get on
        # before we return.
        while self._ender not in (0, threading.get_ident()):
            time.sleep(ENDING_TICK)

    def _warn_of_exit_errors(self) -> None:
        errors = list(self._connection.said.exit_errors.values())
        if errors:
            where = "one worker" if len(errors) == 1 else f"{len(errors)} workers, first"
            warn_caller(f"exit_handler raised in {where}: {errors[0]}", RuntimeWarning)

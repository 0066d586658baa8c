"""A task's connection to its supervisor, for all the threads of a process, and not for those it forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from bossworker.system.one_step import taken_at_once
from bossworker.tasks.errors import TaskGone, TaskRefused
from bossworker.tasks.wire.control_connection import ANSWER_SECONDS, ControlConnection, Silent
from bossworker.tasks.wire.protocol import Frame

T = TypeVar("T")

MOST_KEPT = 100  # connections: a program may hold on to thousands of tasks, and need its descriptors for other things


class SharedConnection:
    """One connection, made when it is needed, and kept unless this process has very many.

    A request and its answer are one thread's at a time. A signal handler that asks while the thread that it interrupted
    waits for an answer would take that one for its own: it gets a connection for itself.

    A forked child has a copy of its parent's connection, and would take the parent's answers: it makes one of its own.
    """

    def __init__(self, connect: Callable[[], ControlConnection]) -> None:
        """`connect` makes a connection, or raises TaskGone."""
        self._connect = connect
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedConnection, (self._connect,)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._connection: ControlConnection | None = None
        self._busy = False  # a request is under way
        self._owner = os.getpid()

    def connect(self) -> None:
        """Connect, unless we are. TaskGone."""
        self._alone(self._connected, None)

    def disconnect(self) -> None:
        """Hang up, if there is a connection and no request is under way on it."""
        with suppress(Silent):
            self._alone(self._hang_up_if_idle, 0.0)

    def ask(
        self, request: dict[str, Any], body: bytes | memoryview = b"", seconds: float | None = 0.0, again: bool = True
    ) -> Frame:
        """See `ControlConnection.ask`.

        Args:
            again: Ask once more on a new connection when an old one was found dead.
        """
        patience = None if seconds is None else seconds + ANSWER_SECONDS
        return self._alone(lambda: self._ask_once_or_again(request, body, seconds, again), patience)

    def _ask_once_or_again(
        self, request: dict[str, Any], body: bytes | memoryview, seconds: float | None, again: bool
    ) -> Frame:
        # The lock lets its own thread in again: other threads wait for it, and never see this.
        if self._busy:  # a signal handler's, amid a request of the same thread
            return self._ask_apart(request, body, seconds)
        kept = self._connection is not None
        try:
            return self._ask(request, body, seconds)
        except TaskGone as error:
            if isinstance(error, Silent) or not (kept and again):
                raise
        return self._ask(request, body, seconds)

    def _ask(self, request: dict[str, Any], body: bytes | memoryview, seconds: float | None) -> Frame:
        try:
            self._busy = True
            return self._connected().ask(request, body, seconds)
        except TaskRefused:
            raise
        except BaseException:  # whatever is still to come would be taken for the next answer
            self._hang_up()
            raise
        finally:
            self._busy = False
            if len(ControlConnection.open) > MOST_KEPT:
                self._hang_up()

    def _ask_apart(self, request: dict[str, Any], body: bytes | memoryview, seconds: float | None) -> Frame:
        connection = self._connect()
        try:
            return connection.ask(request, body, seconds)
        finally:
            connection.close()

    def _connected(self) -> ControlConnection:
        if self._connection is None:
            self._connection = self._connect()
        return self._connection

    def _hang_up_if_idle(self) -> None:
        if not self._busy:
            self._hang_up()

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _alone(self, act: Callable[[], T], seconds: float | None) -> T:
        """Call it with our lock taken. Silent: others need it for longer than this many seconds.

        (This is no context manager: one that is written in Python may be interrupted before it gives a lock back.)
        """
        if self._owner != os.getpid():
            with _forked:
                # Asked again under the lock: of the child's threads that come at once, one begins anew, and the others
                # must not take its connection away.
                if self._owner != os.getpid():
                    self._begin()
        lock, held = self._lock, list[bool]()
        try:
            if not taken_at_once(lock, held, -1 if seconds is None else min(seconds, threading.TIMEOUT_MAX)):
                raise Silent("another thread's request to the supervisor is not answered in time")
            return act()
        finally:
            if held:
                lock.release()


_forked = threading.RLock()
"""Held while a forked child's first thread to use a line begins it anew. A signal handler may come in between."""


def _begin_forked() -> None:
    global _forked
    _forked = threading.RLock()


os.register_at_fork(after_in_child=_begin_forked)

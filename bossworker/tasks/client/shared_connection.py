"""A task's connection to its supervisor, for all the threads of a process, and not for those it forks."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from bossworker.tasks.errors import TaskGone, TaskRefused
from bossworker.tasks.wire.control_connection import ANSWER_SECONDS, ControlConnection, Silent
from bossworker.tasks.wire.protocol import Frame

if TYPE_CHECKING:
    from bossworker.tasks.client.task_pool import TaskPool

MOST_KEPT = 100  # connections: a program may hold on to thousands of tasks, and need its descriptors for other things


class SharedConnection:
    """One connection, made when it is needed, and kept unless this process has very many.

    A request and its answer are one thread's at a time.

    A forked child has a copy of its parent's connection, and would take the parent's answers: it makes one of its own.
    """

    def __init__(self, pool: TaskPool, pid: int) -> None:
        self._pool = pool
        self._pid = pid
        self._begin()

    def __reduce__(self) -> tuple[Any, ...]:
        return SharedConnection, (self._pool, self._pid)

    def _begin(self) -> None:
        self._lock = threading.RLock()
        self._connection: ControlConnection | None = None
        self._owner = os.getpid()

    def connect(self) -> None:
        """Connect, unless we are. TaskGone."""
        with self._taken(None):
            self._connected()

    def disconnect(self) -> None:
        """Hang up, if we are connected."""
        with self._taken(None):
            self._hang_up()

    def ask(
        self, request: dict[str, Any], body: bytes | memoryview = b"", seconds: float | None = 0.0, again: bool = True
    ) -> Frame:
        """See `Connection.ask`.

        Args:
            again: Ask once more on a new connection when an old one was found dead.
        """
        with self._taken(seconds):
            kept = self._connection is not None
            try:
                return self._ask(request, body, seconds)
            except TaskGone as error:
                if isinstance(error, Silent) or not (kept and again):
                    raise
            return self._ask(request, body, seconds)

    def _ask(self, request: dict[str, Any], body: bytes | memoryview, seconds: float | None) -> Frame:
        try:
            return self._connected().ask(request, body, seconds)
        except TaskRefused:
            raise
        except BaseException:  # whatever is still to come would be taken for the next answer
            self._hang_up()
            raise
        finally:
            if len(ControlConnection.open) > MOST_KEPT:
                self._hang_up()

    def _connected(self) -> ControlConnection:
        if self._connection is None:
            self._connection = self._pool.connect(self._pid)
        return self._connection

    def _hang_up(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _taken(self, seconds: float | None) -> _Taken:
        if self._owner != os.getpid():
            with _forked:
                if self._owner != os.getpid():
                    self._begin()
        return _Taken(self._lock, seconds)


class _Taken:
    """A lock for the time of a with block, or Silent when others need it for too long."""

    def __init__(self, lock: Any, seconds: float | None) -> None:
        self._lock = lock
        self._timeout = -1.0 if seconds is None else min(seconds + ANSWER_SECONDS, threading.TIMEOUT_MAX)

    def __enter__(self) -> None:
        if not self._lock.acquire(timeout=self._timeout):
            raise Silent("another thread's request to the supervisor is not answered in time")

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_forked = threading.Lock()
"""Held while a forked child's first thread to use a line begins it anew."""


def _begin_forked() -> None:
    global _forked
    _forked = threading.Lock()


os.register_at_fork(after_in_child=_begin_forked)

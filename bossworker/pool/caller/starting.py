"""How a pool comes up: its processes are started, its handle is put together, and its workers are waited for."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from bossworker.errors import WorkerStartError
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.controls import prepare_of
from bossworker.pool.caller.ending import PoolEnding
from bossworker.pool.caller.handles import register
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.launch import launch
from bossworker.pool.options import Handlers, Options
from bossworker.system import processes, signals, stdio

if TYPE_CHECKING:
    from bossworker.pool.caller.futures import OpenFutures
    from bossworker.pool.caller.journaled import OpenJournal


class PoolStart:
    """The part of a `BossWorker` that does so. Other kinds of pools replace some of the steps."""

    _connection_type = Connection
    _state_type = HandleState
    _waits_to_start = False  # whether `_launch` waits for others, who may be far away
    _journal: OpenJournal | None = None
    _options: Options
    _inbox: Inbox
    _books: list[OpenFutures]

    def _disown(self) -> None:
        raise NotImplementedError

    def _warn_of_neglect(self) -> None:
        raise NotImplementedError

    def _start(self, handlers: Handlers) -> None:
        try:
            self._open_journal()
            with signals.held(), stdio.stdio_reserved():
                self._launch(handlers)
        except OSError as error:
            if error.errno is None:  # what a signal handler of the program's raises, a TimeoutError for instance
                raise
            reason = processes.describe_shortage(error.errno, error.strerror)
            raise WorkerStartError(f"the pool's processes could not be started: {reason}") from error
        self._await_start()

    def _launch(self, handlers: Handlers) -> None:
        if self._journal is not None:
            connection = self._journal.launch(handlers, self._options, self._connection_type, self._inbox)
        else:
            launched = launch(handlers, self._options)
            try:
                connection = self._connection_type(launched, self._inbox)
            except BaseException:
                launched.abandon()
                raise
        self._attach(connection, prepare_of(handlers))

    def _open_journal(self) -> None:
        """JournalInUse, JournalError."""
        if self._options.journal and self._journal is None:
            from bossworker.pool.caller.journaled import OpenJournal  # which is for those pools that have one

            self._journal = OpenJournal(self._options)

    def _attach(self, connection: Connection, prepare: Callable[[Any], Any] | None) -> None:
        """Put the handle together, once it has a connection."""
        self._connection = connection
        self._connection.said.pool = self._options.name
        self._waiters = self._connection.turns.waiters
        self._state = self._state_type(self._connection, self._inbox)
        self._outbox = self._outbox_type()(self._connection, self._inbox, self._state, self._options, prepare)
        if self._journal is not None:
            self._journal.attach(self._outbox, self._state)
        self._ending = PoolEnding(self._connection, self._inbox, self._outbox, self._state, self._books)
        register(self)

    def _outbox_type(self) -> type[Outbox]:
        return Outbox if self._journal is None else self._journal.outbox_type

    def _await_start(self) -> None:
        line = self._connection
        line.wait_until(lambda: line.said.up or bool(line.said.failure))
        if not line.said.up:
            raise WorkerStartError(line.why_not_up())
        if self._journal is not None:
            self._journal.await_recovery()

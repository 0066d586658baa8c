"""A pool of another program, seen and steered as a whole, through its door: by ``bossworker ps``, ``top``, a page."""

from __future__ import annotations

import os
import weakref
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NoReturn, Self

from bossworker.errors import PoolClosed
from bossworker.pool.caller.operating import Operator
from bossworker.pool.door import addresses
from bossworker.pool.door.listening import ClientInfo
from bossworker.pool.door.operator_line import OperatorLine
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import ProtocolError
from bossworker.system.checks import check_path, check_seconds
from bossworker.watch.chrome_trace import write_trace
from bossworker.watch.pool_events import EventReader, check_since, memory_points, unpack_events

STACK_SECONDS = 1.5  # beyond the others': the boss waits a second for a worker that does not answer


class RemoteOperator(Operator):
    """A pool of this user's in another program, seen and steered as a whole. Made by :func:`operate`.

    It adds no jobs: `bossworker.connect` does. May be used from several threads. A context manager. Every method raises
    PoolClosed once the pool is gone, and TimeoutError when it does not answer in time.
    """

    def __init__(self, address: addresses.Address, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._line = OperatorLine(address, seconds)
        self._readers: weakref.WeakSet[OperatorLine] = weakref.WeakSet()  # a reader that is dropped hangs up
        self._closed = False
        told = self._line.told
        super().__init__(told["pool"], self._request)
        self.address = address.text
        """Of the door."""
        self.boss_pid: int = told["boss_pid"]
        """Process id of its boss,"""
        self.owner_pid: int = told["owner_pid"]
        """and of the program that made it."""
        self.program: str = told["program"]
        """What that program is called."""
        self.since: float = told["since"]
        """When the door was opened: Unix seconds."""
        self.options: Mapping[str, Any] = told["options"]
        """``global_timeout``, ``worker_count``, ``kill_grace`` and ``retries``, as the pool was made."""

    def _request(self, told: Mapping[str, Any]) -> dict[str, Any]:
        more = STACK_SECONDS if told["op"] == "stack" else 0.0
        return self._line.ask(self._seconds + more, **told)

    @property
    def clients(self) -> tuple[ClientInfo, ...]:
        """Who adds jobs through the same door."""
        return tuple(ClientInfo(**client) for client in self._line.ask(self._seconds, "clients")["clients"])

    def events(self, since: int | None = None) -> EventReader:
        """What happens in the pool, as it happens: as ``BossWorker.events``. It has a connection of its own."""
        line = OperatorLine(self._address, self._seconds)
        self._readers.add(line)
        if self._closed:  # before, or while we were connecting
            line.close()
            raise PoolClosed("this operator was closed")

        def ask(seen: int, wait: bool) -> Mapping[str, Any] | None:
            try:
                return line.ask(None, "events", seen=seen, wait=wait)
            except PoolClosed:
                return None

        return EventReader(ask, check_since(since))

    def trace(self, path: str | os.PathLike[str]) -> None:
        """Write the last events to a file in Chrome's trace format: as ``BossWorker.trace``."""
        check_path("path", path)
        answer = self._line.ask(self._seconds, "events", seen=0, wait=False)
        write_trace(path, self.name, self.boss_pid, unpack_events(answer, 0), memory_points(answer))

    def close(self) -> None:
        """Hang up. Readers of `events` come to their end. May be called again."""
        self._closed = True
        for line in (self._line, *self._readers):
            line.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __reduce__(self) -> NoReturn:
        raise TypeError("an operator is a connection of its process: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<RemoteOperator of {self.name} at {self.address}>"


def operate(address_or_name: str, *, timeout: float = 5) -> RemoteOperator:
    """Look at a pool of this user's, and steer it: figures of all workers, events, stacks, cancel, pause, resize.

    The pool has been opened by ``pool.listen()``, with pickles or with JSON. What comes from it is data: nothing of it
    is run, and it may be of another version of Python.

    Args:
        address_or_name: Its name, or the address of its door, which has a path: ``ipc://PATH``.
        timeout: Seconds to wait for an answer, to this and to each request.

    Raises:
        TypeError, ValueError: An argument is wrong.
        ConnectionRefusedError: There is no such pool.
        TimeoutError: It does not answer.
        DoorRefused: It is another user's.
    """
    address = operated(address_or_name)
    try:
        return RemoteOperator(address, check_seconds("timeout", timeout))
    except (LinkClosed, ProtocolError, FileNotFoundError, ConnectionRefusedError) as error:
        raise ConnectionRefusedError(f"there is no pool at {address.text}: {error}") from error


def operated(address_or_name: object) -> addresses.Address:
    """The address of a door at which a pool can be steered. TypeError, ValueError."""
    address = addresses.parse(address_or_name, allow_name=True)
    if address.kind != "ipc":
        raise ValueError(f"address must be ipc://PATH, or the name of a pool: {address.text} cannot be steered")
    return address


def pools() -> list[str]:
    """The addresses of this user's pools that have a door in the user's runtime directory."""
    return [door.text for door in addresses.all_doors()]

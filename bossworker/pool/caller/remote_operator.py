"""A pool of another program, seen and steered as a whole, through its door: by ``bossworker ps``, ``top``, a page."""

from __future__ import annotations

import os
import socket
import sys
import threading
import time
import weakref
from collections.abc import Mapping
from contextlib import suppress
from types import TracebackType
from typing import Any, NoReturn, Self

from bossworker.errors import DoorRefused, PoolClosed
from bossworker.pool.caller.operating import Operator
from bossworker.pool.door import addresses, door_protocol
from bossworker.pool.door.client_link import read_message, shake_hands
from bossworker.pool.door.door_protocol import DOOR_VERSION, OPERATOR
from bossworker.pool.door.listening import ClientInfo
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.zmtp import header_of
from bossworker.system.checks import check_seconds
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.watch.chrome_trace import write_trace
from bossworker.watch.pool_events import EventReader, check_since, memory_points, unpack_events

ANSWER_SECONDS = 5.0  # for the pool to answer
LONGEST_ANSWER = 1 << 28  # bytes


class _Line:
    """A connection: one question after the other, from any thread. PoolClosed when there is nobody any more."""

    def __init__(self, address: addresses.Address, seconds: float) -> None:
        self._where = address.text
        self._lock = threading.Lock()
        self._number = 0
        deadline = time.monotonic() + seconds
        addresses.check_runtime_folder(address.path)
        self._sock = addresses.dial(address.path, seconds)
        try:
            self.told = shake_hands(self._sock, _hello(), deadline)
            if self.told.get("op") != "welcome":
                raise DoorRefused(f"{address.text} does not let us in: {self.told.get('reason')}")
            self._sock.setblocking(True)
        except BaseException:
            self._sock.close()
            raise

    def ask(self, op: str, seconds: float | None = ANSWER_SECONDS, **facts: Any) -> dict[str, Any]:
        """The answer to a request; with None, however long that takes. TimeoutError, PoolClosed."""
        with self._lock:
            self._number += 1
            message = door_protocol.encode({"op": op, "request": self._number, **facts})
            try:
                self._sock.sendall(header_of(len(message)) + message, NO_SIGPIPE)
                answer = self._next_answer(None if seconds is None else time.monotonic() + seconds)
            except (LinkClosed, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise TimeoutError(f"the pool at {self._where} has not answered for {seconds} seconds") from None
                raise PoolClosed(f"the pool at {self._where} is gone") from error
        return answer

    def _next_answer(self, deadline: float | None) -> dict[str, Any]:
        """What answers the last request. What answers one that somebody has given up waiting for is passed over."""
        while True:
            told = door_protocol.decode(read_message(self._sock, deadline, LONGEST_ANSWER))
            if told.get("op") == "reply" and told.get("request") == self._number:
                return told
            if told.get("op") == "error":
                raise ProtocolError(str(told.get("reason")))

    def __del__(self) -> None:
        if hasattr(self, "_sock"):
            self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # so that whoever reads in another thread hears of it
        self._sock.close()


def _hello() -> dict[str, Any]:
    program = os.path.basename(sys.argv[0] or sys.executable)
    return {"op": "hello", "version": DOOR_VERSION, "form": OPERATOR, "program": program, "pid": os.getpid()}


class RemoteOperator(Operator):
    """A pool of this user's in another program, seen and steered as a whole. Made by :func:`operate`.

    It adds no jobs: `bossworker.connect` does. May be used from several threads. A context manager. Every method raises
    PoolClosed once the pool is gone, and TimeoutError when it does not answer for 5 seconds.
    """

    def __init__(self, address: addresses.Address, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._line = _Line(address, seconds)
        self._readers: weakref.WeakSet[_Line] = weakref.WeakSet()  # a reader that is dropped hangs up
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
        return self._line.ask(**told)

    @property
    def clients(self) -> tuple[ClientInfo, ...]:
        """Who adds jobs through the same door."""
        return tuple(ClientInfo(**client) for client in self._line.ask("clients")["clients"])

    def events(self, since: int | None = None) -> EventReader:
        """What happens in the pool, as it happens: as ``BossWorker.events``. It has a connection of its own."""
        line = _Line(self._address, self._seconds)
        self._readers.add(line)
        if self._closed:  # before, or while we were connecting
            line.close()
            raise PoolClosed("this operator was closed")

        def ask(seen: int, wait: bool) -> Mapping[str, Any] | None:
            try:
                return line.ask("events", None, seen=seen, wait=wait)
            except PoolClosed:
                return None

        return EventReader(ask, check_since(since))

    def trace(self, path: str | os.PathLike[str]) -> None:
        """Write the last events to a file in Chrome's trace format: as ``BossWorker.trace``."""
        answer = self._line.ask("events", seen=0, wait=False)
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
        timeout: Seconds to wait for an answer.

    Raises:
        TypeError, ValueError: An argument is wrong.
        ConnectionRefusedError: There is no such pool.
        TimeoutError: It does not answer.
        DoorRefused: It is another user's.
    """
    address = addresses.parse(address_or_name, allow_name=True)
    if address.kind != "ipc":
        raise ValueError(f"address must be ipc://PATH, or the name of a pool: {address.text} cannot be steered")
    try:
        return RemoteOperator(address, check_seconds("timeout", timeout))
    except (LinkClosed, ProtocolError, FileNotFoundError, ConnectionRefusedError) as error:
        raise ConnectionRefusedError(f"there is no pool at {address.text}: {error}") from error


def pools() -> list[str]:
    """The addresses of this user's pools that have a door in the user's runtime directory."""
    return [door.text for door in addresses.all_doors()]

"""A pool of another program, seen and steered as a whole: what ``bossworker ps``, ``top`` and the page stand on."""

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

from bossworker.errors import BossWorkerError, DoorRefused, PoolClosed
from bossworker.pool.boss.stats import Stats, stats_of
from bossworker.pool.door import addresses, door_protocol
from bossworker.pool.door.client_link import read_message, shake_hands
from bossworker.pool.door.door_protocol import DOOR_VERSION, OPERATOR
from bossworker.pool.door.listening import ClientInfo
from bossworker.pool.options import check_workers
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.zmtp import header_of
from bossworker.system.checks import check_count, check_seconds
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.watch.chrome_trace import write_trace
from bossworker.watch.pool_events import (
    Event,
    EventReader,
    check_since,
    last_number,
    memory_points,
    unpack_events,
)

ANSWER_SECONDS = 5.0  # for the pool to answer
LONGEST_ANSWER = 1 << 28  # bytes
ALL_EVENTS = (1 << 32) - 1


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
        if "refused" in answer:
            raise BossWorkerError(f"the pool at {self._where} refuses that: {answer['refused']}")
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


class Operator:
    """A pool of this user's, in another program or in this one, seen and steered as a whole. Made by :func:`operate`.

    It adds no jobs: `bossworker.connect` does. Job ids are the pool's: those of its own program from 1 on, those of
    clients above 2**56. May be used from several threads. A context manager.

    Every method raises PoolClosed once the pool is gone, and TimeoutError when it does not answer for 5 seconds.
    """

    def __init__(self, address: addresses.Address, seconds: float) -> None:
        self._address = address
        self._seconds = seconds
        self._line = _Line(address, seconds)
        self._readers: weakref.WeakSet[_Line] = weakref.WeakSet()  # a reader that is dropped hangs up
        self._closed = False
        told = self._line.told
        self.address = address.text
        """Of the door."""
        self.name: str = told["pool"]
        """What the pool is called."""
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

    def stats(self) -> Stats:
        """The pool at this instant, with each worker's figures."""
        return self.look()[0]

    def look(self) -> tuple[Stats, tuple[ClientInfo, ...]]:
        """The pool at this instant, and the clients of its door."""
        told = self._line.ask("stats")
        return stats_of(told["stats"]), tuple(ClientInfo(**client) for client in told["clients"])

    def recent_events(self, since: int = 0, most: int = 10_000) -> tuple[list[Event], int]:
        """At once: the newest events behind number `since`, at most so many, and the number for the next call.

        The first is a `Missed` when there were more. Costs the pool little, also when it does 100,000 jobs a second.
        """
        check_count("most", most, least=1, most=ALL_EVENTS)
        since = check_since(since) or 0
        answer = self._line.ask("events", seen=since, wait=False, most=most)
        return list(unpack_events(answer, since)), last_number(answer)

    def events(self, since: int | None = None) -> EventReader:
        """What happens in the pool, as it happens: as ``BossWorker.events``. It has a connection of its own."""
        line = _Line(self._address, self._seconds)
        self._readers.add(line)
        if self._closed:  # before, or while we were connecting
            line.close()
            raise PoolClosed("this Operator was closed")

        def ask(seen: int, wait: bool) -> Mapping[str, Any] | None:
            try:
                return line.ask("events", None, seen=seen, wait=wait, most=ALL_EVENTS)
            except PoolClosed:
                return None

        return EventReader(ask, check_since(since))

    def trace(self, path: str | os.PathLike[str]) -> None:
        """Write the last events to a file in Chrome's trace format: as ``BossWorker.trace``."""
        answer = self._line.ask("events", seen=0, wait=False, most=ALL_EVENTS)
        write_trace(path, self.name, self.boss_pid, unpack_events(answer, 0), memory_points(answer))

    def stack(self, job_id: int | None = None) -> str:
        """What a job is doing, or every worker: as ``BossWorker.stack``."""
        return str(self._line.ask("stack", job=job_id)["text"])

    def cancel(self, *ids: int, queued_only: bool = False) -> int:
        """Cancel jobs, whoever has added them; how many were unfinished."""
        return int(self._line.ask("cancel", ids=ids, queued_only=queued_only)["count"])

    def pause(self) -> None:
        """Start no new job from now on: as ``BossWorker.pause``."""
        self._line.ask("pause")

    def resume(self) -> None:
        """Start jobs again."""
        self._line.ask("resume")

    def resize(self, n: int) -> None:
        """Change the number of workers: as ``BossWorker.resize``."""
        self._line.ask("resize", workers=check_workers("n", n))

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
        raise TypeError("an Operator is a connection of its process: it can be neither copied nor pickled")

    def __repr__(self) -> str:
        return f"<Operator of {self.name} at {self.address}>"


def operate(address_or_name: str, *, timeout: float = 5) -> Operator:
    """Look at a pool of this user's, and steer it: figures of all workers, events, stacks, cancel, pause, resize.

    The pool has been opened by ``pool.listen()``, with pickles or with JSON. Nothing that comes from it is unpickled.

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
        return Operator(address, check_seconds("timeout", timeout))
    except (LinkClosed, ProtocolError, FileNotFoundError, ConnectionRefusedError) as error:
        raise ConnectionRefusedError(f"there is no pool at {address.text}: {error}") from error


def pools() -> list[str]:
    """The addresses of this user's pools that have a door in the user's runtime directory."""
    return [door.text for door in addresses.all_doors()]

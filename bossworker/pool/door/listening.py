"""A door as the pool's program sees it: where it is, who is there, and its end."""

from __future__ import annotations

import json
import os
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from bossworker.errors import PoolClosed
from bossworker.pool.door import addresses
from bossworker.pool.door.addresses import Address
from bossworker.pool.door.keys import Keys
from bossworker.pool.door.side_process import SideProcess
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.system import processes, signals

SERVER = "bossworker.pool.door.door_server"
START_SECONDS = 20.0  # for the door to be open; Python and pyzmq take some tenths
ANSWER_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """A client of a door, at one instant. What names it is what it says of itself."""

    identity: str
    program: str
    pid: int
    since: float
    """Unix seconds."""
    connected: bool
    """False: it is away, and what it has is kept for its return."""
    unfinished: int
    """Jobs without a result."""
    waiting: int
    """Results that it has not taken."""
    done: int


class Door:
    """An open door of a pool: other programs come in by :func:`bossworker.connect`. Made by ``pool.listen``.

    It is closed with the pool, or by `close`, or by leaving it as a context manager.
    """

    def __init__(
        self,
        address: Address,
        settings: dict[str, Any],
        boss: socket.socket,
        keys: Keys | None,
        scribe: socket.socket | None = None,
    ) -> None:
        """OSError: it cannot be opened."""
        self.number: int = settings["door"]
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._requests = 0
        self._path = address.path
        listener = addresses.bind_path(address.path) if address.path else None
        self._mark = addresses.mark_of(address.path) if address.path else (0, 0)
        self._process: SideProcess | None = None
        try:
            place = {"address": address.text, "path": address.path, "mark": self._mark}
            told = {**settings, **place, "keys": _told(keys), "journal": scribe is not None}
            self._process = SideProcess(SERVER, told, _descriptors(boss, listener, scribe))
            endpoint = self._await_open()
        except BaseException:
            self.close()
            raise
        finally:
            if listener is not None:
                listener.close()
        self.address = address.text if address.path else endpoint
        """Where it is; of tcp, with the port that was chosen."""

    def _await_open(self) -> str:
        frame = self._next_frame(time.monotonic() + START_SECONDS)
        text = "its process ended" if frame is None else bytes(frame.body).decode()
        if frame is None or frame.kind is not Kind.READY:
            raise OSError(f"no door can be opened: {text}")
        return text

    def _next_frame(self, deadline: float) -> Frame | None:
        """What the door's process says next; None when it is gone, or silent."""
        link = self._process.link if self._process is not None else None
        while link is not None:
            try:
                frames = link.receive()
            except LinkClosed:
                return None
            if frames:
                return frames[-1]
            if not processes.await_fd(link.fileno(), select.POLLIN, max(0.0, deadline - time.monotonic())):
                return None
        return None

    def _ask(self) -> dict[str, Any]:
        if self._owner != os.getpid():
            raise PoolClosed(f"this door belongs to process {self._owner}")
        with self._lock:
            if self._process is None:
                raise PoolClosed("the door is closed")
            self._requests += 1
            with suppress(LinkClosed):
                if (told := self._answer(self._process.link, messages.REQUEST.pack(self._requests))) is not None:
                    return told
        raise PoolClosed("the door is closed: its process has ended, or does not answer")

    def _answer(self, link: Link, number: bytes) -> dict[str, Any] | None:
        deadline = time.monotonic() + ANSWER_SECONDS
        link.send(Kind.STATS, number)
        while (frame := self._next_frame(deadline)) is not None:
            if bytes(frame.head) == number:
                told: dict[str, Any] = json.loads(bytes(frame.body))
                return told
        return None

    @property
    def clients(self) -> tuple[ClientInfo, ...]:
        """Who is there now, and whose results are kept. PoolClosed when the door is closed."""
        return tuple(ClientInfo(**client) for client in self._ask()["clients"])

    @property
    def malformed(self) -> int:
        """How many messages were dropped, because no client of ours would send them."""
        return int(self._ask()["malformed"])

    @property
    def refused(self) -> int:
        """How many were not let in."""
        return int(self._ask()["refused"])

    @property
    def pid(self) -> int:
        """Of the door's process; 0 once it is closed."""
        return self._process.pid if self._process is not None else 0

    def close(self) -> None:
        """Let nobody in, and those who are there out: their jobs are cancelled. May be called again."""
        if self._owner != os.getpid():
            return
        with signals.held():  # which does not take long, and would leave its process to nobody
            process, self._process = self._process, None
            if process is not None:
                process.end()
            if self._path:
                addresses.remove_path(self._path, self._mark)
                self._path = ""

    def _disown(self) -> None:
        """In a forked child: it is the parent's."""
        if self._process is not None:
            self._process.link.drop()
            self._process = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Door {self.address}, {'open' if self._process is not None else 'closed'}>"


def _descriptors(*sockets: socket.socket | None) -> list[int]:
    return [one.fileno() for one in sockets if one is not None]


def _told(keys: Keys | None) -> dict[str, Any] | None:
    if keys is None:
        return None
    return {"public": keys.public, "secret": keys.secret, "clients": sorted(keys.admitted)}

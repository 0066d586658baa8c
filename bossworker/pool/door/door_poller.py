"""What a door's process waits for: sockets of ZeroMQ, and descriptors; awake for an instant where an answer is due.

``zmq.Poller`` does the same in several times the time, which counts at each message.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable
from typing import Any

import zmq

from bossworker.pool.wire.spin import Spin

Reader = Callable[[], None]


class DoorPoller:
    """See the module. Of what clients send, nothing is read while it is to `hold_back`."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sockets: dict[Any, Reader] = {}
        self._readers: dict[int, Reader] = {}
        self._clients: set[Any] = set()  # of both, those from which clients' messages come
        self._want_room: set[int] = set()
        self._held_back = False
        self._spin = Spin()
        self._awake_until = self._asked_at = 0.0

    def watch_socket(self, sock: Any, reader: Reader, clients: bool = False) -> None:
        """Call the reader while there is a message in a socket of ZeroMQ. `clients`: whether it is from clients."""
        self._sockets[sock] = reader
        self._poll.register(sock.getsockopt(zmq.FD), select.POLLIN)
        if clients:
            self._clients.add(sock)

    def watch(self, fd: int, reader: Reader, clients: bool = False) -> None:
        """Call the reader while a descriptor is readable; or writable, where that is wanted."""
        self._readers[fd] = reader
        if clients:
            self._clients.add(fd)
        self._poll.register(fd, self._events(fd))

    def want_room(self, fd: int, wanted: bool) -> None:
        """Whether its reader is also called when there is room for what is to be sent."""
        (self._want_room.add if wanted else self._want_room.discard)(fd)
        self._poll.modify(fd, self._events(fd))

    def hold_back(self, full: bool) -> None:
        """Read nothing from clients for now: they will have to wait. Or read again."""
        if full is not self._held_back:
            self._held_back = full
            for fd in self._clients & self._readers.keys():
                self._poll.modify(fd, self._events(fd))

    def _events(self, fd: int) -> int:
        reading = 0 if self._held_back and fd in self._clients else select.POLLIN
        return reading | (select.POLLOUT if fd in self._want_room else 0)

    def forget(self, fd: int) -> None:
        """Watch it no more."""
        if self._readers.pop(fd, None) is not None:
            self._clients.discard(fd)
            self._want_room.discard(fd)
            self._poll.unregister(fd)

    def stay_awake(self) -> None:
        """Do not fall asleep at once: an answer is due."""
        self._asked_at = time.monotonic()
        self._awake_until = self._spin.until(self._asked_at)

    def wait(self, seconds: float) -> None:
        """Sleep until something is there, at most this long, and have it read."""
        asked_at, self._asked_at = self._asked_at, 0.0
        self._wait(seconds)
        if asked_at:
            self._spin.learn(time.monotonic() - asked_at)

    def _wait(self, seconds: float) -> None:
        while (now := time.monotonic()) < self._awake_until:
            if self._turn(0):
                return
            self._spin.rest(now)
        self._turn(max(0, int(seconds * 1000) + 1))

    def _turn(self, milliseconds: int) -> bool:
        """Whether anything was there."""
        # The descriptor of such a socket tells of changes alone: what it has is asked for before each sleep.
        asked = self._sockets.keys() - self._clients if self._held_back else self._sockets.keys()
        ready = [sock for sock in asked if sock.getsockopt(zmq.EVENTS) & zmq.POLLIN]
        readable = self._poll.poll(0 if ready else milliseconds)
        for sock in ready:
            self._sockets[sock]()
        for fd, _ in readable:
            if fd in self._readers:  # not one of ZeroMQ, nor one that another reader has closed just now
                self._readers[fd]()
        return bool(ready or readable)

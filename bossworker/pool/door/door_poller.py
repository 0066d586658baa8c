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
_READ, _WRITE = select.POLLIN, select.POLLIN | select.POLLOUT


class DoorPoller:
    """See the module."""

    def __init__(self) -> None:
        self._poll = select.poll()
        self._sockets: dict[Any, Reader] = {}
        self._readers: dict[int, Reader] = {}
        self._held_back: Any = None
        self._spin = Spin()
        self._awake_until = 0.0

    def watch_socket(self, sock: Any, reader: Reader) -> None:
        """Call the reader while there is a message in a socket of ZeroMQ."""
        self._sockets[sock] = reader
        self._poll.register(sock.getsockopt(zmq.FD), select.POLLIN)

    def hold_back(self, sock: Any) -> None:
        """Do not look at this one (None: look at all)."""
        self._held_back = sock

    def watch(self, fd: int, reader: Reader) -> None:
        """Call the reader while a descriptor is readable, and of those for which `want_room` holds, writable."""
        self._readers[fd] = reader
        self._poll.register(fd, _READ)

    def want_room(self, fd: int, wanted: bool) -> None:
        """Whether its reader is also called when there is room for what is to be sent."""
        self._poll.modify(fd, _WRITE if wanted else _READ)

    def forget(self, fd: int) -> None:
        """Watch it no more."""
        if self._readers.pop(fd, None) is not None:
            self._poll.unregister(fd)

    def stay_awake(self) -> None:
        """Do not fall asleep at once: an answer is due."""
        self._awake_until = self._spin.until(time.monotonic())

    def wait(self, seconds: float) -> None:
        """Sleep until something is there, at most this long, and have it read."""
        while (now := time.monotonic()) < self._awake_until:
            if self._turn(0):
                return
            self._spin.rest(now)
        self._turn(max(0, int(seconds * 1000) + 1))

    def _turn(self, milliseconds: int) -> bool:
        """Whether anything was there."""
        # The descriptor of such a socket tells of changes alone: what it has is asked for before each sleep.
        ready = [
            sock for sock in self._sockets if sock is not self._held_back and sock.getsockopt(zmq.EVENTS) & zmq.POLLIN
        ]
        readable = self._poll.poll(0 if ready else milliseconds)
        for sock in ready:
            self._sockets[sock]()
        for fd, _ in readable:
            if fd in self._readers:  # not one of ZeroMQ, nor one that another reader has closed just now
                self._readers[fd]()
        return bool(ready or readable)

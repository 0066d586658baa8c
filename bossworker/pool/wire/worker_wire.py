"""A worker's line to the boss: its socket pair, and beside it ZeroMQ.

The pair carries what ZeroMQ cannot: descriptors, what must survive its sender once it is sent, and the boss's end. It
also carries what only wakes the other side, since libzmq's thread would be one more to wake. With
``transport="socketpair"`` it carries everything. (The boss's half of this seam is in ``boss/worker_lines.py``.)
"""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Sequence
from contextlib import suppress

from bossworker.pool.wire.doorway import Doorway
from bossworker.pool.wire.frames import Buffer, Frame
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.zmtp import EarlyLink, introduce
from bossworker.system import processes
from bossworker.system.stdio import above_stdio

LINK_FD_FROM = 200  # descriptors are moved out of the way of those that handlers open and close


class WorkerWire:
    """See the module."""

    def __init__(self, pair: socket.socket, doorway: Doorway | None, route: bytes) -> None:
        """`route`: our identity at the boss's ZeroMQ socket; empty where the boss has no descriptor left for us."""
        self._pair = Link(_moved(pair))
        self._route = route
        self._dealer: EarlyLink | None = None
        if doorway is not None and not route:
            doorway.close_way()
        elif doorway is not None:
            with suppress(OSError):  # no descriptor is left: the pair carries everything
                self._dealer = EarlyLink(_moved(doorway.connect()))
        self._links = {link.fileno(): link for link in (self._pair, self._dealer) if link is not None}
        self._poll = select.poll()
        for fd in self._links:
            self._poll.register(fd, select.POLLIN)

    def greet(self) -> None:
        """Make ourselves known at the boss's ZeroMQ socket. Until libzmq has read it, orders come over the pair."""
        if self._dealer is not None:
            introduce(self._dealer.sock, self._route)

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()) -> None:
        """Send, however long it takes: once it returns, the bytes are safe from our death."""
        _send(self._pair, kind, head, body, fds)

    def ring(self, kind: Kind) -> None:
        """Wake the boss."""
        _send(self._pair, kind)

    def orders(self) -> list[Frame]:
        """Sleep until something comes: all of it but what was to wake us, behind which an order may come at once.

        Raises LinkClosed.
        """
        frames: list[Frame] = []
        for fd, _ in self._poll.poll():
            frames += self._links[fd].receive()
        return [frame for frame in frames if frame.kind is not Kind.WAKE]


def _send(link: Link, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()) -> None:
    sent = link.send(kind, head, body, fds)
    while not sent:
        processes.await_fd(link.fileno(), select.POLLOUT)
        sent = link.flush()


def out_of_the_way(fd: int) -> int:
    """Move a file to a high descriptor, where one opened after ``os.closerange(3, …)`` will not land."""
    import fcntl

    try:
        moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, LINK_FD_FROM)
    except OSError:  # a low limit on descriptors
        return above_stdio(fd)
    os.close(fd)
    return moved


def _moved(link: socket.socket) -> socket.socket:
    return socket.socket(fileno=out_of_the_way(link.detach()))

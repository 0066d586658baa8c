"""The boss's lines to its workers: to each a socket pair, and beside them ZeroMQ, if that is the transport.

What ZeroMQ cannot carry, or not yet, and what only wakes a worker, goes over the pair: see ``wire/worker_wire.py``.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence

from bossworker.pool.boss.poller import OnEvent, Poller
from bossworker.pool.boss.reports import Reports
from bossworker.pool.wire.frames import Buffer, prefix_of
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.router import Router

BESIDES = 30  # descriptors that a boss needs besides those of its workers


def has_room(workers: int, most: int, relayed: bool = False) -> bool:
    """Whether this many workers may connect by ZeroMQ: it takes a second descriptor for each; relayed output takes two.

    libzmq aborts the whole process when it finds none left for somebody who connects.
    """
    return (4 if relayed else 2) * workers + BESIDES <= most


class WorkerLines:
    """See the module. Of each worker also what the boss waits for: its pair, and a report in its mailbox."""

    def __init__(self, poller: Poller, reports: Reports) -> None:
        self.router: Router | None = None  # until it is made; with ``transport="socketpair"``, for ever
        self.pairs: dict[int, Link] = {}
        self.reports = reports
        self._poller = poller
        self._routes: dict[int, bytes] = {}

    def add(self, slot: int, fd: int, route: bytes, on_event: OnEvent) -> None:
        """A worker was started; `fd` is our end of its pair, `on_event` is called when something has come over it."""
        self.pairs[slot] = Link(socket.socket(fileno=fd))
        self._routes[slot] = route
        self._poller.watch(self.pairs[slot], on_event)

    def stop_reading(self, slot: int) -> None:
        """Wait for nothing of it any more."""
        self._poller.forget(self.pairs[slot])
        self.reports.forget(slot)

    def remove(self, slot: int) -> None:
        """It is gone: hang up."""
        self.stop_reading(slot)
        del self._routes[slot]
        self.pairs.pop(slot).close()

    def slot_of(self, route: bytes) -> int | None:
        """Whose identity this is; None: nobody's, or that of one who is gone."""
        slot = int.from_bytes(route[:4], "little")
        return slot if self._routes.get(slot) == route else None

    def send(
        self, slot: int, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()
    ) -> None:
        """Send it now, or as soon as there is room. To a worker that has hung up nothing is sent: its exit is told."""
        router, pair = self.router, self.pairs[slot]
        if router is not None and not fds and kind is not Kind.WAKE:
            message = b"".join((prefix_of(kind, head, body), head, *body))
            if router.send(self._routes[slot], message):
                return
        try:
            if not pair.send(kind, head, body, fds):
                self._poller.refresh(pair)
        except LinkClosed:
            pass

    def close(self) -> None:
        """End ZeroMQ, its threads included."""
        if self.router is not None:
            self.router.close()

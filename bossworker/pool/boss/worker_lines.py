"""The boss's lines to its workers: to each a socket pair, and beside them ZeroMQ, if that is the transport.

What ZeroMQ cannot carry, or not yet, and what only wakes a worker, goes over the pair: see ``wire/worker_wire.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from bossworker.pool.wire.frames import Buffer, prefix_of
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.router import Router

BESIDES = 30  # descriptors that a boss needs besides those of its workers


def has_room(workers: int, most: int, relayed: bool = False) -> bool:
    """Whether this many workers may connect by ZeroMQ: it takes a second descriptor for each; relayed output takes two.

    libzmq aborts the whole process when it finds none left for somebody who connects.
    """
    return (4 if relayed else 2) * workers + BESIDES <= most


class WorkerLines:
    """See the module."""

    def __init__(self) -> None:
        self.router: Router | None = None  # until it is made; with ``transport="socketpair"``, for ever
        self.pairs: dict[int, Link] = {}
        self._routes: dict[int, bytes] = {}

    def add(self, slot: int, pair: Link, route: bytes) -> None:
        """A worker was started."""
        self.pairs[slot] = pair
        self._routes[slot] = route

    def remove(self, slot: int) -> Link:
        """It is gone; its pair."""
        del self._routes[slot]
        return self.pairs.pop(slot)

    def slot_of(self, route: bytes) -> int | None:
        """Whose identity this is; None: nobody's, or that of one who is gone."""
        slot = int.from_bytes(route[:4], "little")
        return slot if self._routes.get(slot) == route else None

    def send(
        self, slot: int, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()
    ) -> bool:
        """Send what can be sent now; False when a rest is left in the pair. Raises LinkClosed."""
        router = self.router
        if router is not None and not fds and kind is not Kind.WAKE:
            message = b"".join((prefix_of(kind, head, body), head, *body))
            if router.send(self._routes[slot], message):
                return True
        return self.pairs[slot].send(kind, head, body, fds)

    def close(self) -> None:
        """End ZeroMQ, its threads included."""
        if self.router is not None:
            self.router.close()

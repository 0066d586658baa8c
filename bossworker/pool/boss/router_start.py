"""When the boss makes its ROUTER: not at once, but as soon as it is good for something.

ZeroMQ carries orders that are too long for a mailbox. To make a socket of it, with two threads, takes as long as a
fork, and a pool that is short-lived, or whose jobs are small, never has such an order. So it is made when the first one
is due, or a little later than the boss itself: workers have connected by then, and libzmq finds them in the listener's
queue, which holds a limited number.
"""

from __future__ import annotations

import _thread
import socket
import time
from collections.abc import Callable

from bossworker.failure import describe
from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.fork_server_orders import ForkServerOrders
from bossworker.pool.boss.notes import Notes
from bossworker.pool.wire.messages import WARNING
from bossworker.pool.wire.router import Router

LATEST_SECONDS = 0.2  # after the boss's start; a worker that finds the listener's queue full waits for it
ZEROMQ_THREADS = 2  # one for I/O, and one that tidies up


class RouterStart:
    """One of the boss's `chores`, until it is done. `use` is given the ROUTER.

    Where there can be none, the pairs carry everything, as they do until it is made.
    """

    def __init__(
        self,
        listener: socket.socket,
        chores: list[Chore],
        use: Callable[[Router], None],
        fork_server: ForkServerOrders,
        notes: Notes,
    ) -> None:
        import zmq  # noqa: F401 - while the workers start; where the boss was forked, it is loaded

        self._listener = listener
        self._due = time.monotonic() + LATEST_SECONDS
        self._chores = chores
        chores.append(self)
        self._use = use
        self._fork_server = fork_server
        self._notes = notes

    def seconds_until_due(self, now: float) -> float | None:
        return max(0.0, self._due - now)

    def attend(self, now: float) -> None:
        if now >= self._due:
            self.make()

    def make(self) -> None:
        """Make it now, once. The listener stays open, whatever happens: workers that have connected would leave."""
        if self not in self._chores:
            return
        self._chores.remove(self)
        try:
            # The last of them may be taken by another process between this try and libzmq's own start. Then it aborts;
            # that is rare, and the caller is told.
            _try_threads(ZEROMQ_THREADS)
            router = Router(self._listener)
        except Exception as error:  # no threads, no descriptors; pyzmq has errors of its own
            self._fork_server.by_zmq = False  # workers that start from now on do not connect in vain
            self._notes.add(WARNING, f"ZeroMQ not used: transport=socketpair reason={describe(error)!r}")
        else:
            self._use(router)


def _try_threads(number: int) -> None:
    """Start this many threads, all there at once, and have them end. RuntimeError where they cannot be started.

    libzmq aborts its process then.
    """
    over = _thread.allocate_lock()
    over.acquire()
    ended = []

    def wait(its_end: _thread.LockType) -> None:
        with over:
            its_end.release()

    try:
        # All of them at once, each held back by `over`: one after the other would need only one at a time, which says
        # nothing.
        for _ in range(number):
            its_end = _thread.allocate_lock()
            its_end.acquire()
            _thread.start_new_thread(wait, (its_end,))
            ended.append(its_end)
    finally:
        over.release()
        for its_end in ended:
            its_end.acquire()

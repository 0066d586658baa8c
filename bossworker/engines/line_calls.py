"""How others reach the line's thread, which has to itself whatever it knows: each of their threads puts calls to it."""

from __future__ import annotations

import selectors
import socket
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from functools import partial
from typing import Any

from bossworker.engines.adapter import when_done
from bossworker.pool.wire.link import Link


class LineCalls:
    """See the module. `post` may be called in any thread, the rest in the line's."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._posted: deque[Callable[[], None]] = deque()
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(link.sock, selectors.EVENT_READ)

    def post(self, act: Callable[[], None]) -> None:
        """Have the line's thread call it."""
        # Put there first, then the wake-up: the line's thread looks here before it sleeps, and the byte ends a sleep
        # that it has begun.
        self._posted.append(act)
        with suppress(OSError):
            self._waker.send(b"w")

    def then(self, future: Future[Any], act: Callable[[Any], None], otherwise: Any) -> None:
        """Have it called with what the future brings, or with `otherwise` where that fails."""
        when_done(future, lambda value: self.post(partial(act, value)), lambda _: self.post(partial(act, otherwise)))

    def take(self) -> Callable[[], None] | None:
        """The next call; None: there is none."""
        return self._posted.popleft() if self._posted else None

    def wait(self, seconds: float) -> bool:
        """Until there is a call, or the link is ready, or that many seconds are over; whether the link is ready."""
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._link.unsent else 0)
        self._selector.modify(self._link.sock, events)
        # A call that is posted between the look and the sleep has sent its byte, too.
        ready = {key.fileobj for key, _ in self._selector.select(0.0 if self._posted else seconds)}
        if self._woken in ready:
            with suppress(BlockingIOError):
                self._woken.recv(4096)
        return self._link.sock in ready

    def close(self) -> None:
        self._selector.close()
        self._woken.close()
        self._waker.close()

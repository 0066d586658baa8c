"""What the boss waits for: its links, and whether its parent lives; awake for an instant where an answer is due."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable
from contextlib import suppress

from bossworker.pool.wire.link import Link
from bossworker.pool.wire.spin import Spin

EVENT_READ, EVENT_WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

OnEvent = Callable[[int], None]
"""Called with the events that are there: EVENT_READ, EVENT_WRITE or both."""


class Poller:
    """See the module."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._spin = Spin()
        self._awake_until = 0.0

    def watch(self, link: Link, on_event: OnEvent) -> None:
        """Have it called when the link has something for us, or takes something that waits to be sent."""
        events = EVENT_READ | (EVENT_WRITE if link.unsent else 0)
        key = self._selector.get_map().get(link.sock)
        if key is None:
            self._selector.register(link.sock, events, on_event)
        elif key.events != events:
            self._selector.modify(link.sock, events, on_event)

    def watch_fd(self, fd: int, on_event: OnEvent) -> None:
        """Have it called while the descriptor is readable."""
        self._selector.register(fd, EVENT_READ, on_event)

    def forget(self, link: Link) -> None:
        """Watch it no more, if it is watched."""
        with suppress(KeyError):
            self._selector.unregister(link.sock)

    def expect_answer(self, now: float) -> None:
        """Do not fall asleep at once."""
        self._awake_until = self._spin.until(now)

    def wait(self, seconds: float | None) -> None:
        """Sleep until something is there, at most so many seconds (None: without limit), and tell those concerned."""
        for key, events in self._look_again() or self._selector.select(seconds):
            key.data(events)

    def _look_again(self) -> list[tuple[selectors.SelectorKey, int]]:
        """Stay awake while an answer is due."""
        while (now := time.monotonic()) < self._awake_until:
            if ready := self._selector.select(0):
                return ready
            self._spin.rest(now)
        return []

"""One of the two lines that the scribe stands on."""

from __future__ import annotations

import select
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind


class LineSide:
    """One of the lines. `ended`: nothing more will come."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.ended = False
        self.frames: list[Frame] = []  # that pass through

    def register(self, poll: select.poll) -> None:
        """Wait for what comes from here, or can be sent here."""
        if not self.ended:
            poll.register(self.link.fileno(), select.POLLIN | (select.POLLOUT if self.link.unsent else 0))

    def is_ready(self, ready: set[int]) -> bool:
        """Whether there is something to read, by the descriptors on which something has happened."""
        return not self.ended and (self.link.fileno() in ready or bool(self.link.frames))

    def receive(self) -> list[Frame]:
        """What has come. What came before the other end hung up is no less there for that."""
        if self.ended:
            return []
        with suppress(LinkClosed):
            self.link.flush()
        try:
            while self.link.pull():
                if len(self.link.frames) > 1000:
                    break
        except LinkClosed:
            # Only now: what came before the other end hung up has been pulled by then, and is returned below.
            self.ended = True
        frames, self.link.frames = self.link.frames, []
        return frames

    def send(self, kind: Kind, head: bytes = b"", body: Iterable[Any] = (), fds: tuple[int, ...] = ()) -> None:
        """Send a frame; its end, if it is gone, is noticed as we read."""
        with suppress(LinkClosed):
            self.link.send(kind, head, list(body), fds)

"""What the boss has the program's logger say."""

from __future__ import annotations

import time
from contextlib import suppress

from bossworker.pool.boss.chores import Chore
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import pack
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind

_INFO = 20  # as in the module logging
HELD_SECONDS = 0.05  # what is no warning waits this long for a frame to travel with: each by itself wakes the program


class Notes:
    """See the module. It is one of the boss's `chores` while something is held."""

    def __init__(self, caller: Link) -> None:
        self._caller = caller
        self._due: float | None = None  # monotonic seconds
        self.chores: list[Chore] = []

    def add(self, level: int, text: str) -> None:
        """Have it said: at once, or with the next frame."""
        self._caller.queue(pack(Kind.NOTE, messages.NOTE.pack(level), [text.encode()]))
        if level > _INFO:
            self._caller.flush()
        elif self._due is None:
            self._due = time.monotonic() + HELD_SECONDS
            self.chores.append(self)

    def seconds_until_due(self, now: float) -> float | None:
        return None if self._due is None else max(0.0, self._due - now)

    def attend(self, now: float) -> None:
        if self._due is not None and now >= self._due:
            self._due = None
            self.chores.remove(self)
            with suppress(LinkClosed):  # the boss's poll tells it
                self._caller.flush()

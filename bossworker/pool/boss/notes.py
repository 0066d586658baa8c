"""What the boss has the program's logger say."""

from __future__ import annotations

import time
from contextlib import suppress

from bossworker.pool.boss.chores import Chore
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Part, pack
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind

_INFO = 20  # as in the module logging
HELD_SECONDS = 0.05  # what is no warning waits this long for a frame to travel with: each by itself wakes the program


class Notes:
    """See the module. It is one of the boss's `chores` while something is held."""

    def __init__(self, caller: Link) -> None:
        self._caller = caller
        self._due = 0.0  # monotonic seconds, while something is held
        self.held: list[list[Part]] = []
        self.chores: list[Chore] = []

    def add(self, level: int, text: str) -> None:
        """Have it said: at once, or with the next frame."""
        note = pack(Kind.NOTE, messages.NOTE.pack(level), [text.encode()])
        if level <= _INFO and not self.held:
            self._due = time.monotonic() + HELD_SECONDS
            self.chores.append(self)
        self.held.append(note)
        if level > _INFO:
            self.release()
            self._caller.flush()

    def release(self) -> None:
        """A frame is about to be sent: what is held goes ahead of it."""
        for note in self.held:
            self._caller.queue(note)
        self.held = []
        if self in self.chores:
            self.chores.remove(self)

    def seconds_until_due(self, now: float) -> float | None:
        return max(0.0, self._due - now) if self.held else None

    def attend(self, now: float) -> None:
        if self.held and now >= self._due:
            self.release()
            with suppress(LinkClosed):  # the boss's poll tells it
                self._caller.flush()

"""What the boss has the program's logger say."""

from __future__ import annotations

import os
import time
from contextlib import suppress

from bossworker.pool.boss.chores import Chore
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Part, pack
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import INFO, WARNING, Kind

MOST_UNREAD = 1000  # notes that wait for a program that reads nothing; it may do so for weeks, and serve others
# What is not a warning waits this long for a frame to travel with: each by itself wakes the program.
HELD_SECONDS = 0.05


class Notes:
    """See the module. It is one of the boss's `chores` while something is held."""

    def __init__(self, caller: Link, chores: list[Chore]) -> None:
        self._caller = caller
        self._due = 0.0  # monotonic seconds, while something is held
        self.held: list[list[Part]] = []
        self.chores = chores
        self._unread = self._dropped = 0  # since the program last had all that there was

    def add(self, level: int, text: str) -> None:
        """Have it said: at once, or with the next frame."""
        note = pack(Kind.NOTE, messages.NOTE.pack(level), [text.encode()])
        if level <= INFO and not self.held:
            self._due = time.monotonic() + HELD_SECONDS
            self.chores.append(self)
        self.held.append(note)
        if level > INFO:
            self.release()
            self._caller.flush()

    def release(self) -> None:
        """A frame is about to be sent: what is held goes ahead of it."""
        for note in self.held:
            self._pass_on(note)
        self.held = []
        if self in self.chores:
            self.chores.remove(self)

    def _pass_on(self, note: list[Part]) -> None:
        if not self._caller.unsent:
            if self._dropped:
                text = f"notes dropped={self._dropped}: the program has called nothing of the pool for long"
                self._caller.queue(pack(Kind.NOTE, messages.NOTE.pack(WARNING), [text.encode()]))
            self._unread = self._dropped = 0
        if self._unread < MOST_UNREAD:
            self._unread += 1
            self._caller.queue(note)
        else:
            self._dropped += 1

    def seconds_until_due(self, now: float) -> float | None:
        return max(0.0, self._due - now) if self.held else None

    def attend(self, now: float) -> None:
        if self.held and now >= self._due:
            self.release()
            with suppress(LinkClosed):  # the boss's poll tells it
                self._caller.flush()


def complain(text: str) -> None:
    """Tell of something that should not happen; the pool goes on."""
    with suppress(OSError):
        os.write(2, f"bossworker: boss {os.getpid()}: {text}\n".encode())

"""Which tests run side by side when several processes run them, and which alone."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """A lock between processes that is held by many at once, or by one alone.

    Everybody enters by the door, one at a time, and leaves without it. Whoever wants to be alone stands in the door
    until the room is empty, so that a stream of others cannot keep it out.
    """

    def __init__(self, folder: str) -> None:
        self.door = os.open(os.path.join(folder, "door"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)
        self.room = os.open(os.path.join(folder, "room"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC)

    @contextmanager
    def taken(self, alone: bool) -> Iterator[None]:
        fcntl.flock(self.door, fcntl.LOCK_EX)
        fcntl.flock(self.room, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(self.door, fcntl.LOCK_UN)
        try:
            yield
        finally:
            fcntl.flock(self.room, fcntl.LOCK_UN)

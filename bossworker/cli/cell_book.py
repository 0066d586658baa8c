"""Which command has which of the cells that a run shares with its host (``commands/hosting/cells.py``)."""

from __future__ import annotations

import os
from collections.abc import Sequence

from bossworker.cli.outcomes import Planned
from bossworker.commands.hosting.cells import Cells, size_of_cells
from bossworker.system import descriptors

_SPARE = 4


def cells_for(ahead: int, slots: int) -> int:
    """As many as commands that may be with a crew at once, and as many more that have ended and are to be recorded."""
    return 2 * (ahead * slots + _SPARE)


class CellBook:
    """Gives cells to commands. A subclass may write down whose they are, before that begins."""

    lock = -1
    """A descriptor that stays open until run and host are gone."""

    def __init__(self, count: int, fd: int = -1) -> None:
        """
        Args:
            fd: Of a file to keep them in, as for `Cells`.
        """
        self.file = os.dup(fd) if fd >= 0 else _nameless(size_of_cells(count))
        """Its descriptor, for a host; -1: there is none, and a host has to inherit the cells."""
        self.cells = Cells(count, self.file)
        self._free = list(range(count - 1, -1, -1))  # the last ones stay untouched, if they are not needed

    def close(self) -> None:
        """Give up the file. What is in the cells can still be read."""
        if self.file >= 0:
            os.close(self.file)
        self.file = -1

    def give(self, plans: Sequence[Planned]) -> list[int]:
        """A cell for each. Nothing of them has begun."""
        taken = [self._free.pop() for _ in plans]
        for cell in taken:
            self.cells.clear(cell)
        return taken

    def take_back(self, cell: int) -> None:
        """There is a record of what was in it."""
        self._free.append(cell)


def _nameless(size: int) -> int:
    """A file of so many bytes; -1: it may not be that long (``ulimit -f``)."""
    fd = descriptors.nameless_file("bossworker-cells")
    try:
        os.ftruncate(fd, size)
    except OSError:
        os.close(fd)
        return -1
    return fd

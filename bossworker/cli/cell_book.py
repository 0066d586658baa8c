"""Which command has which of the cells that a run shares with its host (``commands/hosting/cells.py``)."""

from __future__ import annotations

from collections.abc import Sequence

from bossworker.cli.outcomes import Planned
from bossworker.commands.hosting.cells import Cells

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
            fd: As for `Cells`.
        """
        self.cells = Cells(count, fd)
        self._free = list(range(count - 1, -1, -1))  # the last ones stay untouched, if they are not needed

    def give(self, plans: Sequence[Planned]) -> list[int]:
        """A cell for each. Nothing of them has begun."""
        taken = [self._free.pop() for _ in plans]
        for cell in taken:
            self.cells.clear(cell)
        return taken

    def take_back(self, cell: int) -> None:
        """There is a record of what was in it."""
        self._free.append(cell)

"""What has begun and what has ended, in memory that the run and its host share: it is true whoever of them is killed.

Each command that is with the host has a cell, which the run gives it. The host writes there that it starts, before it
does, and how it has ended, before it says so. So of what has no record yet, the cell tells whether it may have run.
In a file, cells outlive both.
"""

from __future__ import annotations

import mmap

from bossworker.system.records import NamedTuple

QUEUED, STARTING, RUNNING, ENDED, CORRUPT = range(5)
"""States: STARTING may have become a process, RUNNING has. CORRUPT stands for anything else that is read."""

_WORDS, _WORD = 6, 8  # of a cell; bytes
_STATE, _PID, _STARTED, _STATUS, _OUTPUT, _TAKEN = range(_WORDS)
_MICRO = 1_000_000


class CellContents(NamedTuple):
    """What a cell tells."""

    state: int
    pid: int
    started_at: float
    """Unix seconds."""
    status: int
    """As from ``waitpid``, once it has ended."""
    output: int
    """Whether it has written anything that is in its record alone."""
    seconds: float
    """How long it has run, once it has ended."""


class Cells:
    """All of them. A word is written in one piece; of several, the state is the last."""

    def __init__(self, count: int, fd: int = -1) -> None:
        """
        Args:
            fd: Of a file to keep them in, of `size_of(count)` bytes at least; -1: in memory alone, which a fork shares.
        """
        self.count = count
        self._memory = mmap.mmap(fd, size_of_cells(count))
        self.words = memoryview(self._memory).cast("q")
        """As they lie there: ``native/spawners.c`` writes them, too."""

    # -- the run ----------------------------------------------------------------------------------------

    def clear(self, cell: int) -> None:
        """It is another command's from now on, which is queued."""
        self.words[_WORDS * cell + _STATE] = QUEUED

    def read(self, cell: int) -> CellContents:
        """Of a cell that nobody writes to any more."""
        at = _WORDS * cell
        state, pid, started, status, output, taken = self.words[at : at + _WORDS]
        state = state if QUEUED <= state < CORRUPT else CORRUPT
        return CellContents(state, pid, started / _MICRO, status, output, taken / _MICRO)

    # -- the host ---------------------------------------------------------------------------------------

    def starting(self, cell: int, started_at: float) -> None:
        """It may run from now on."""
        at, words = _WORDS * cell, self.words
        words[at + _STARTED] = int(started_at * _MICRO)
        words[at + _STATE] = STARTING

    def running(self, cell: int, pid: int) -> None:
        """This is its process; 0: no process could be made of it."""
        at, words = _WORDS * cell, self.words
        words[at + _PID] = pid
        words[at + _STATE] = RUNNING if pid else QUEUED

    def ended(self, cell: int, status: int, output: bool, seconds: float) -> None:
        """By itself; it was reaped."""
        at, words = _WORDS * cell, self.words
        words[at + _STATUS], words[at + _OUTPUT], words[at + _TAKEN] = status, output, int(seconds * _MICRO)
        words[at + _STATE] = ENDED

    def close(self) -> None:
        """Give up the memory."""
        self.words.release()
        self._memory.close()


def size_of_cells(count: int) -> int:
    """Bytes."""
    return _WORDS * _WORD * count

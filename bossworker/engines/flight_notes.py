"""Which jobs an engine has, written where whoever opens the journal next finds it: see ``wire/filed_memory.py``.

Workers on other machines write no flight recorder that outlives the program. So what the engine was given may have run,
and what it was not given never has. A note is written before its batch goes. Those of batches that are back are written
over as late as can be: their results are on the way to the journal.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Container

from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.filed_memory import MOST_PASSED, FiledMemory


class FlightNotes:
    """See the module. Without a memory, nothing is written."""

    def __init__(self, memory: FiledMemory | None) -> None:
        self._memory = memory
        self._entries: dict[int, int] = {}  # by the numbers of batches
        self._free = deque(range(MOST_PASSED)) if memory is not None else deque()

    @property
    def kept(self) -> bool:
        """Whether there is a journal."""
        return self._memory is not None

    def begin(self, number: int, batch: Batch) -> bool:
        """Note that the engine is about to get a batch. False: it must not, since the journal has another owner."""
        if self._memory is None:
            return True
        entry = self._entries[number] = self._free.popleft()
        return self._memory.note_given(entry, batch.first_id, batch.count)

    def forget(self, number: int) -> None:
        """A batch provably never began."""
        entry = self._entries.pop(number, None)
        if entry is not None and self._memory is not None:
            self._memory.note_given(entry, 0, 0)
            self._free.appendleft(entry)

    def keep(self, numbers: Container[int]) -> None:
        """These are all the batches that the engine has now."""
        for number in [number for number in self._entries if number not in numbers]:
            self._free.append(self._entries.pop(number))

    def close(self) -> None:
        if self._memory is not None:
            self._memory.close()

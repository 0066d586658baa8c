"""Whether the pool is up, which the program waits for: all first workers are, or why one of them is not."""

from __future__ import annotations

import os
from typing import NoReturn

from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.notes import Notes
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import INFO, Kind
from bossworker.system import processes


class NoPool(Exception):
    """It does not come up, and the caller has been told why: end everything."""


class FirstWorkers:
    """See the module. `max_worker_memory`: bytes that none of the first workers may have; 0: whatever they have."""

    def __init__(self, ledger: Ledger, caller: Link, notes: Notes, max_worker_memory: int) -> None:
        self.up = False  # the caller knows that the pool is up
        self._ledger = ledger
        self._caller = caller
        self._notes = notes
        self._max_worker_memory = max_worker_memory

    def announce(self) -> None:
        """Tell the caller, once, that the pool is up."""
        if self._ledger.staff.complete:
            self.up = True
            self._notes.add(INFO, f"pool up: boss={os.getpid()} workers={len(self._ledger.workers)}")
            self._notes.release()
            self._caller.send(Kind.READY)

    def check_size(self, slot: int) -> None:
        """A worker is up. One of the first must not be larger than it may ever be."""
        if not self.up and self._max_worker_memory:
            size = processes.resident_bytes(self._ledger.workers[slot].pid)
            if size > self._max_worker_memory:
                self.fail(_too_large(size, self._max_worker_memory))

    def fail(self, why: str) -> NoReturn:
        """One of the first workers does not come up: neither does the pool. Raises NoPool."""
        self._notes.release()
        self._caller.send(Kind.START_FAILED, b"", [why.encode()])
        raise NoPool


def _too_large(size: int, most: int) -> str:
    told = f"a worker that has run no job has {size} bytes in memory already, and max_worker_memory is {most}"
    return f"{told}: it would be replaced after each batch; allow it more than the program itself has loaded"

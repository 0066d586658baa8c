"""The flight recorder: memory a worker shares with the boss, where it notes what it does as it does it.

A worker's batch of jobs leaves its trace here by plain memory writes, with no system call a job:

    unclaimed   a semaphore: jobs of the batch that may still be claimed
    published   a semaphore: jobs of the batch whose results are here
    LIMIT       jobs of the batch the worker was given, less those that the boss took back
    SENDING     1 while a large result is on its way: its job has ended, and its time does not run on
    EXPIRED     1 + id of the job that must stop (its time is up, or it is cancelled)
    marks       when the batch began, and when each job ended (monotonic seconds)
    ends        where each job's result ends in the payload area
    outcomes    how each job ended
    payload     the results' bytes, end to end

and the worker's mailbox (see ``mailbox.py``).

**Claiming.** Worker and boss race for the jobs at the tail: before each job the worker lowers `unclaimed` by one,
and the boss lowers it as far as it can. Each job goes to one of them, so none runs twice, whoever is stopped or dies at
whichever instruction. Neither ever waits.

**Publishing.** A result is written, then counted by a post to `published`. Posting releases and taking acquires (in the
sense of memory models), so even on a processor that reorders writes, whoever sees the count sees the results.

The memory is one unnamed file for the whole pool, a slot a worker. It has no name, so there is nothing to leave behind,
and a full or missing /dev/shm does not matter.
"""

from __future__ import annotations

import errno
import mmap
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from bossworker.failure import Outcome
from bossworker.pool.options import MAX_WORKERS
from bossworker.pool.wire.mailbox import ORDER_ROOM, Mailbox
from bossworker.pool.wire.segments import Segment
from bossworker.pool.wire.shared_counter import exclusive, set_counter, shared_counter
from bossworker.system.stdio import above_stdio

MAX_BATCH = 2048  # jobs; at a microsecond each, 2 ms
SLOT_SIZE = 1 << 18  # bytes; only pages that are written to cost memory

_WORDS_SIZE = 4096
_MARKS_AT = _WORDS_SIZE
_ENDS_AT = _MARKS_AT + 8 * (MAX_BATCH + 8)
_OUTCOMES_AT = _ENDS_AT + 8 * MAX_BATCH
_PAYLOAD_AT = _OUTCOMES_AT + MAX_BATCH
_ORDER_AT = SLOT_SIZE - ORDER_ROOM
PAYLOAD_SIZE = _ORDER_AT - _PAYLOAD_AT
_FILE_SIZE = mmap.PAGESIZE + MAX_WORKERS * SLOT_SIZE

LIMIT, EXPIRED, SENDING, FIRST_ID, ATTEMPT = range(5)
_UNCLAIMED_AT, _PUBLISHED_AT, _FENCE_AT = 2048, 2304, 2560  # byte offsets of semaphores in the words page, far apart
_WORDS_END = _UNCLAIMED_AT


class Snapshot(NamedTuple):
    """What the boss saw of a batch at one instant."""

    claimed: int
    published: int  # jobs from the front whose results are there
    started: float  # when the last claimed job began (monotonic seconds)
    running: bool  # whether that job is still in the handler


class Memory:
    """The pool's shared file: page 0 for the boss's own notes to the caller, then a slot a worker."""

    def __init__(self, fd: int | None = None) -> None:
        self.fd = above_stdio(_unnamed_file()) if fd is None else fd
        try:
            if fd is None:
                os.ftruncate(self.fd, _FILE_SIZE)
            self._area = mmap.mmap(self.fd, _FILE_SIZE)
        except OSError as error:
            os.close(self.fd)
            need = f"a pool needs {_FILE_SIZE >> 20} MiB of address space, and a sparse file as large, mostly unused"
            raise OSError(error.errno, f"{error.strerror} ({need})") from error
        self._view = memoryview(self._area)
        self._words = self._view[: mmap.PAGESIZE].cast("Q")

    @property
    def assigned_through(self) -> int:
        """1 + the highest id of a job that was given to a worker: what lies above never ran."""
        return self._words[0]

    @assigned_through.setter
    def assigned_through(self, value: int) -> None:
        self._words[0] = value

    @property
    def held(self) -> int:
        """How many descriptors of large payloads the boss holds."""
        return self._words[2]

    @held.setter
    def held(self, value: int) -> None:
        self._words[2] = value

    @property
    def boss_asleep(self) -> bool:
        """Whether the boss must be woken to see a report."""
        return self._words[4] != 0

    @boss_asleep.setter
    def boss_asleep(self, value: bool) -> None:
        self._words[4] = value

    @property
    def most_held(self) -> int:
        """How many it may hold."""
        return self._words[3]

    @most_held.setter
    def most_held(self, value: int) -> None:
        self._words[3] = value

    @property
    def slots(self) -> int:
        """How many slots have been used."""
        return self._words[1]

    @slots.setter
    def slots(self, value: int) -> None:
        self._words[1] = value

    def withdraw(self) -> list[range]:
        """After the boss's death: bar the workers from claiming more; the ids of the jobs that thus never start."""
        never: list[range] = []
        for slot in range(self.slots):
            recorder = self.recorder(slot)
            words = recorder.words
            limit, first_id = words[LIMIT], words[FIRST_ID]
            claimed = recorder.take_back().claimed
            if words[ATTEMPT] == 1:
                never.append(range(first_id + claimed, first_id + limit))
        return never

    def recorder(self, slot: int, fresh: bool = False) -> Recorder:
        """The recorder of a slot; `fresh`: wiped, for a new worker, as the fork server does before it forks one."""
        at = mmap.PAGESIZE + slot * SLOT_SIZE
        return Recorder(self._view[at : at + SLOT_SIZE], fresh)

    def close(self) -> None:
        """Give back the descriptor, and the mapping with the copy that it keeps."""
        os.close(self.fd)
        self._words.release()
        self._view.release()
        with suppress(BufferError):  # a recorder of it is still in use; it goes with that
            self._area.close()


class Recorder:
    """A worker's slot, as mapped by the worker itself or by the boss."""

    def __init__(self, view: memoryview, fresh: bool) -> None:
        self._view = view
        self.words = self._view[:_WORDS_END].cast("Q")
        self.marks = self._view[_MARKS_AT:_ENDS_AT].cast("d")
        self.ends = self._view[_ENDS_AT:_OUTCOMES_AT].cast("Q")
        self.outcomes = self._view[_OUTCOMES_AT:_PAYLOAD_AT]
        self.payload = self._view[_PAYLOAD_AT:_ORDER_AT]
        if fresh:
            self._view[:_WORDS_SIZE] = bytes(_WORDS_SIZE)
        self.unclaimed = shared_counter(view, _UNCLAIMED_AT, fresh)
        self.published = shared_counter(view, _PUBLISHED_AT, fresh)
        self._fence = shared_counter(view, _FENCE_AT, fresh)
        self.mailbox = Mailbox(self.words, self._view[_ORDER_AT:])

    # -- the boss's side --------------------------------------------------------------------------------

    def open_batch(self, first_id: int, count: int, attempt: int, now: float) -> None:
        """Make ready for a batch. The worker is idle: nobody else touches the slot."""
        words = self.words
        words[LIMIT] = count
        words[EXPIRED], words[SENDING] = 0, 0
        words[FIRST_ID], words[ATTEMPT] = first_id, attempt
        self.marks[0] = now
        self.outcomes[:count] = bytes(count)
        set_counter(self.published, 0)
        set_counter(self.unclaimed, count)

    def snapshot(self) -> Snapshot:
        """What the worker has done so far."""
        return self._snapshot(self.words[LIMIT] - self.unclaimed._get_value())

    def take_back(self) -> Snapshot:
        """Withdraw the jobs that have not been claimed, where that can be done safely, and look: the rest counts as
        claimed.
        """
        withdrawn = 0
        while exclusive() and self.unclaimed.acquire(False):
            withdrawn += 1
        self.words[LIMIT] -= withdrawn
        return self._snapshot(self.words[LIMIT])

    def _snapshot(self, claimed: int) -> Snapshot:
        # Read after `claimed`: what was claimed then and is not published now was running all the time in between.
        published = self.published._get_value()
        self._order_reads()
        running = claimed > published and not self.words[SENDING]
        return Snapshot(max(claimed, published), published, self.marks[published], running)

    def _order_reads(self) -> None:
        """What is read after this was written before the counts were raised that were read before it."""
        self._fence.release()
        self._fence.acquire(False)

    def segments(self, start: int, stop: int, first_id: int, pid: int, attempt: int) -> Iterator[Segment]:
        """Copies of the results of the batch's jobs start..stop-1, but for those that travel by themselves."""
        outcomes = bytes(self.outcomes[:stop])
        while start < stop:
            elsewhere = outcomes.find(Outcome.ELSEWHERE, start)
            end = stop if elsewhere < 0 else elsewhere
            if start < end:
                yield self.segment(start, end, first_id, pid, attempt)
            start = end + 1

    def segment(self, start: int, stop: int, first_id: int, pid: int, attempt: int) -> Segment:
        """A copy of the results of the batch's jobs start..stop-1."""
        base = self.ends[start - 1] if start else 0
        return Segment(
            first_id + start,
            stop - start,
            base,
            pid,
            attempt,
            bytes(self.marks[start : stop + 1]),
            bytes(self.ends[start:stop]),
            bytes(self.outcomes[start:stop]),
            bytes(self.payload[base : self.ends[stop - 1]]),
        )

    def expire(self, job_id: int) -> None:
        """Mark the job that must stop; the worker's signal handler looks here."""
        self.words[EXPIRED] = job_id + 1


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("bossworker", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
    import tempfile  # takes as long to import as half of this package, and is hardly ever needed

    with tempfile.TemporaryFile(prefix="bossworker-") as file:
        return os.dup(file.fileno())

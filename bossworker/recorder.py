"""The flight recorder: memory a worker shares with the boss, where it notes what it does as it does it.

A worker's batch of jobs leaves its trace here by plain memory writes, with no system call a job:

    LIMIT       jobs of the batch the worker may claim; the boss lowers it to take the rest back
    CLAIMED     jobs the worker has claimed: the last of them runs now, or has just ended
    FINISHED    set at the end of the batch
    SENDING     1 while a large result is on its way: its job has ended, and its time does not run on
    EXPIRED     1 + id of the job that must stop (its time is up, or it is cancelled)
    marks       when the batch began, and when each job ended (monotonic seconds)
    ends        where each job's result ends in the payload area
    outcomes    how each job ended
    payload     the results' bytes, end to end

**Claiming.** Worker and boss race for the jobs at the tail: the worker claims one (LIMIT read, CLAIMED written), the
boss takes back the rest (CLAIMED read, LIMIT written). Without exclusion each could miss the other's write and a job
would run twice, so both do it under a semaphore in this memory: 40 ns for the pair of calls when it is free. The
worker may die holding it; the boss then never asks for it again, as a dead worker claims nothing. The boss only ever
tries it: a worker stopped in its critical section cannot stop the boss.

**Publishing.** A result is written before the next job is claimed, so under the semaphore the jobs before the last
claimed one have results: a reader needs no other counter. A processor that reorders writes cannot break this,
because the semaphore's release and acquire order them.

The memory is one unnamed file for the whole pool, a slot a worker. It has no name, so there is nothing to leave behind,
and a full or missing /dev/shm does not matter.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import mmap
import os
import tempfile
from contextlib import suppress
from functools import cache
from typing import NamedTuple, Protocol

from bossworker.messages import Segment

MAX_BATCH = 2048  # jobs; at a microsecond each, 2 ms
MAX_WORKERS = 1024
SLOT_SIZE = 1 << 18  # bytes; only pages that are written to cost memory

_WORDS_SIZE = 4096
_MARKS_AT = _WORDS_SIZE
_ENDS_AT = _MARKS_AT + 8 * (MAX_BATCH + 8)
_OUTCOMES_AT = _ENDS_AT + 8 * MAX_BATCH
_PAYLOAD_AT = _OUTCOMES_AT + MAX_BATCH
PAYLOAD_SIZE = SLOT_SIZE - _PAYLOAD_AT
_FILE_SIZE = mmap.PAGESIZE + MAX_WORKERS * SLOT_SIZE

LIMIT, CLAIMED, FINISHED, EXPIRED, SENDING, FIRST_ID, ATTEMPT = range(7)
_LOCK_AT = 2048  # byte offset of the semaphore in the words page


class Lock(Protocol):
    """What the recorder needs of a semaphore."""

    def acquire(self, block: bool = True, timeout: float | None = None, /) -> bool: ...

    def release(self) -> None: ...


class _NoLock:
    """Where the platform has no unnamed semaphore: batches are then one job long, and are never taken back."""

    def acquire(self, block: bool = True, timeout: float | None = None, /) -> bool:
        return True

    def release(self) -> None:
        pass


class Look(NamedTuple):
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
            look = recorder.look(take_back=True)
            if look is not None and words[ATTEMPT] == 1:
                never.append(range(first_id + look.claimed, first_id + limit))
        return never

    def recorder(self, slot: int, fresh: bool = False) -> Recorder:
        """The recorder of a slot; `fresh`: wiped, for a new worker, as the nursery does before it forks one."""
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
        self.words = self._view[:_LOCK_AT].cast("Q")
        self.marks = self._view[_MARKS_AT:_ENDS_AT].cast("d")
        self.ends = self._view[_ENDS_AT:_OUTCOMES_AT].cast("Q")
        self.outcomes = self._view[_OUTCOMES_AT:_PAYLOAD_AT]
        self.payload = self._view[_PAYLOAD_AT:]
        if fresh:  # the worker before may have died holding the lock
            self._view[:_WORDS_SIZE] = bytes(_WORDS_SIZE)
        self.lock: Lock = _semaphore(view, _LOCK_AT, fresh) or _NoLock()

    # -- the boss's side --------------------------------------------------------------------------------

    def open_batch(self, first_id: int, count: int, attempt: int) -> None:
        """Make ready for a batch. The worker is idle: nobody else touches the slot."""
        words = self.words
        words[LIMIT], words[CLAIMED], words[FINISHED] = count, 0, 0
        words[EXPIRED], words[SENDING] = 0, 0
        words[FIRST_ID], words[ATTEMPT] = first_id, attempt
        self.outcomes[:count] = bytes(count)

    def look(self, take_back: bool = False, dead: bool = False) -> Look | None:
        """What the worker has done so far; None when it is just now writing.

        `take_back` also withdraws the jobs it has not claimed. `dead`: the worker is gone, maybe holding the lock.
        """
        if not dead and not self.lock.acquire(False):
            return None
        claimed = self.words[CLAIMED]
        if take_back:
            self.words[LIMIT] = claimed
        finished, sending = self.words[FINISHED], self.words[SENDING]
        if not dead:
            self.lock.release()
        published = max(claimed - 1, finished, 0)
        return Look(claimed, published, self.marks[published], claimed > published and not sending)

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


@cache
def exclusive() -> bool:
    """Whether this platform has the semaphore that lets a batch hold more than one job."""
    probe = mmap.mmap(-1, mmap.PAGESIZE)
    return _semaphore(probe, 0, True) is not None


def above_stdio(fd: int) -> int:
    """The same file under a number above 2, which programs take for a standard stream."""
    if fd > 2:
        return fd
    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def _unnamed_file() -> int:
    if hasattr(os, "memfd_create"):
        try:
            return os.memfd_create("bossworker", os.MFD_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENOSYS:
                raise
    with tempfile.TemporaryFile(prefix="bossworker-") as file:
        return os.dup(file.fileno())


def _semaphore(area: mmap.mmap | memoryview, at: int, fresh: bool) -> Lock | None:
    """A semaphore of value 1 that lives in `area`; None where the platform has none without a name.

    multiprocessing's own C wrapper is put around it, because it releases and acquires an uncontended semaphore in
    40 ns, a tenth of what calling it through ctypes costs. Named semaphores would need /dev/shm.
    """
    try:
        import _multiprocessing

        anchor = ctypes.c_char.from_buffer(area, at)
        address = ctypes.addressof(anchor)
        if fresh and _libc().sem_init(ctypes.c_void_p(address), 1, 1) != 0:
            return None
        lock = _multiprocessing.SemLock._rebuild(address, _SEMAPHORE_KIND, 1, None)
    except (AttributeError, ImportError, OSError):
        return None
    _kept[address] = lock
    return lock  # type: ignore[no-any-return]


_kept: dict[int, object] = {}
"""Wrappers are never freed: that would sem_close() what libc has not opened, which not every libc forgives."""


_SEMAPHORE_KIND = 1  # as multiprocessing.synchronize.SEMAPHORE; importing that module costs 10 ms


@cache
def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)

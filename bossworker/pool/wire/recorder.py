"""The flight recorder: memory a worker shares with the boss, where it notes what it does as it does it.

A worker's batch of jobs leaves its trace here by plain memory writes, with no system call a job:

    unclaimed   a semaphore: jobs of the batch that may still be claimed
    published   a semaphore: jobs of the batch whose results are here
    SENDING     1 while a large result is on its way: its job has ended, and its time does not run on
    EXPIRED     1 + id of the job that must stop (its time is up, or it is cancelled)
    marks       when the batch began, and when each job ended (monotonic seconds)
    ends        where each job's result ends in the payload area
    outcomes    how each job ended
    payload     the results' bytes, end to end

and the worker's mailbox (see ``mailbox.py``), and what the running job says of its progress (``progress.py``).

**Claiming.** Worker and boss race for the jobs at the tail: before each job the worker lowers `unclaimed` by one,
and the boss lowers it as far as it can. Each job goes to one of them, so none runs twice, whoever is stopped or dies at
whichever instruction. Neither ever waits.

**Publishing.** A result is written, then counted by a post to `published`. Posting releases and taking acquires (in the
sense of memory models), so even on a processor that reorders writes, whoever sees the count sees the results.

**Trust.** A handler may write anywhere in its process's memory, so what the boss and the caller read in a worker's slot
may be anything. They copy it, check that it can be true, and raise ProtocolError where it cannot: that worker is ended.
What only the boss writes (its notes on the pool, and on each worker's batch) lies before the slots, in pages that a
worker can read and not write; it can neither read nor write the slots of others. To post a semaphore that was written
over aborts the process, so the boss and the caller only take.

The memory is one unnamed file for the whole pool (see ``memory_file.py``). It has no name, so there is nothing to leave
behind, and a full or missing /dev/shm does not matter.
"""

from __future__ import annotations

import errno
import mmap
import os
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, NamedTuple

from bossworker.failure import FROM_WORKERS, Outcome
from bossworker.pool.options import MAX_WORKERS
from bossworker.pool.wire.mailbox import ORDER_ROOM, Mailbox
from bossworker.pool.wire.memory_file import NO_ACCESS, READ_ONLY, mapped, protect, unnamed_file
from bossworker.pool.wire.messages import FIRST_CLIENT_ID, ProtocolError
from bossworker.pool.wire.progress import ROOM as PROGRESS_ROOM
from bossworker.pool.wire.progress import Progress, read_progress
from bossworker.pool.wire.segments import Segment
from bossworker.pool.wire.shared_counter import exclusive, fence, set_counter, shared_counter
from bossworker.system.compiled import core

MAX_BATCH = 4096  # jobs; at a microsecond each, 4 ms
SLOT_SIZE = 3 << 17  # bytes; only pages that are written to cost memory

_WORDS_SIZE = 4096
_MARKS_AT = _WORDS_SIZE
_ENDS_AT = _MARKS_AT + 8 * (MAX_BATCH + 8)
_OUTCOMES_AT = _ENDS_AT + 8 * MAX_BATCH
_PAYLOAD_AT = _OUTCOMES_AT + MAX_BATCH
_ORDER_AT = SLOT_SIZE - ORDER_ROOM
PAYLOAD_SIZE = _ORDER_AT - _PAYLOAD_AT

EXPIRED, SENDING = range(2)
# With logs="relay". The worker's: how often it has written to its output pipes; whether anything was printed since the
# last mark; how many jobs to come are looked after, however short they are; READS as of the last look.
WRITES, DIRTY, CAREFUL, LOOKED = 64, 65, 66, (67, 68)
# The boss's: how often it has begun or ended to read the pipe of stdout, and that of stderr; how many bytes it has read
# of the latter.
READS, BYTES_READ = (72, 73), 74
MEASURED_JOB, OWN_BEFORE, BELOW_BEFORE = 40, 41, 42
# With a limit for the memory of jobs: 1 + id of the job that began last; bytes that the worker and those below it held.
STACK_FD = 48  # a descriptor of the worker's, of the file that it writes its stack to; 0: it has none
STACK_FILE = "bossworker-stack"  # the name that it has in /proc
_UNCLAIMED_AT, _PUBLISHED_AT = 2048, 2304  # byte offsets of semaphores in the words page, far apart
_WORDS_END = _UNCLAIMED_AT
_PROGRESS_AT = _WORDS_SIZE - PROGRESS_ROOM

# The boss's notes: words on the pool, then five on each slot's batch.
_ASSIGNED, _SLOTS, _HELD, _MOST_HELD, BOSS_ASLEEP = range(5)
LIMIT, FIRST_ID, ATTEMPT, EXCESS, TAKING = range(5)
# LIMIT: jobs the worker was given, less those that the boss took back; EXCESS: bytes that the job which must stop has
# taken, if that is why; else 0. TAKING: 1 while jobs are being taken back.
_NOTES_AT, _NOTES_SIZE = 4096, 40  # bytes; of each slot
_SLOTS_AT = -(-(_NOTES_AT + MAX_WORKERS * _NOTES_SIZE) // mmap.PAGESIZE) * mmap.PAGESIZE
_FILE_SIZE = _SLOTS_AT + MAX_WORKERS * SLOT_SIZE

_LOOP_LAYOUT = (
    _UNCLAIMED_AT,
    _PUBLISHED_AT,
    _MARKS_AT,
    _ENDS_AT,
    _OUTCOMES_AT,
    _PAYLOAD_AT,
    PAYLOAD_SIZE,
    8 * DIRTY,
    8 * READS[0],
)
"""Where in a slot the compiled loop (``native/worker_loop.c``) finds what it writes."""

_NOTED = FROM_WORKERS + bytes((Outcome.ELSEWHERE,))  # how a job may have ended


class Snapshot(NamedTuple):
    """What the boss saw of a batch at one instant."""

    claimed: int
    published: int  # jobs from the front whose results are there
    started: float  # when the last claimed job began (monotonic seconds)
    running: bool  # whether that job is still in the handler


class Memory:
    """The pool's shared file: the boss's notes, then a slot a worker. `fd`: of a file that another process has made."""

    size = _FILE_SIZE
    keep_results: Callable[[Segment], None] | None = None
    """What the boss does with results that it is about to send; None: nothing."""

    def __init__(self, fd: int | None = None) -> None:
        try:
            self.fd: int | None = unnamed_file(self.size) if fd is None else fd
            self._view = mapped(self.fd, self.size)
        except OSError as error:
            self.close_file()
            if error.errno in (errno.EMFILE, errno.ENFILE):
                raise
            need = f"a pool needs {self.size >> 20} MiB of address space, and a sparse file as large, mostly unused"
            raise OSError(error.errno, f"{error.strerror} ({need})") from error
        self.words = self._view[:_NOTES_AT].cast("Q")

    @property
    def assigned_through(self) -> int:
        """1 + the highest id of a job that was given to a worker: what lies above never ran."""
        return self.words[_ASSIGNED]

    @assigned_through.setter
    def assigned_through(self, value: int) -> None:
        self.words[_ASSIGNED] = value

    def note_boss(self) -> None:
        """This process is the boss. (What is noted by these four is for the file of a pool with a journal.)"""

    def note_fork_server(self) -> None:
        """This process is the fork server."""

    def note_assigned(self, slot: int, batch_end: int) -> None:
        """The boss is about to give a batch to the worker in this slot; `batch_end`: 1 + the last job's id."""
        if batch_end <= FIRST_CLIENT_ID:  # it is the caller's to know
            self.assigned_through = max(self.assigned_through, batch_end)

    def note_exit(self, slot: int) -> None:
        """The worker in this slot is dead, and all that it has left was taken."""

    @property
    def held(self) -> int:
        """How many descriptors of large payloads the boss holds."""
        return self.words[_HELD]

    @held.setter
    def held(self, value: int) -> None:
        self.words[_HELD] = value

    @property
    def boss_asleep(self) -> bool:
        """Whether the boss must be woken to see a report."""
        return self.words[BOSS_ASLEEP] != 0

    @boss_asleep.setter
    def boss_asleep(self, value: bool) -> None:
        self.words[BOSS_ASLEEP] = value

    @property
    def most_held(self) -> int:
        """How many it may hold."""
        return self.words[_MOST_HELD]

    @most_held.setter
    def most_held(self, value: int) -> None:
        self.words[_MOST_HELD] = value

    @property
    def slots(self) -> int:
        """How many slots have been used."""
        return self.words[_SLOTS]

    @slots.setter
    def slots(self, value: int) -> None:
        self.words[_SLOTS] = value

    def withdraw(self) -> list[range]:
        """After the boss's death: bar the workers from claiming more; the ids of the jobs that thus never start."""
        never: list[range] = []
        for slot in range(min(self.slots, MAX_WORKERS)):
            recorder = self.recorder(slot)
            limit, first_id, attempt, *_ = recorder.notes
            try:
                claimed = recorder.take_back().claimed
            except ProtocolError:  # nobody knows what it has run
                continue
            if attempt == 1:
                never.append(range(first_id + claimed, first_id + limit))
        return never

    def recorder(self, slot: int, fresh: bool = False) -> Recorder:
        """The recorder of a slot; `fresh`: wiped, for a new worker, as the fork server does before it forks one."""
        notes = _NOTES_AT + slot * _NOTES_SIZE
        at = _SLOTS_AT + slot * SLOT_SIZE
        return Recorder(self._view[at : at + SLOT_SIZE], self._view[notes : notes + _NOTES_SIZE], fresh, slot)

    def running_progress(self) -> Iterator[tuple[int, Progress]]:
        """The jobs that run now and say how far they are. For the caller: the boss need not be asked."""
        for slot in range(min(self.slots, MAX_WORKERS)):
            recorder = self.recorder(slot)
            with suppress(ProtocolError):  # a handler has written over it, or the boss gives out jobs just now
                snapshot = recorder.snapshot()
                job_id = recorder.notes[FIRST_ID] + snapshot.claimed - 1
                if snapshot.running and (progress := read_progress(recorder.progress, job_id)) is not None:
                    yield job_id, progress

    def keep_only(self, slot: int) -> None:
        """In a worker: leave it its own slot to write to, and the boss's notes to read."""
        at = _SLOTS_AT + slot * SLOT_SIZE
        protect(self._view[:_SLOTS_AT], READ_ONLY)
        protect(self._view[_SLOTS_AT:at], NO_ACCESS)
        protect(self._view[at + SLOT_SIZE :], NO_ACCESS)

    def close_file(self) -> None:
        """Close the descriptor: every process that needs the memory has it mapped, or was forked from one that has."""
        fd, self.fd = getattr(self, "fd", None), None
        if fd is not None:
            os.close(fd)

    def close(self) -> None:
        """Give back what this process holds of it; the mapping goes with the last recorder that is still in use."""
        self.close_file()
        self.words.release()
        self._view.release()


class Recorder:
    """A worker's slot, as mapped by the worker itself or by the boss."""

    def __init__(self, view: memoryview, notes: memoryview, fresh: bool, slot: int) -> None:
        self.slot = slot
        self._view = view
        self.notes = notes.cast("Q")
        self.words = self._view[:_WORDS_END].cast("Q")
        self.progress = self._view[_PROGRESS_AT:_WORDS_SIZE]
        self.marks = self._view[_MARKS_AT:_ENDS_AT].cast("d")
        self.ends = self._view[_ENDS_AT:_OUTCOMES_AT].cast("Q")
        self.outcomes = self._view[_OUTCOMES_AT:_PAYLOAD_AT]
        self.payload = self._view[_PAYLOAD_AT:_ORDER_AT]
        if fresh:
            notes[:] = bytes(_NOTES_SIZE)  # first: as long as a batch is noted, the counts must be its own
            self._view[:_WORDS_SIZE] = bytes(_WORDS_SIZE)
        self.unclaimed = shared_counter(view, _UNCLAIMED_AT, fresh)
        self.published = shared_counter(view, _PUBLISHED_AT, fresh)
        self._fence = fence()
        self.mailbox = Mailbox(self.words, self._view[_ORDER_AT:])
        # What the boss knows of the batch: neither time nor counts run backwards.
        self.opened = 0.0  # when it was handed out (monotonic seconds)
        self._seen_claimed = self._seen_published = 0

    def compiled_loop(self) -> Any:
        """The compiled core's loop over the jobs of a batch, which writes here."""
        return core.Loop(self._view, *_LOOP_LAYOUT)

    # -- the boss's side --------------------------------------------------------------------------------

    def open_batch(self, first_id: int, count: int, attempt: int, now: float) -> None:
        """Make ready for a batch. The worker is idle: nobody else touches the slot."""
        notes, words = self.notes, self.words
        # Whoever looks behind a boss that was killed in here must not take one batch's counts for the other's: so there
        # is none meanwhile. Nothing counts as begun, and as the order is still to be given, nothing is.
        notes[LIMIT] = 0
        notes[FIRST_ID], notes[ATTEMPT], notes[EXCESS] = first_id, attempt, 0
        words[EXPIRED], words[SENDING] = 0, 0
        self.marks[0] = self.opened = now
        self._seen_claimed = self._seen_published = 0
        self.outcomes[:count] = bytes(count)
        set_counter(self.published, 0)
        set_counter(self.unclaimed, count)
        # Last: from here on the counts mean this batch. The order for it comes later still, so the worker claims
        # nothing before.
        notes[LIMIT] = count

    def snapshot(self) -> Snapshot:
        """What the worker has done so far. ProtocolError, here and below: somebody has written over the slot."""
        # The worker may claim, and publish, between any two of our reads. Claims are read first: what is missing then
        # is one that began since, and the next look finds it.
        return self._snapshot(self.notes[LIMIT] - self.unclaimed._get_value())

    def take_back(self) -> Snapshot:
        """Withdraw the jobs that have not been claimed, where that can be done safely, and look: the rest counts as
        claimed.
        """
        limit = self.notes[LIMIT]
        if not exclusive():
            snapshot = self.snapshot()
            return snapshot._replace(claimed=limit, running=limit > snapshot.published and not self.words[SENDING])
        # A boss that is killed amid the taking leaves a count that is too low, with LIMIT as it was: jobs that it took
        # back would look like claimed. The mark tells whoever looks then.
        self.notes[TAKING] = 1
        try:
            limit -= self._withdraw(limit)
            self.notes[LIMIT] = limit
        finally:
            self.notes[TAKING] = 0
        return self._snapshot(limit)

    def _withdraw(self, limit: int) -> int:
        withdrawn = 0
        # The worker claims from the same count: each job goes to the one whose step came first, and neither waits.
        while withdrawn < limit and self.unclaimed.acquire(False):
            withdrawn += 1
        if self.unclaimed._get_value():
            raise _written_over("more jobs were left than it was given")
        return withdrawn

    def claimed_at_most(self) -> int:
        """Once the boss is dead: how many jobs of the batch may have run. From then on no more can be claimed."""
        limit = self.notes[LIMIT]
        try:
            if self.notes[TAKING]:  # what it had got so far looks like claimed; but nobody claims two without a result
                self._withdraw(limit)
                self.notes[LIMIT] = min(limit, self.published._get_value() + 1)
            return self.take_back().claimed
        except ProtocolError:
            return limit  # nobody knows what it has run

    def _snapshot(self, claimed: int) -> Snapshot:
        # Read after `claimed`: what was claimed then and is not published now was running all the time in between.
        published, limit = self.published._get_value(), self.notes[LIMIT]
        if not self._seen_published <= published <= limit:
            raise _written_over(f"{published} of {limit} jobs published, after {self._seen_published}")
        # What is read from here on was written before the counts were raised that were read above.
        self._fence.release()
        self._fence.acquire(False)
        sending, started = self.words[SENDING], self.marks[published]
        if not (self._seen_claimed <= claimed <= limit and claimed <= published + 1):
            raise _written_over(f"{claimed} of {limit} jobs claimed, after {self._seen_claimed}, {published} published")
        if not self.opened <= started <= time.monotonic():
            raise _written_over(f"a job started at {started}")
        self._seen_claimed, self._seen_published = claimed, published
        return Snapshot(max(claimed, published), published, started, claimed > published and not sending)

    def seconds(self, snapshot: Snapshot) -> float:
        """How long the worker has been at the jobs that are published, from its own start of the batch."""
        began = self.marks[0]
        if not self.opened <= began <= snapshot.started:
            raise _written_over(f"the batch began at {began}")
        return snapshot.started - began

    def results(
        self, start: int, stop: int, first_id: int, pid: int, attempt: int, one_by_one: bool = False
    ) -> Segment:
        """A copy of the results of the batch's jobs start..stop-1, which are published.

        Where each ends is looked at only if somebody in the boss takes them apart (`one_by_one`), or one is no plain
        success: for tiny jobs, to look at each costs as much as all else that the boss does with it.
        """
        outcomes = bytes(self.outcomes[start:stop])
        if outcomes.strip(b"\0"):
            one_by_one = True
            if outcomes.translate(None, _NOTED):
                raise _written_over("a job ended in no way that there is")
        base, end = self.ends[start - 1] if start else 0, self.ends[stop - 1]
        ends = bytes(self.ends[start:stop])
        if not base <= end <= PAYLOAD_SIZE or (one_by_one and not _ascending(base, ends)):
            raise _written_over("results overlap, or lie outside")
        return Segment(
            first_id + start,
            stop - start,
            base,
            pid,
            attempt,
            bytes(self.marks[start : stop + 1]),
            ends,
            outcomes,
            bytes(self.payload[base:end]),
        )

    def expire(self, job_id: int, excess: int = 0) -> None:
        """Mark the job that must stop; the worker's signal handler looks here. `excess`: bytes that it has taken."""
        # Before the mark: the worker may look between the two, and takes what it finds for the reason.
        self.notes[EXCESS] = excess
        self.words[EXPIRED] = job_id + 1


def _ascending(base: int, ends: bytes) -> bool:
    column = [base, *memoryview(ends).cast("Q")]
    return column == sorted(column)


def _written_over(what: str) -> ProtocolError:
    return ProtocolError(f"its flight recorder was written over: {what}")

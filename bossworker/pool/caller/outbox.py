"""The caller's jobs: encoded, given ids, noted in the inbox and sent, as many as there is room for."""

from __future__ import annotations

import sys
import threading
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

from bossworker.pickling import MainDefinitions
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.caller.sent_jobs import as_submitted, kept
from bossworker.pool.caller.state import HandleState
from bossworker.pool.options import Options, check_priority
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import (
    SUBMIT_BYTES,
    SUBMIT_JOBS,
    Batch,
    BatchCursor,
    JobOptions,
    cut_up,
    pack_batches,
    pack_one,
)
from bossworker.pool.wire.codec import Blocks, encode_jobs, encode_one
from bossworker.pool.wire.frames import Part, pack
from bossworker.pool.wire.link import close_fds
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import Parcel
from bossworker.system.checks import check_count, check_seconds
from bossworker.system.one_step import taken_at_once

T = TypeVar("T")


class Outbox:
    """See the module."""

    def __init__(
        self,
        connection: Connection,
        inbox: Inbox,
        state: HandleState,
        options: Options,
        prepare: Callable[[Any], Any] | None = None,
    ) -> None:
        """`prepare` is what the handler wants done to each job where it is added, as far as it travels."""
        self.prepare = prepare
        self._connection = connection
        self._inbox = inbox
        self._options = options
        self._state = state
        self.definitions = None if options.start_method == "spawn" else MainDefinitions()  # that the workers know
        self.by_value = self.definitions if self.definitions is not None else True
        self._default_options = JobOptions(0, options.global_timeout, options.retries, 1)
        self._next_id = 1
        # Ids are given out under it, and jobs sent: by `add` one after the other, others may send in between.
        self._lock = threading.Lock()
        self.dropped: deque[int] = deque()  # ids of jobs that closed maps have left in flight
        self._close_told = False

    def job_options(self, timeout: float | None, priority: int, retries: int | None) -> JobOptions:
        """What holds for the jobs of a call; None: as for the pool."""
        options = self._options
        if timeout is None and priority == 0 and retries is None and type(priority) is int:
            return self._default_options
        return JobOptions(
            check_priority(priority),
            options.global_timeout if timeout is None else check_seconds("timeout", timeout),
            options.retries if retries is None else check_count("retries", retries),
            1,
        )

    def add_one(
        self,
        job: Mapping[Any, Any],
        job_options: JobOptions,
        queue: ResultQueue | None = None,
        admit: Callable[[int], None] | None = None,
    ) -> range:
        """The short way for programs that add one job at a time. `admit` is told its id before it is sent."""
        block = encode_one(self._prepared(job), 0, self.by_value)
        jobs = (as_submitted(job),)
        if self._options.max_pending:
            return self._in_turn(lambda room: self._send_one(block, jobs, job_options, queue, admit))
        with self._lock:
            self._state.check_open()
            return self._send_one(block, jobs, job_options, queue, admit)

    def _send_one(
        self,
        block: bytes | Parcel,
        jobs: Sequence[Mapping[Any, Any]],
        job_options: JobOptions,
        queue: ResultQueue | None,
        admit: Callable[[int], None] | None,
    ) -> range:
        ids = self._new_ids(1)
        if admit is not None:
            admit(ids[0])
        if isinstance(block, Parcel):
            self._submit_parcel(block, job_options, ids, jobs, queue)
        else:
            self._submit(pack_one(ids[0], job_options, block), ids, jobs, queue)
        return ids

    def add(self, jobs: Sequence[Mapping[Any, Any]], job_options: JobOptions) -> range:
        """Send jobs, all or none; their ids."""
        blocks = self.encode(jobs)
        ids = self.reserve(len(jobs))
        self.send(ids, jobs, blocks, job_options)
        return ids

    def encode(self, jobs: Sequence[Mapping[Any, Any]], first: int = 0) -> Blocks:
        """Pickle jobs; an error counts them from `first`."""
        travel = jobs if self._travels_as_it_is else list(map(self._prepared, jobs))
        return encode_jobs(travel, self.by_value, first)

    def _kept(self, jobs: Sequence[Mapping[Any, Any]], blocks: Blocks) -> Sequence[Mapping[Any, Any]]:
        """What is kept of jobs that were encoded."""
        return kept(jobs, blocks) if self._travels_as_it_is else list(map(as_submitted, jobs))

    @property
    def _travels_as_it_is(self) -> bool:
        return self.prepare is None and self._inbox.tap is None

    def _prepared(self, job: Mapping[Any, Any]) -> Mapping[Any, Any]:
        """A job as it is to travel."""
        if self.prepare is not None:
            job = self.prepare(job)
        tap = self._inbox.tap
        return job if tap is None else tap.prepare(job, self.prepare is not None)

    def reserve(self, count: int) -> range:
        """Ids for this many jobs."""
        with self._lock:
            self._state.check_open()
            return self._new_ids(count)

    def start_at(self, first_id: int) -> None:
        """Give out ids from this one on: others of ours are in use."""
        self._next_id = first_id

    def _new_ids(self, count: int) -> range:
        first_id = self._next_id
        self._next_id += count
        self._inbox.note_call(first_id)
        return range(first_id, first_id + count)

    def send(
        self,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        blocks: Blocks,
        job_options: JobOptions,
        queue: ResultQueue | None = None,
    ) -> None:
        """Send encoded jobs, as many at a time as ``max_pending`` leaves room for."""
        jobs = self._kept(jobs, blocks)
        for places, load in loads(ids, blocks, job_options):
            own = jobs[places.start : places.stop]
            if isinstance(load, Parcel):
                submit = partial(self._submit_parcel, load, job_options, ids[places.start : places.stop], own, queue)
                self._in_turn(lambda room: submit())  # noqa: B023 - it is called now
            else:
                self._send_batch(load, own, queue)

    def _send_batch(self, batch: Batch, jobs: Sequence[Mapping[Any, Any]], queue: ResultQueue | None) -> None:
        if not self._options.max_pending:
            self._in_turn(lambda room: self._submit(pack_batches(cut_up(batch)), batch.ids, jobs, queue))
            return
        cursor = BatchCursor(batch)

        def send_some(room: int) -> None:
            start = cursor.taken
            piece = cursor.cut(min(room, SUBMIT_JOBS), SUBMIT_BYTES)
            self._submit(pack_batches([piece]), piece.ids, jobs[start : cursor.taken], queue)

        while len(cursor):
            self._in_turn(send_some)

    def _in_turn(self, act: Callable[[int], T], wanted: int = 1) -> T:
        """Call it with our lock taken, as soon as there is room for as many jobs as are wanted: with how many.

        (This is no context manager: one that is written in Python may be interrupted before it gives a lock back.)
        """
        while True:
            if self._options.max_pending:
                # No lock is held here: `close` needs it, and must not wait for the results that make room.
                self._connection.wait_until(lambda: self._state.closing or self.room() >= wanted)
            with self._lock:
                self._state.check_open()
                # The room may have gone to another thread since it was seen, and the pool may have been closed since:
                # both are looked at under the lock that whoever changes them takes.
                room = self.room()
                if room >= wanted:
                    return act(room)

    def room(self) -> int:
        """How many jobs ``max_pending`` leaves room for."""
        most = self._options.max_pending
        return most - self._inbox.unfinished() if most else sys.maxsize

    def _submit(
        self,
        parts: list[Part],
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        queue: ResultQueue | None = None,
    ) -> None:
        """Note the jobs, then send them: a result must not arrive before its job is known."""
        try:
            # Noted first: the boss may answer before `send_packed` returns, and the thread that listens drops results
            # of jobs that it does not know.
            if len(jobs) == 1:
                self._inbox.expect_one(ids[0], jobs[0], queue)
            else:
                self._inbox.expect(ids[0], jobs, queue)
            self._connection.send_packed(parts)
        except BaseException:
            # Ctrl-C may have come before the frames were queued, or while they were being sent. In the second case the
            # rest goes out with the next call: the jobs will run, and are waited for.
            if not self._connection.was_queued(parts):
                self._inbox.jobs.retract(ids)
            raise
        if self.dropped:
            self.cancel_dropped()

    def _submit_parcel(
        self,
        parcel: Parcel,
        job_options: JobOptions,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        queue: ResultQueue | None = None,
    ) -> None:
        """The same for one large job. Its file's descriptor is the link's once it is queued; until then it is ours."""
        fds: list[int] = []
        try:
            lent = self._connection.memory_files.lend(parcel, fds, ids[0])
            parts = pack_one(ids[0], job_options, parcel.table() if lent else parcel.inline(), fds)
        except BaseException:
            close_fds(fds)
            raise
        try:
            self._submit(parts, ids, jobs, queue)
        except BaseException:
            if not self._connection.was_queued(parts):
                close_fds(fds)
            raise

    def cancel_dropped(self) -> None:
        """Cancel what closed maps have left in flight, if that can be done at once."""
        ids = list(self.dropped)
        if ids and self._connection.try_send(pack(Kind.CANCEL, messages.REQUEST.pack(0), [array("Q", ids).tobytes()])):
            # Each by its id: another thread, or a map that the garbage collector has closed amid this, may have
            # cancelled some of them, and have added others. To cancel a job twice does no harm.
            for job_id in ids:
                with suppress(ValueError):
                    self.dropped.remove(job_id)

    def close(self, timeout: float | None) -> None:
        """Tell the boss that no more jobs will come. TimeoutError: others add some, and do not stop in time."""
        held: list[bool] = []
        try:
            if not taken_at_once(self._lock, held, -1 if timeout is None else min(timeout, threading.TIMEOUT_MAX)):
                raise TimeoutError(f"another thread was adding jobs for more than {timeout} seconds")
            if not self._close_told:
                # Under the lock: a call that has passed `check_open` there has sent its jobs by now, so they stand
                # before the CLOSE.
                self._state.closing = True
                self._connection.send(Kind.CLOSE)
                self._close_told = True
        finally:
            if held:
                self._lock.release()
        self._connection.wake()  # whoever waits for room does so in vain now


def loads(ids: range, blocks: Blocks, job_options: JobOptions) -> Iterator[tuple[range, Batch | Parcel]]:
    """A call's jobs as they are sent: batches, and large ones by themselves; with each, which of the jobs those are."""
    start = 0
    for stretch in blocks.stretches():
        stop = start + sum(stretch.counts)
        payload = stretch.payload()
        if isinstance(payload, Parcel):
            yield range(start, stop), payload
        else:
            batch = Batch(ids[start], stop - start, 0, job_options, stretch.counts, stretch.sizes, payload)
            yield range(start, stop), batch
        start = stop

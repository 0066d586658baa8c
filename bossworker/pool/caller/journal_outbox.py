"""Calls that return once their jobs are in the journal: see ``journaled.py``."""

from __future__ import annotations

from array import array
from base64 import b64decode
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from bossworker.errors import JournalError
from bossworker.jobkey import job_key
from bossworker.journal.database import MOST_BYTES
from bossworker.journal.ranges import Ranges
from bossworker.pool.caller.journal_line import JournalConnection
from bossworker.pool.caller.outbox import Outbox, loads
from bossworker.pool.caller.recalled import jobs_of
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch, JobOptions, cut_up, pack_batches, pack_one
from bossworker.pool.wire.codec import Blocks
from bossworker.pool.wire.frames import Part, pack
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import Parcel

if TYPE_CHECKING:
    from bossworker.pool.caller.door_connection import DoorConnection

NO_KEY = bytes(32)

Asking = Generator[tuple[Kind, bytes, list[bytes]], dict[str, Any] | None, None]
"""Steps that yield what is to be asked for, as `Connection.request` takes it, and go on with the answer. So they run in
a thread that waits for it, and on an event loop as well."""


class JournalOutbox(Outbox):
    """An outbox whose calls return once their jobs are on the disk. JournalError: none of a call's jobs was taken."""

    _connection: JournalConnection | DoorConnection

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._all_keyed = False
        self._numbers: dict[int, int] = {}  # of the requests to record calls, by their first ids

    def add_one(
        self,
        job: Mapping[Any, Any],
        job_options: JobOptions,
        queue: ResultQueue | None = None,
        admit: Callable[[int], None] | None = None,
    ) -> range:
        ids = super().add_one(job, job_options, queue, admit)
        self._await_record(ids)
        return ids

    def send(
        self,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        blocks: Blocks,
        job_options: JobOptions,
        queue: ResultQueue | None = None,
    ) -> None:
        self._check_sizes(blocks)
        jobs = self._kept(jobs, blocks)
        parts = list(_parts(ids, blocks, job_options))
        # A call is accepted as a whole: so there has to be room for all of it, or for as many as there ever is.
        self._in_turn(
            lambda room: self._submit(parts, ids, jobs, queue),
            min(len(ids), self._options.max_pending or len(ids)),
        )
        self._await_record(ids)

    def _submit(
        self, parts: list[Part], ids: range, jobs: Sequence[Mapping[Any, Any]], queue: ResultQueue | None = None
    ) -> None:
        """With what ends the call behind it, in one: or the scribe would wait for the rest of what Ctrl-C has cut."""
        super()._submit(parts + self._end_of_call(ids), ids, jobs, queue)

    def _end_of_call(self, ids: range) -> list[Part]:
        """What says that all of a call has been sent, and asks for word that it is on the disk."""
        self._numbers[ids.start] = number = self._connection.new_number()
        return pack(Kind.RECORD, messages.REQUEST.pack(number))

    def _submit_parcel(
        self,
        parcel: Parcel,
        job_options: JobOptions,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        queue: ResultQueue | None = None,
    ) -> None:
        if len(parcel) > MOST_BYTES:
            raise JournalError(f"the job has {len(parcel)} bytes, and a journal keeps at most {MOST_BYTES} of one")
        self._submit(pack_one(ids[0], job_options, parcel.inline()), ids, jobs, queue)

    def _check_sizes(self, blocks: Blocks) -> None:
        for at, size in zip(accumulate(blocks.counts, initial=0), map(len, blocks.parts)):
            if size > MOST_BYTES:
                raise JournalError(f"job {at} has {size} bytes, and a journal keeps at most {MOST_BYTES} of one")

    def _await_record(self, ids: range) -> None:
        # The answer may be here already: the number was given before the frames were sent.
        refused = self._connection.await_record(self._numbers.pop(ids.start), ids)
        if refused:
            self._inbox.forget(ids)
            raise self._refused(refused)
        if self._connection.gone:
            self._state.check_alive()

    def _refused(self, why: str) -> JournalError:
        return JournalError(f"the journal {self._options.journal or 'of the pool'} did not take the jobs: {why}")

    # -- jobs that may be there already -----------------------------------------------------------------

    def resume(self, jobs: Sequence[Mapping[Any, Any]], job_options: JobOptions) -> range:
        """As `add`, of jobs that are not run if they have a good result."""
        blocks = self.encode(jobs)
        ids = self.reserve(len(jobs))
        self.send_resumed(ids, jobs, blocks, job_options)
        return ids

    def send_resumed(
        self,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        blocks: Blocks,
        job_options: JobOptions,
        queue: ResultQueue | None = None,
    ) -> None:
        """As `send`, of such jobs."""
        steps, answer = self.resuming(ids, jobs, blocks, job_options, queue), None
        with suppress(StopIteration):
            while True:
                answer = self._connection.request(*steps.send(answer))

    def resuming(
        self,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        blocks: Blocks,
        job_options: JobOptions,
        queue: ResultQueue | None = None,
    ) -> Asking:
        """The steps of that. TypeError: a job has no ``job_key``; nothing was asked for then."""
        self._check_sizes(blocks)
        keys = [self._key(at, job) for at, job in enumerate(jobs)]
        yield from self._key_the_rest()
        self._inbox.expect(ids[0], self._kept(jobs, blocks), queue)
        try:
            yield from self._send_rest(ids, jobs, blocks, job_options, keys)
        except BaseException:
            self._inbox.forget(ids)  # (if they were sent all the same, nobody is told of their results)
            raise
        self._await_record(ids)

    def _send_rest(
        self,
        ids: range,
        jobs: Sequence[Mapping[Any, Any]],
        blocks: Blocks,
        job_options: JobOptions,
        keys: list[bytes],
    ) -> Asking:
        """Send those of the jobs that have to be run."""
        answer = yield Kind.RESUME, messages.FIRST_ID.pack(ids[0]), keys
        found = self._found(answer)
        left = Ranges([range(len(jobs))])
        for at in found:
            left.remove(at, at + 1)
        parts: list[Part] = []
        for run in left:
            some = blocks if len(run) == len(jobs) else self.encode(jobs[run.start : run.stop])
            parts += _parts(ids[run.start : run.stop], some, job_options)
        told = [at for run in left for at in run]
        parts += pack(Kind.KEYS, array("Q", [ids[at] for at in told]).tobytes(), [keys[at] for at in told])
        self._connection.send_packed(parts + self._end_of_call(ids))

    def _key(self, at: int, job: Mapping[Any, Any]) -> bytes:
        try:
            return bytes.fromhex(job_key(job if self.prepare is None else self.prepare(job)))
        except TypeError as error:
            raise TypeError(f"job {at} has no job_key to resume it by: {error}") from error

    def _found(self, answer: dict[str, Any] | None) -> list[int]:
        """Positions of the jobs whose results come from the journal."""
        if answer is None:
            self._state.check_alive()
            return []
        self._inbox.discard(answer["forget"])
        return list(answer["found"])

    def _key_the_rest(self) -> Asking:
        """Tell the scribe the keys of jobs that were added without: only this program can load them."""
        while not self._all_keyed:
            answer = yield Kind.UNKEYED, b"", []
            batches = [] if answer is None else answer["batches"]
            self._all_keyed = not batches
            for told in batches:
                batch = Batch.read(memoryview(bytes.fromhex(told["head"])), memoryview(b64decode(told["body"])))
                keys = [_key_of(job) for job in jobs_of(batch)]
                self._connection.send(Kind.KEYS, array("Q", batch.ids).tobytes(), keys)
            noted = (yield Kind.RECORD, b"", []) if batches else None
            if noted and "refused" in noted:  # else they would be asked for again, for as long as the disk is full
                raise self._refused(noted["refused"])


def _key_of(job: Any) -> bytes:
    """The key of a job that was added before; NO_KEY if it has none."""
    try:
        return bytes.fromhex(job_key(job))
    except Exception:  # it is none, since it could not be loaded; or what is in it cannot be hashed
        return NO_KEY


def _parts(ids: range, blocks: Blocks, job_options: JobOptions) -> Iterator[Part]:
    """A call's jobs as frames."""
    for places, load in loads(ids, blocks, job_options):
        if isinstance(load, Parcel):
            yield from pack_one(ids[places.start], job_options, load.inline())
        else:
            yield from pack_batches(cut_up(load))

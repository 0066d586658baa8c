"""The scribe: the process that owns a journal. It stands on the line between a program and its boss.

    program  --SUBMIT, RECORD-->  scribe  --SUBMIT-->   boss
             <-----RESULTS------          <--RESULTS--

Jobs are committed, and then passed to the boss; results are committed, and then passed to the program. What has come
while a commit was under way is one transaction, with one sync: many threads that add a job each share it, and the
results of a thousand short jobs do. Whatever else the two say to each other passes through, in its order.

One turn: read what has come; write it down; pass it on. Nothing is passed on that was not written down.
"""

from __future__ import annotations

import select
import time
from collections.abc import Iterable, Iterator
from math import inf

from bossworker.errors import CANCELLED
from bossworker.failure import KIND_BITS, Outcome, encode_text
from bossworker.journal import recovery
from bossworker.journal.adding_side import AddCall
from bossworker.journal.answers import NOT_NOW, NotDone
from bossworker.journal.boss_side import BossSide
from bossworker.journal.caller_side import CallerSide
from bossworker.journal.client_table import FIRST_OF_CLIENTS
from bossworker.journal.contents import Contents
from bossworker.journal.database import FIRST_OF_SCRIBE, Database, DiskFull
from bossworker.journal.door_jobs import DoorJobs
from bossworker.journal.forgetting import Forgetting
from bossworker.journal.job_lanes import Lanes, Piece
from bossworker.journal.jobs_table import empty, is_large
from bossworker.journal.questions import Questions
from bossworker.journal.ranges import Ranges
from bossworker.journal.resuming import Resuming
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.messages import WARNING
from bossworker.pool.wire.segments import Segment, single, split
from bossworker.system.wall_clock import wall_clock

RETRY_SECONDS = 0.2  # between tries to record results on a disk that is full
MARK_SECONDS = 0.05  # after this long, at most, it is on the disk which results the program has got
FINISH_SECONDS = 1.0  # to forget at the end what is too much or too old: the program waits for it
_CLOSING = "the pool is being shut down"


class Scribe:
    """See the module. `run` returns once the pool has ended, and all that came of it is on the disk."""

    def __init__(
        self,
        caller: CallerSide,
        boss: BossSide,
        store: Database,
        lanes: Lanes,
        memory: FiledMemory,
        left: Ranges,
        forgetting: Forgetting,
    ) -> None:
        """`left`: ids of the jobs that an earlier owner has left, with results that nobody has got or without."""
        self.caller = caller
        self.boss = boss
        self.store = store
        self.lanes = lanes
        self.memory = memory
        self.unrecorded: list[Segment] = []  # results that are not on the disk yet
        self.recorded: list[Segment] = []  # results of our own making that are, and that the program has not been sent
        self.retrieved = Ranges()  # ids of jobs whose results the program has got, not on the disk yet
        self.retrieved_at = 0.0  # when the first of them was told of
        self.try_again = 0.0  # when, on a full disk
        self.cancelled: set[int] = set()  # ids of jobs that the boss was told to cancel
        self.forgetting = forgetting
        self.resuming = Resuming(store, caller, left)
        self.doors = DoorJobs(store, self.cancel)
        self.questions = Questions(store.path)
        self.contents = Contents(store, self._running, self._retry_ids, self._accept_retries)

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> bool:
        """Whether it is on the disk what became of each job: the recorders are of no use any more then."""
        try:
            while not self.boss.ended:
                self.read(self.wait())
                self.write_down()
                self.cancel_some()
                self.pass_on()
                self.forgetting.look()
            return self.end()
        finally:
            self.questions.close()

    def wait(self) -> set[int]:
        """Sleep until something has come, or is due; the descriptors on which something has happened."""
        poll = select.poll()
        for side in (self.caller, self.boss, *self.doors.sides):
            side.register(poll)
        due = [at for at in (self.try_again, self.retrieved_at and self.retrieved_at + MARK_SECONDS) if at]
        if self.forgetting.due() < inf:
            due.append(self.forgetting.due())
        self.questions.register(poll)
        if not self.caller.stopping and self.lanes.has_room():  # what was just recorded has made room: nobody wakes us
            due.append(max(0.0, self.try_again))
        seconds = max(0.0, min(due) - time.monotonic()) if due else None
        ready = {fd for fd, _ in poll.poll(None if seconds is None else seconds * 1000 + 1)}
        self.questions.answer(self.contents, ready)
        return ready

    def read(self, ready: set[int]) -> None:
        """Take in what has come from both."""
        if self.caller.is_ready(ready):
            self.caller.read()
        if self.caller.ended:
            self.boss.hang_up()  # as the program did: the boss ends everything, and we read on until it has
        if self.boss.is_ready(ready):
            self.boss.read()
        self.doors.read(ready, self.caller.take_doors())
        if self.boss.wanted:
            self.lanes.set_least(self.boss.wanted)
            self.boss.wanted = 0
        self.note_retrieved(self.caller.take_retrieved() + self.doors.take_retrieved())
        self.unrecorded += self._wanted(self.boss.take_results())

    def note_retrieved(self, ranges: Iterable[range]) -> None:
        for one in self.resuming.old_ids(ranges):
            self.retrieved.add(one.start, one.stop)
            self.retrieved_at = self.retrieved_at or time.monotonic()

    def _wanted(self, segments: list[Segment]) -> list[Segment]:
        """Results, but for those of jobs that were stopped since the pool is being ended: they were interrupted."""
        if not self.caller.stopping:
            return segments
        ones = [one for segment in segments for one in split(segment)]
        return [one for one in ones if not _is_cancelled(one) or one.first_id in self.cancelled]

    # -- jobs that are cancelled ------------------------------------------------------------------------

    def cancel_some(self) -> None:
        """What is to be cancelled may have come with its call: that is accepted now, and the boss has been told."""
        before = len(self.unrecorded)
        for cancel in self.caller.take_cancels():
            self.cancel(cancel.number, list(map(self.resuming.old_id, cancel.ids)), cancel.how)
        for cancel in self.doors.take_cancels():
            self.cancel(self.doors.number_for(cancel), cancel.ids, cancel.how)
        self.doors.see_off()
        self.note_retrieved(self.doors.take_retrieved())
        if len(self.unrecorded) > before:
            self.write_down()

    def cancel(self, number: int, ids: list[int], how: bytes) -> None:
        """Jobs that wait here end here; the rest is the boss's to cancel."""
        now = time.monotonic()
        removed = self.lanes.remove(ids)
        text = encode_text(CANCELLED)
        ended = [
            single(job_id, 0, attempt - 1, now, now, Outcome.CANCELLED | Outcome.TEXT, text)
            for job_id, attempt in removed
        ]
        self.unrecorded += ended
        self.recorded += ended
        gone = {job_id for job_id, _ in removed}
        rest = [job_id for job_id in ids if job_id not in gone]
        # Noted before the boss hears of it: a result that comes as cancelled while the pool is being ended counts only
        # if somebody had asked for that (`_wanted`).
        self.cancelled.update(job_id for job_id in rest if self.lanes.is_passed(job_id))
        self.boss.cancel(number, rest, how, len(removed))

    # -- writing ----------------------------------------------------------------------------------------

    def write_down(self) -> None:
        """Have on the disk all that is to be passed on. Where there is no room for it, calls are refused."""
        calls = self._admit(self.caller.take_calls() + self.doors.take_calls())
        now = time.monotonic()
        due = self.retrieved and now >= self.retrieved_at + MARK_SECONDS
        if self.try_again > now and not calls:
            return
        accepted = self._accept(calls)
        taken = [] if self.caller.stopping else self.lanes.take(now)
        if not (calls or self.unrecorded or taken or due):
            return
        try:
            # All of it before a word of it goes out. A scribe that is killed before the commit has told nobody of
            # these; behind it, whoever opens the journal next finds all that anybody was told.
            self._commit(calls, accepted, taken)
        except DiskFull as problem:
            self._do_without(calls, accepted, taken, str(problem))
            return
        for call in calls:
            call.accept()
        for piece in taken:
            # The horizon says on the disk that these were passed. If we are killed before they are, the recorders say
            # that they never ran.
            self.boss.submit(self.store.jobs.filled(piece.batch, piece.seq))
        _empty(accepted)

    def _admit(self, calls: list[AddCall]) -> list[AddCall]:
        """Those that the journal has room for, by the limit of its size; the others are refused."""
        admitted, size, theirs = [], 0, Ranges()
        for call in calls:
            reason = self._no_room(size + call.size) if call.size else ""
            if call.line is not self.caller and not reason:
                reason = self.doors.why_not(call, theirs) if not self.caller.closing else _CLOSING
            if reason:
                call.refuse(reason)
            else:
                admitted.append(call)
                size += call.size
        return admitted

    def _no_room(self, size: int) -> str:
        try:
            if self.retrieved and self.forgetting.is_full(size):  # these may be forgotten, once it is on the disk
                self._commit([], [], [])
            return self.forgetting.refusal(size)
        except DiskFull as problem:
            return str(problem)

    def _accept(self, calls: list[AddCall]) -> list[Piece]:
        """Jobs of calls, as what waits to be passed on."""
        pieces: list[Piece] = []
        for call in calls:
            for batch in call.batches:
                piece = Piece(self.store.jobs.next_seq + len(pieces), 0, batch)
                pieces.append(piece)
                self.lanes.add(piece)
        return pieces

    def _commit(self, calls: list[AddCall], accepted: list[Piece], taken: list[Piece]) -> None:
        """One transaction, one sync; and what follows from that."""
        self._write(calls, accepted, taken)
        now = time.monotonic()
        for segment in self.unrecorded:
            ids = range(segment.first_id, segment.first_id + segment.jobs)
            self.lanes.on_done(ids, now)
            if self.cancelled:
                self.cancelled.difference_update(ids)
        self.forgetting.on_got(self.retrieved)
        self.unrecorded, self.retrieved = [], Ranges()
        self.retrieved_at = self.try_again = 0.0

    def _write(self, calls: list[AddCall], accepted: list[Piece], taken: list[Piece]) -> None:
        store, clock = self.store, wall_clock.offset()
        with store.transaction:
            for piece in accepted:
                store.jobs.add(piece.batch, time.time())
                if piece.batch.first_id >= FIRST_OF_CLIENTS:
                    store.clients.note(piece.batch)
            for call in calls:
                if call.keys:
                    store.keys.add(*zip(*call.keys))
            for segment in self.unrecorded:
                store.results.add(segment, clock)
            store.retrieved.add(self.retrieved)
            for piece in taken:
                store.horizons.set(piece.batch.job_options.priority, piece.client, piece.seq, piece.end)

    def _do_without(self, calls: list[AddCall], accepted: list[Piece], taken: list[Piece], problem: str) -> None:
        """There is no room on the disk: refuse the calls, and try later to record the results."""
        self.lanes.put_back(taken)
        self.lanes.remove(job_id for piece in accepted for job_id in piece.batch.ids)
        if accepted:
            self.store.jobs.next_seq = accepted[0].seq
        for call in calls:
            call.refuse(problem)
        if not self.try_again:
            self.caller.note(WARNING, f"journal waits for room: path={self.store.path} error={problem!r}")
        self.try_again = time.monotonic() + RETRY_SECONDS

    # -- what other programs ask ------------------------------------------------------------------------

    def _running(self) -> Iterator[int]:
        return (job_id for job_id in self.memory.running() if self.lanes.is_passed(job_id))

    def _retry_ids(self, count: int) -> range:
        if self.caller.closing:
            raise NotDone("the pool that owns the journal is being shut down: retry when it is gone", NOT_NOW)
        first = self.store.next_id(FIRST_OF_SCRIBE)
        return range(first, first + count)

    def _accept_retries(self, retries: list[tuple[int, Batch]]) -> None:
        """Jobs that another program wants to be run again; our program hears of them."""
        now = time.time()
        if reason := self._no_room(sum(len(batch.payload) for _, batch in retries)):
            raise NotDone(reason, NOT_NOW)
        with self.store.transaction:
            pieces = [Piece(self.store.jobs.add(batch, now, old), 0, batch) for old, batch in retries]
        for piece in pieces:
            self.caller.recall(piece.batch, now)
            self.lanes.add(piece)
        _empty(pieces)

    # -- passing on -------------------------------------------------------------------------------------

    def pass_on(self) -> None:
        """Send what is written down."""
        # Behind the write: what the disk had no room for stays, and with it what came later.
        if self.recorded and not self.unrecorded:
            own = self.doors.send_theirs(self.recorded)
            self.caller.send_results(self.resuming.renamed(own) or own)
            self.recorded = []
        frames = self.boss.take_frames(self.lanes.jobs, self._of_program, not self.unrecorded)
        self.caller.pass_on(self.doors.divert(frames))
        self.doors.welcome(self.retrieved)
        for resume in self.caller.take_resumes():
            self.resuming.answer(resume)
        for number in self.caller.take_unkeyed():
            self.resuming.tell_unkeyed(number)
        self.boss.pass_on(self.caller.take_frames(self.lanes.jobs))

    def _of_program(self, segments: list[Segment]) -> list[Segment] | None:
        """Results under the ids that the program knows them by, without those of clients; None: as they are."""
        own = self.doors.send_theirs(segments)
        renamed = self.resuming.renamed(own)
        return own if renamed is None and own is not segments else renamed

    # -- the end ----------------------------------------------------------------------------------------

    def end(self) -> bool:
        """The boss is gone: write down what became of its jobs, and tell the program; whether that could be done."""
        if not self._write_rest():
            return False
        # Workers may live on for an instant behind the boss, and begin jobs: nothing is read from their recorders
        # before they are gone.
        recovery.await_end(self.memory)
        settled = self._settle()
        self.pass_on()
        self.doors.say_farewell()
        if self.boss.orderly:
            self._await_parting()
        else:
            self.caller.tell_settled(self.store.started)
        self.caller.finish()
        return settled

    def _write_rest(self) -> bool:
        """False: there is no room, and nobody is left to make some."""
        while self.unrecorded or self.retrieved:
            self.retrieved_at = -MARK_SECONDS
            self.write_down()
            if self.try_again:
                if self.caller.ended:
                    return False
                time.sleep(RETRY_SECONDS)
        return True

    def _await_parting(self) -> None:
        """The program, which has all results, says until it hangs up which of them it has got."""
        while not self.caller.ended:
            poll = select.poll()
            self.caller.register(poll)
            poll.poll()
            self.caller.read()
        self.note_retrieved(self.caller.take_retrieved())
        if self._write_rest():
            self.forgetting.finish(FINISH_SECONDS)

    def _settle(self) -> bool:
        books = recovery.read_books(self.store)
        try:
            with self.store.transaction:
                recovery.settle(self.store, books, self.memory, lambda segment: self._wanted([segment]))
        except DiskFull:  # the next owner does it
            return False
        return True


def _empty(pieces: Iterable[Piece]) -> None:
    """What is in files need not be here while it waits."""
    for piece in pieces:
        if is_large(piece.batch):
            empty(piece.batch)


def _is_cancelled(segment: Segment) -> bool:
    return segment.outcomes[0] & KIND_BITS == Outcome.CANCELLED

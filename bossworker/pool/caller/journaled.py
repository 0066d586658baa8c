"""The caller's side of a journal: its scribe, the line through it, and calls that wait until they are recorded.

The scribe stands between the connection and the boss: see ``bossworker/journal``. So what is sent and what arrives is
the same as without it. What comes on top of that: each call of the outbox is accepted or refused; an earlier owner's
jobs are recalled; and the scribe is told which results the program has got.
"""

from __future__ import annotations

import json
import logging
import os
import select
import signal
import time
import weakref
from array import array
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import accumulate
from typing import Any

from bossworker.errors import JournalError, JournalInUse
from bossworker.failure import Outcome, encode_text
from bossworker.jobkey import job_key
from bossworker.journal.database import MOST_BYTES
from bossworker.journal.ranges import Ranges
from bossworker.journal.reader import Journal
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.outbox import Outbox, loads
from bossworker.pool.caller.recalled import jobs_of, recalled_jobs
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.caller.state import HandleState
from bossworker.pool.door.side_process import SideProcess
from bossworker.pool.launch import Launched, launch
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch, JobOptions, cut_up, pack_batches, pack_one
from bossworker.pool.wire.codec import Blocks
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.frames import Frame, Part, pack
from bossworker.pool.wire.link import LinkClosed, close_fds
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import Parcel
from bossworker.pool.wire.segments import read_segments, single
from bossworker.system import processes
from bossworker.system.callers_line import warn_caller
from bossworker.system.exits import run_at_exit
from bossworker.system.mounts import file_system_of, is_shared

NO_KEY = bytes(32)
SCRIBE = "bossworker.journal.scribe"
END_SECONDS = 10.0  # for the scribe to write down the last of it
CHEAP_SECONDS = 0.0001  # a look which results the program has got may take this long each time;
LOOK_SHARE = 20  # after a longer one, the next is not due for this many times as long
_logger = logging.getLogger("bossworker")


class OpenJournal:
    """A journal that this program owns: its scribe is up, and has taken over what an earlier owner left."""

    def __init__(self, options: Options) -> None:
        """JournalInUse, JournalError: see `BossWorker`."""
        self._options = options
        _warn_of_file_system(os.path.dirname(options.journal))
        settings = {
            "journal": options.journal,
            "interrupted": options.interrupted,
            "workers": options.worker_count,
            "name": options.name,
            "program": os.getpid(),
        }
        self._scribe = SideProcess(SCRIBE, settings)
        try:
            told, fd = self._opened()
        except BaseException:
            self._scribe.end()
            raise
        self.next_id: int = told["next_id"]
        self._fd: int | None = fd
        self._connection: JournalConnection | None = None
        _say_recovered(told)

    def _opened(self) -> tuple[dict[str, Any], int]:
        """What the scribe says, and the file of the flight recorders."""
        link = self._scribe.link
        while True:
            processes.await_fd(link.fileno(), select.POLLIN)
            try:
                link.pull()
            except LinkClosed:
                if not link.frames:
                    why = "its scribe ended before it was open"
                    raise JournalError(f"the journal {self._options.journal} cannot be used: {why}") from None
            if not link.frames:
                continue
            frame = link.frames.pop(0)
            told = json.loads(bytes(frame.body))
            if "error" in told:
                raise (
                    JournalInUse(told["text"], told["pid"]) if told["error"] == "in use" else JournalError(told["text"])
                )
            if frame.fd is None:
                raise OSError("no descriptor is left for the journal's file")
            return told, frame.fd

    def launch(
        self, handlers: Handlers, options: Options, connection_type: type[Connection], inbox: Inbox
    ) -> Connection:
        """Start a boss whose line goes through the scribe."""
        fd, self._fd = self._fd, None
        assert fd is not None
        launched = launch(handlers, options, FiledMemory(fd))
        try:
            boss = launched.link.sock
            self._scribe.link.send(Kind.ATTACH, b"", (), (boss.detach(),))
            scribed = Launched(launched.pid, self._scribe.link, launched.memory)
            kind = type(f"Journal{connection_type.__name__}", (JournalConnection, connection_type), {})
            self._connection = kind(scribed, inbox, self._scribe, self._options.journal)
        except BaseException:
            launched.abandon()
            raise
        return self._connection

    def attach(self, outbox: Outbox, state: HandleState) -> None:
        """The handle is put together."""
        outbox.start_at(self.next_id)
        state.tells_others = True
        assert self._connection is not None
        _connections.add(self._connection)
        run_at_exit(_mark_all)

    @property
    def outbox_type(self) -> type[Outbox]:
        return JournalOutbox

    def await_recovery(self) -> None:
        """Wait until all is here that an earlier owner has left."""
        line = self._connection
        assert line is not None
        line.wait_until(lambda: line.all_recalled)

    def abandon(self) -> None:
        """The pool was not started."""
        if self._fd is not None:
            close_fds([self._fd])
            self._fd = None
        self._scribe.end()


def _warn_of_file_system(folder: str) -> None:
    with suppress(OSError):
        kind, mounted = file_system_of(folder)
        if is_shared(kind):
            text = f"the journal lies in {folder}, on {kind} (mounted at {mounted})"
            advice = "its locks and syncs may not be what a journal relies on: put it on a local disk"
            warn_caller(f"{text}: {advice}", RuntimeWarning)


def _say_recovered(told: Mapping[str, int]) -> None:
    queued, interrupted, rerun = told["queued"], told["interrupted"], told["rerun"]
    if queued or interrupted:
        fate = f"{rerun} run again" if rerun else f"{interrupted} interrupted"
        _logger.info("recovered %d jobs: %d never started, %s", queued + interrupted, queued, fate)


class JournalConnection(Connection):
    """See the module. The process that it watches is the scribe: the boss's end is the scribe's to tell."""

    def __init__(self, launched: Launched, inbox: Inbox, scribe: SideProcess, path: str) -> None:
        super().__init__(launched, inbox)
        self._scribe = scribe
        self._path = path
        self._owner = os.getpid()
        self._watch_scribe()
        self.all_recalled = False
        self._unanswered: dict[int, range] = {}  # calls that nobody waits for, by the numbers of their requests: ids
        self._trouble = ""  # why the scribe has given up
        self._settled: Ranges | None = None  # once the boss has died: ids of the jobs that may have run
        self._here = Ranges()  # ids of jobs whose results have come, and that the scribe has not been told of
        self._given_out: list[range] = []  # of these, those that the program has got, as of the last look
        self._next_look = 0.0
        self._dropped = False  # results that are here are being dropped: they do not count as given out

    def _watch_scribe(self) -> None:
        if self._boss_fd is not None:
            self._selector.unregister(self._boss_fd)
            close_fds([self._boss_fd])
        self._boss_fd = processes.pidfd(self._scribe.pid)
        if self._boss_fd is not None:
            self._selector.register(self._boss_fd, select.POLLIN)

    def alive(self) -> bool:
        return not self.gone and processes.is_alive(self._scribe.pid)

    def who_died(self) -> str:
        if self._trouble:
            return f"the pool's scribe (process {self._scribe.pid}) gave up ({self._trouble}); the pool"
        if self._settled is None:
            return f"the pool's scribe (process {self._scribe.pid})"
        return super().who_died()

    def never_started(self, ids: Iterable[int]) -> set[int]:
        if self._settled is None:
            return super().never_started(ids)
        return {job_id for job_id in ids if job_id not in self._settled}

    # -- receiving --------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RECALL:
                self._recall(frame)
            case Kind.RECALLED:
                self.all_recalled = True
            case Kind.SETTLED:
                ranges = json.loads(bytes(frame.body))
                self._settled = Ranges(range(first, first + count) for first, count in ranges)
            case Kind.OPENED:
                self._trouble = json.loads(bytes(frame.body))["text"]
                _logger.error("journal closed: %s", self._trouble)
            case Kind.RESULTS:
                for segment in read_segments(frame.head, frame.body):
                    self._here.add(segment.first_id, segment.first_id + segment.jobs)
        super()._on_frame(frame)
        if frame.kind is Kind.REPLY and self._unanswered:
            self._look_at_answers()

    def _recall(self, frame: Frame) -> None:
        """Jobs that an earlier owner has added."""
        batch = Batch.read(frame.head, frame.body[messages.MARK.size :])
        self.inbox.note_call(batch.first_id)
        self.inbox.expect(batch.first_id, recalled_jobs(batch))

    # -- calls ------------------------------------------------------------------------------------------

    def await_record(self, number: int, ids: range) -> str:
        """Wait until a call is accepted; why it was not. On an event loop: see to it that its jobs have results."""
        if not self.may_wait():
            self._unanswered[number] = ids
            return ""
        self.wait_until(lambda: self.answered(number))
        answer = self.answer(number)
        return "" if answer is None else answer.get("refused", "")

    def _look_at_answers(self) -> None:
        for number in [number for number in self._unanswered if self.answered(number)]:
            ids, answer = self._unanswered.pop(number), self.answer(number)
            if answer is not None and "refused" in answer:
                now, text = (
                    time.monotonic(),
                    encode_text(f"JournalError: the journal did not take the job: {answer['refused']}"),
                )
                outcome = Outcome.BAD_JOB | Outcome.TEXT
                self.inbox.receive([single(job_id, 0, 0, now, now, outcome, memoryview(text)) for job_id in ids])

    # -- what the program has got -----------------------------------------------------------------------

    # A result counts as retrieved when the program asks for another one, or shuts the pool down in order: so what it
    # was busy with when it died comes again. It is told in two steps: at each look, what was found at the one before.

    # What is got once the pool has ended is written down when all of it is, or when the handle or the program goes.

    def on_given_out(self) -> None:
        if self.closed:
            if self.inbox.outstanding <= 0:
                self.mark_alone()
            return
        now = time.monotonic()
        if now >= self._next_look:
            self._tell_given_out()
            self._look_for_given_out()
            cost = time.monotonic() - now
            self._next_look = now + LOOK_SHARE * cost if cost > CHEAP_SECONDS else 0.0

    def _look_for_given_out(self) -> None:
        here = [job_id for ids in self._here for job_id in ids]
        for one in Ranges(range(job_id, job_id + 1) for job_id in self.inbox.given_out(here)):
            self._here.remove(one.start, one.stop)
            self._given_out.append(one)

    def _tell_given_out(self) -> None:
        ranges = self._given_out
        if not ranges or self._dropped or self.closed:
            return
        body = array("Q", [number for one in ranges for number in (one.start, len(one))]).tobytes()
        if self.try_send(pack(Kind.RETRIEVED, b"", [body])):
            self._given_out = self._given_out[len(ranges) :]

    def _listen(self, seconds: float | None) -> None:
        self.on_given_out()
        self._tell_given_out()
        super()._listen(seconds)

    def before_drop(self) -> None:
        if not self._dropped:
            self._tell_given_out()
            if self.closed:
                self.mark_alone()
            self._dropped = True

    def mark_alone(self) -> None:
        """Once the scribe is gone: write down which results the program has got."""
        if self._owner != os.getpid():
            return
        self._look_for_given_out()
        ranges, self._given_out = self._given_out, []
        if ranges:
            with suppress(JournalError):  # it is gone; or somebody has it who does not answer: they come again
                Journal(self._path).mark_retrieved(ranges)

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, force: bool) -> None:
        if not force and not self.gone:
            self._look_for_given_out()
            self._tell_given_out()
            self._flush()
        super().end(force)
        self.link.close()
        if not processes.wait_for(self._scribe.pid, END_SECONDS):
            with suppress(ProcessLookupError):
                os.kill(self._scribe.pid, signal.SIGKILL)
            processes.wait_for(self._scribe.pid, END_SECONDS)

    def new_number(self) -> int:
        """Of a request."""
        return next(self._numbers)


_connections: weakref.WeakSet[JournalConnection] = weakref.WeakSet()


def _mark_all() -> None:
    for connection in list(_connections):
        if connection.closed:
            connection.before_drop()


class JournalOutbox(Outbox):
    """An outbox whose calls return once their jobs are on the disk. JournalError: none of a call's jobs was taken."""

    _connection: JournalConnection

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
        with self._entry(min(len(ids), self._options.max_pending or len(ids))):
            self._submit(parts, ids, jobs, queue)
        self._await_record(ids)

    def _submit(
        self, parts: list[Part], ids: range, jobs: Sequence[Mapping[Any, Any]], queue: ResultQueue | None = None
    ) -> None:
        """With what ends the call behind it, in one: or the scribe would wait for the rest of what Ctrl-C has cut."""
        number = self._connection.new_number()
        parts += pack(Kind.RECORD, messages.REQUEST.pack(number))
        self._numbers[ids.start] = number
        super()._submit(parts, ids, jobs, queue)

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
        refused = self._connection.await_record(self._numbers.pop(ids.start), ids)
        if refused:
            self._inbox.forget(ids)
            raise JournalError(f"the journal {self._options.journal} did not take the jobs: {refused}")
        if self._connection.gone:
            self._state.check_alive()

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
        keys = [self._key(at, job) for at, job in enumerate(jobs)]
        self._key_the_rest()
        self._inbox.expect(ids[0], self._kept(jobs, blocks), queue)
        try:
            self._send_rest(ids, jobs, blocks, job_options, keys)
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
    ) -> None:
        """Send those of the jobs that have to be run."""
        found = self._found(ids, keys)
        left = Ranges([range(len(jobs))])
        for at in found:
            left.remove(at, at + 1)
        parts: list[Part] = []
        for run in left:
            some = blocks if len(run) == len(jobs) else self.encode(jobs[run.start : run.stop])
            parts += _parts(ids[run.start : run.stop], some, job_options)
        told = [at for run in left for at in run]
        parts += pack(Kind.KEYS, array("Q", [ids[at] for at in told]).tobytes(), [keys[at] for at in told])
        number = self._connection.new_number()
        parts += pack(Kind.RECORD, messages.REQUEST.pack(number))
        self._numbers[ids.start] = number
        self._connection.send_packed(parts)

    def _key(self, at: int, job: Mapping[Any, Any]) -> bytes:
        try:
            return bytes.fromhex(job_key(job if self.prepare is None else self.prepare(job)))
        except TypeError as error:
            raise TypeError(f"job {at} has no job_key to resume it by: {error}") from error

    def _found(self, ids: range, keys: list[bytes]) -> list[int]:
        """Positions of the jobs whose results come from the journal."""
        head = messages.FIRST_ID.pack(ids[0])
        answer = self._connection.request(Kind.RESUME, head, keys)
        if answer is None:
            self._state.check_alive()
            return []
        self._inbox.discard(answer["forget"])
        return list(answer["found"])

    def _key_the_rest(self) -> None:
        """Tell the scribe the keys of jobs that were added without: only this program can load them."""
        while not self._all_keyed:
            answer = self._connection.request(Kind.UNKEYED)
            batches = [] if answer is None else answer["batches"]
            self._all_keyed = not batches
            for told in batches:
                batch = Batch.read(memoryview(bytes.fromhex(told["head"])), memoryview(b64decode(told["body"])))
                keys = [_key_of(job) for job in jobs_of(batch)]
                self._connection.send(Kind.KEYS, array("Q", batch.ids).tobytes(), keys)
            if batches:
                self._connection.request(Kind.RECORD)


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

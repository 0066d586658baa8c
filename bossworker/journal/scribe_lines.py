"""The scribe's two lines, and what it reads from them: calls, results, and what just passes through."""

from __future__ import annotations

import json
import select
import socket
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from bossworker.failure import Outcome, encode_text
from bossworker.journal.database import MOST_BYTES, Database, clock_offset
from bossworker.journal.ranges import Ranges
from bossworker.journal.recovery import Books
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import SUBMIT_BYTES, SUBMIT_JOBS, Batch, BatchCursor
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed, close_fds
from bossworker.pool.wire.messages import BLOCK_SIZE, Kind
from bossworker.pool.wire.parcel import give_back, with_data
from bossworker.pool.wire.segments import END, Segment, part, read_segments
from bossworker.result import STORED
from bossworker.system import processes

KEY_SIZE = 32  # bytes of a job's key; all 0: it has none
RESULTS_BYTES = 1 << 20  # of a frame that we make
MOST_UNSENT = 1 << 26  # bytes that wait for a program which does not read; with more, we read no more from its boss
_INFO = 20  # as in the module logging


class AddCall(NamedTuple):
    """Jobs that are accepted together, or refused."""

    number: int  # of the request
    batches: list[Batch]
    keys: list[tuple[int, bytes]]  # of some of the jobs


class Resume(NamedTuple):
    """A request for results that are there already, of jobs with these keys."""

    number: int
    ids: range  # that the jobs are going to have
    keys: list[bytes]


class Cancel(NamedTuple):
    """A request to cancel jobs."""

    number: int
    ids: list[int]
    head: bytes  # as it came


class _Side:
    """One of the lines. `ended`: nothing more will come."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.ended = False
        self.frames: list[Frame] = []  # that pass through

    def register(self, poll: select.poll) -> None:
        """Wait for what comes from here, or can be sent here."""
        if not self.ended:
            poll.register(self.link.fileno(), select.POLLIN | (select.POLLOUT if self.link.unsent else 0))

    def receive(self) -> list[Frame]:
        """What has come. What came before the other end hung up is no less there for that."""
        if self.ended:
            return []
        with suppress(LinkClosed):
            self.link.flush()
        try:
            while self.link.pull():
                if len(self.link.frames) > 1000:
                    break
        except LinkClosed:
            self.ended = True
        frames, self.link.frames = self.link.frames, []
        return frames

    def send(self, kind: Kind, head: bytes = b"", body: Iterable[Any] = (), fds: tuple[int, ...] = ()) -> None:
        """Send a frame; its end, if it is gone, is noticed as we read."""
        with suppress(LinkClosed):
            self.link.send(kind, head, list(body), fds)


class CallerSide(_Side):
    """The line to the program."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.closing = False  # the program adds no more
        self.stopping = False  # the program ends the pool, with what is queued left in the journal
        self._batches: list[Batch] = []  # of the call that is coming in
        self._keys: list[tuple[int, bytes]] = []
        self._calls: list[AddCall] = []
        self._resumes: list[Resume] = []
        self._unkeyed: list[int] = []
        self._cancels: list[Cancel] = []
        self._retrieved: list[range] = []

    # -- from the program -------------------------------------------------------------------------------

    def read(self) -> None:
        for frame in self.receive():
            match frame.kind:
                case Kind.SUBMIT:
                    self._batches.append(_whole_batch(frame))
                case Kind.RECORD:
                    (number,) = messages.REQUEST.unpack(frame.head)
                    self._calls.append(AddCall(number, self._batches, self._keys))
                    self._batches, self._keys = [], []
                case Kind.KEYS:
                    self._keys += zip(frame.head.cast("Q").tolist(), _cut_keys(frame.body))
                case Kind.RESUME:
                    (number,) = messages.REQUEST.unpack_from(frame.head)
                    (first_id,) = messages.FIRST_ID.unpack_from(frame.head, messages.REQUEST.size)
                    keys = _cut_keys(frame.body)
                    self._resumes.append(Resume(number, range(first_id, first_id + len(keys)), keys))
                case Kind.UNKEYED:
                    self._unkeyed.append(messages.REQUEST.unpack(frame.head)[0])
                case Kind.RETRIEVED:
                    numbers = iter(frame.body.cast("Q").tolist())
                    self._retrieved += [range(first, first + count) for first, count in zip(numbers, numbers)]
                case Kind.CANCEL:
                    (number,) = messages.REQUEST.unpack_from(frame.head)
                    self._cancels.append(Cancel(number, frame.body.cast("Q").tolist(), bytes(frame.head)))
                case _:
                    self.stopping = self.stopping or frame.kind is Kind.STOP
                    self.closing = self.closing or frame.kind in (Kind.STOP, Kind.CLOSE)
                    self.frames.append(frame)

    def take_calls(self) -> list[AddCall]:
        """Calls that are complete."""
        calls, self._calls = self._calls, []
        return calls

    def take_resumes(self) -> list[Resume]:
        resumes, self._resumes = self._resumes, []
        return resumes

    def take_unkeyed(self) -> list[int]:
        """Numbers of requests for jobs whose keys are not known."""
        numbers, self._unkeyed = self._unkeyed, []
        return numbers

    def take_cancels(self) -> list[Cancel]:
        cancels, self._cancels = self._cancels, []
        return cancels

    def take_retrieved(self) -> list[range]:
        """Ids of jobs whose results the program has got."""
        retrieved, self._retrieved = self._retrieved, []
        return retrieved

    def take_frames(self, waiting: int) -> list[Frame]:
        """What is for the boss. That no more jobs will come it is told once it has all of them."""
        held = [frame for frame in self.frames if frame.kind is Kind.CLOSE and waiting and not self.stopping]
        frames = [frame for frame in self.frames if frame not in held]
        self.frames = held
        return frames

    # -- to the program ---------------------------------------------------------------------------------

    def reply(self, number: int, content: dict[str, object]) -> None:
        if number:
            self.send(Kind.REPLY, messages.REQUEST.pack(number), [json.dumps(content).encode()])

    def accept(self, call: AddCall) -> None:
        """A call's jobs are on the disk."""
        self.reply(call.number, {})

    def refuse(self, call: AddCall, reason: str) -> None:
        """None of a call's jobs was taken."""
        ids = [[batch.first_id, batch.count] for batch in call.batches]
        self.reply(call.number, {"refused": reason, "ids": ids})

    def note(self, level: int, text: str) -> None:
        """Have the program's logger say something."""
        self.send(Kind.NOTE, messages.NOTE.pack(level), [text.encode()])

    def pass_on(self, frames: Iterable[Frame]) -> None:
        """What has come from the boss."""
        for frame in frames:
            self.send(frame.kind, bytes(frame.head), [frame.body], tuple(frame.fds))

    def send_results(self, segments: list[Segment]) -> None:
        """Results that the boss knows nothing of."""
        while segments:
            run, size = [segments[0]], segments[0].size
            for segment in segments[1:]:
                size += segment.size
                if size > RESULTS_BYTES:
                    break
                run.append(segment)
            segments = segments[len(run) :]
            head = b"".join(segment.head() for segment in run)
            self.send(Kind.RESULTS, head, [bytes(one) for segment in run for one in segment.body()])

    # -- the beginning ----------------------------------------------------------------------------------

    def tell_error(self, what: str, text: str, pid: int = 0) -> None:
        """The journal cannot be used, or not any more."""
        self.send(Kind.OPENED, b"", [json.dumps({"error": what, "text": text, "pid": pid}).encode()])
        self.finish()

    def tell_opened(self, told: Mapping[str, int], memory: FiledMemory) -> None:
        """The journal is open; the recorders are in that file."""
        assert memory.fd is not None
        fd, memory.fd = memory.fd, None
        self.send(Kind.OPENED, b"", [json.dumps(told).encode()], (fd,))

    def await_boss(self) -> BossSide | None:
        """The boss's line, which the program hands over; None when it has ended instead."""
        while not self.ended:
            poll = select.poll()
            self.register(poll)
            poll.poll()
            frames = self.receive()
            if frames and frames[0].kind is Kind.ATTACH and frames[0].fd is not None:
                self.link.frames = frames[1:]
                return BossSide(Link(socket.socket(fileno=frames[0].fd)))
        return None

    def send_left(self, store: Database, books: Books) -> Ranges:
        """The jobs that an earlier owner has left: those that are to be run, and those with a result to be got."""
        wanted = Ranges(ids for ids in books.finished)
        for ids in books.retrieved:
            wanted.remove(ids.start, ids.stop)
        results = wanted.copy()
        for _, ids in books.unfinished():
            wanted.add(ids.start, ids.stop)
        for row in sorted(books.rows, key=lambda row: row.first_id):
            found = wanted.within(row.ids.start, row.ids.stop)
            whole = store.batch(row) if found else None
            for ids in found:
                assert whole is not None
                self.recall(whole.part(ids.start - row.first_id, ids.stop - row.first_id), row.added)
        for ids in results:
            self._send_stored(store, ids)
        self.send(Kind.RECALLED)
        return wanted

    def recall(self, batch: Batch, added: float) -> None:
        """Jobs that the program does not know yet, whose results it is to get."""
        cursor = BatchCursor(batch)
        while len(cursor):
            piece = cursor.cut(SUBMIT_JOBS, SUBMIT_BYTES)
            self.send(Kind.RECALL, piece.head(), [messages.MARK.pack(added - clock_offset()), *piece.body()])

    def _send_stored(self, store: Database, ids: range) -> None:
        at = ids.start
        while at < ids.stop:
            found = store.segment_of(at)
            assert found is not None
            segment, clock = found
            stop = min(ids.stop, segment.first_id + segment.jobs)
            one = part(segment, at - segment.first_id, stop - segment.first_id)
            self.send_results([as_stored(one, clock)])
            at = stop

    # -- the end ----------------------------------------------------------------------------------------

    def tell_settled(self, may_have_run: Iterable[range]) -> None:
        """The boss has died: which of the jobs without a result may have run."""
        ranges = [[ids.start, len(ids)] for ids in may_have_run]
        self.send(Kind.SETTLED, b"", [json.dumps(ranges).encode()])

    def finish(self) -> None:
        """Send what is left, as long as somebody reads it, and hang up."""
        with suppress(LinkClosed):
            while not self.ended and not self.link.flush():
                processes.await_fd(self.link.fileno(), select.POLLOUT)
        self.link.drop()


class BossSide(_Side):
    """The line to the boss. `orderly`: it has said that it was through."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self.orderly = False
        self._results: list[Segment] = []
        self._more: dict[int, tuple[str, int | None]] = {}  # by requests' numbers: what is to be added to which figure

    def hang_up(self) -> None:
        """Have it end everything. What it has sent can still be read."""
        with suppress(OSError):
            self.link.sock.shutdown(socket.SHUT_WR)

    def read(self) -> None:
        for frame in self.receive():
            self.orderly = self.orderly or frame.kind is Kind.CLOSED
            if frame.kind is Kind.RESULTS:
                whole, segments = _whole_results(frame)
                self._results += segments
                self.frames.append(whole)
            else:
                self.frames.append(frame)

    def take_results(self) -> list[Segment]:
        results, self._results = self._results, []
        return results

    def take_frames(
        self, waiting: int, rename: Callable[[list[Segment]], list[Segment] | None], recorded: bool
    ) -> Iterator[Frame]:
        """What is for the program: results of which all are recorded, and the rest.

        Args:
            waiting: How many jobs were not passed on.
            rename: Gives results the ids that the program knows them by; None: those that they have.
            recorded: Whether all results are. Where the disk has no room for some, they have to stay here, and so has
                the word that there are no more; the program gets its answers all the same.
        """
        frames, self.frames = self.frames, []
        for frame in frames:
            if not recorded and frame.kind in (Kind.RESULTS, Kind.CLOSED):
                self.frames.append(frame)
            elif frame.kind is Kind.REPLY:
                yield self._amended(frame, waiting)
            elif frame.kind is Kind.RESULTS:
                renamed = rename(read_segments(frame.head, frame.body))
                yield frame if renamed is None else _results_frame(renamed)
            else:
                yield frame

    def _amended(self, frame: Frame, waiting: int) -> Frame:
        """An answer, with what the boss does not know of added to its numbers."""
        (number,) = messages.REQUEST.unpack(frame.head)
        if number not in self._more:
            return frame
        key, more = self._more.pop(number)
        content = json.loads(bytes(frame.body))
        content[key] = content.get(key, 0) + (waiting if more is None else more)
        return frame._replace(body=memoryview(json.dumps(content).encode()))

    # -- to the boss ------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> None:
        self.send(Kind.SUBMIT, batch.head(), batch.body())

    def cancel(self, number: int, ids: list[int], head: bytes, elsewhere: int) -> None:
        """Have jobs cancelled; of those that were asked for, `elsewhere` are already."""
        self._more[number] = "count", elsewhere
        self.send(Kind.CANCEL, head, [array("Q", ids).tobytes()])

    def pass_on(self, frames: Iterable[Frame]) -> None:
        """What has come from the program."""
        for frame in frames:
            if frame.kind is Kind.STATS:
                self._more[messages.REQUEST.unpack(frame.head)[0]] = "queued", None
            self.send(frame.kind, bytes(frame.head), [frame.body], tuple(frame.fds))


def _cut_keys(body: memoryview) -> list[bytes]:
    return [bytes(body[at : at + KEY_SIZE]) for at in range(0, len(body) - KEY_SIZE + 1, KEY_SIZE)]


# -- large payloads: what came in a memory file is on the disk, and travels on, in one piece with its table ------------


def _whole_batch(frame: Frame) -> Batch:
    batch = Batch.read(frame.head, frame.body)
    if frame.fds:
        batch.payload = _fetched(batch.payload, frame)
        batch = Batch(
            batch.first_id,
            batch.count,
            batch.skip,
            batch.job_options,
            batch.counts,
            array(BLOCK_SIZE, [len(batch.payload)]),
            batch.payload,
        )
    return batch


def _whole_results(frame: Frame) -> tuple[Frame, list[Segment]]:
    segments = read_segments(frame.head, frame.body)
    if not frame.fds:
        return frame, segments
    last = segments[-1]
    payload, outcomes = _fetched(last.payload, frame), last.outcomes
    if len(payload) > MOST_BYTES:
        text = f"BossWorkerAsync: the result has {len(payload)} bytes, and a journal keeps at most {MOST_BYTES} of one"
        payload, outcomes = encode_text(text), bytes((Outcome.BAD_RESULT | Outcome.TEXT,))
    segments[-1] = last._replace(base=0, ends=END.pack(len(payload)), outcomes=outcomes, payload=payload)
    return _results_frame(segments), segments


def _results_frame(segments: list[Segment]) -> Frame:
    head = b"".join(segment.head() for segment in segments)
    body = b"".join(bytes(one) for segment in segments for one in segment.body())
    return Frame(Kind.RESULTS, memoryview(head), memoryview(body), [])


def _fetched(payload: bytes | bytearray | memoryview, frame: Frame) -> bytes:
    """A parcel with its data. Where that cannot be had, it is the table alone, and its reader finds that out."""
    try:
        if frame.fd is None:  # there was no room for another descriptor
            return bytes(payload)
        whole = with_data(payload, frame.fd)
        give_back(frame.fd)
        return whole
    except OSError:
        return bytes(payload)
    finally:
        close_fds(frame.fds)


def as_stored(segment: Segment, clock: float) -> Segment:
    """Results from the database, with their times as times of this boot's clock."""
    shift = clock - clock_offset()
    marks = array("d", [mark + shift for mark in array("d", bytes(segment.marks))]).tobytes()
    return segment._replace(marks=marks, attempt=segment.attempt | STORED)

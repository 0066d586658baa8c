"""One of the lines over which the scribe gets jobs: the program's, or a door's."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import NamedTuple

from bossworker.journal.line_side import LineSide
from bossworker.journal.whole_payloads import whole_batch
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import SUBMIT_BYTES, SUBMIT_JOBS, Batch, BatchCursor
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment
from bossworker.system.wall_clock import wall_clock

RESULTS_BYTES = 1 << 20  # of a frame that we make


class AddCall(NamedTuple):
    """Jobs that are accepted together, or refused."""

    line: AddingSide  # over which it came
    number: int  # of the request
    batches: list[Batch]
    keys: list[tuple[int, bytes]]  # of some of the jobs

    @property
    def size(self) -> int:
        """Bytes of its jobs."""
        return sum(len(batch.payload) for batch in self.batches)

    def accept(self) -> None:
        """Its jobs are on the disk."""
        self.line.reply(self.number, {})

    def refuse(self, reason: str) -> None:
        """None of its jobs was taken."""
        self.line.reply(self.number, {"refused": reason})


class Cancel(NamedTuple):
    """A request to cancel jobs."""

    line: AddingSide
    number: int
    ids: list[int]
    how: bytes  # as it came, behind the request's number


class AddingSide(LineSide):
    """See the module."""

    def __init__(self, link: Link) -> None:
        super().__init__(link)
        self._batches: list[Batch] = []  # of the call that is coming in
        self._keys: list[tuple[int, bytes]] = []
        self._calls: list[AddCall] = []
        self._cancels: list[Cancel] = []
        self._retrieved: list[range] = []

    # -- what comes -------------------------------------------------------------------------------------

    def read(self) -> None:
        """Take in what has come."""
        for frame in self.receive():
            self.take(frame)

    def take(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.SUBMIT:
                self._batches.append(whole_batch(frame))
            case Kind.RECORD:
                (number,) = messages.REQUEST.unpack(frame.head)
                self._calls.append(AddCall(self, number, self._batches, self._keys))
                self._batches, self._keys = [], []
            case Kind.CANCEL:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                how = bytes(frame.head[messages.REQUEST.size :])
                self._cancels.append(Cancel(self, number, frame.body.cast("Q").tolist(), how))
            case _:
                self.take_other(frame)

    def take_other(self, frame: Frame) -> None:
        """Take in a frame that is no part of a call, and cancels nothing."""
        raise NotImplementedError

    def note_retrieved(self, ranges: Iterable[range]) -> None:
        """The other end has got the results of these jobs, or does not want them."""
        self._retrieved += ranges

    def take_calls(self) -> list[AddCall]:
        """Calls that are complete."""
        calls, self._calls = self._calls, []
        return calls

    def take_cancels(self) -> list[Cancel]:
        cancels, self._cancels = self._cancels, []
        return cancels

    def take_retrieved(self) -> list[range]:
        """Ids of jobs whose results the other end has got."""
        retrieved, self._retrieved = self._retrieved, []
        return retrieved

    # -- what is sent -----------------------------------------------------------------------------------

    def reply(self, number: int, content: dict[str, object]) -> None:
        """Answer a request; number 0 wants no answer."""
        if number:
            self.send(Kind.REPLY, messages.REQUEST.pack(number), [json.dumps(content).encode()])

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

    def recall(self, batch: Batch, added: float | None = None) -> None:
        """Jobs that the other end does not know yet, whose results it is to get. `added`: when (Unix seconds)."""
        mark = () if added is None else (messages.MARK.pack(added - wall_clock.offset()),)
        cursor = BatchCursor(batch)
        while len(cursor):
            piece = cursor.cut(SUBMIT_JOBS, SUBMIT_BYTES)
            self.send(Kind.RECALL, piece.head(), [*mark, *piece.body()])

"""A client's line to a pool in another program: as the caller's to its boss, with a door in between."""

from __future__ import annotations

import select
import time
from array import array
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from typing import Any

from bossworker.errors import BossWorkerError
from bossworker.pool.caller.connection import DEATH_TICK, Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.door.attachment import Attachment
from bossworker.pool.door.door_protocol import WINDOW, Pieces
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame, pack
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import MemoryFiles, Parcel
from bossworker.pool.wire.segments import Segment, read_segments
from bossworker.system import processes

CREDIT_STEP = WINDOW // 4  # bytes of results after which the door hears that they were taken
MOST_FILES = 32  # of jobs that are unfinished
_BY_OWNER_ALONE = "refused"


class _Plenty:
    """Stands for the memory that a boss shares with its caller: of what the boss holds, nothing is known here."""

    held, most_held = 0, 1 << 20


class LentFiles(MemoryFiles):
    """Memory files for a few of our unfinished jobs at a time. More large ones travel in the frame."""

    def __init__(self, unfinished: Container[int]) -> None:
        super().__init__(_Plenty(), unfinished)  # type: ignore[arg-type]
        self._jobs: list[int] = []

    def lend(self, parcel: Parcel, fds: list[int], job_id: int = 0) -> bool:
        self._jobs = [one for one in self._jobs if one in self._unfinished]
        if len(self._jobs) >= MOST_FILES or not super().lend(parcel, fds, job_id):
            return False
        self._jobs.append(job_id)
        return True


class DoorConnection(Connection):
    """See the module. `farewell`: why the other end takes no more work, or has hung up, once it has said so."""

    def __init__(self, attachment: Attachment, inbox: Inbox) -> None:
        self.attachment = attachment
        super().__init__(attachment.launched(), inbox)
        if attachment.carries_files:
            self.memory_files = LentFiles(inbox.jobs)
        self.up = True
        self.farewell = ""
        self.through = False  # we have said that no more will come
        self.drops_all = True  # whether to leave means that nothing is kept
        self._shift = attachment.clock_shift
        self._taken_in = self._credited = 0  # bytes of results
        self._pieces = Pieces()
        self.recalled: Callable[[Batch], None] | None = None
        self.all_recalled = False
        self._retrievable: set[int] | None = set() if attachment.keep else None  # ids of results that have come

    # -- sending ----------------------------------------------------------------------------------------

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> None:
        self.through = self.through or kind in (Kind.CLOSE, Kind.STOP)
        super().send(kind, head, body)

    def _flush(self) -> None:
        try:
            while not self.link.flush():
                # While it takes nothing from us, the door may be waiting for us to take something from it.
                processes.await_fd(self.link.fileno(), select.POLLOUT, DEATH_TICK)
                if self.gone or self.closed:
                    return
        except LinkClosed:
            self.poll()

    def alive(self) -> bool:
        return not self.gone and self.attachment.alive()

    def answer(self, number: int) -> dict[str, Any] | None:
        told = super().answer(number)
        if told is not None and _BY_OWNER_ALONE in told:
            raise BossWorkerError(f"the pool refused: {told[_BY_OWNER_ALONE]}")
        return told

    # -- receiving --------------------------------------------------------------------------------------

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.PIECE:
                whole = self._pieces.add(frame)
                if whole is not None:
                    self._on_frame(whole)
            case Kind.RESULTS:
                self._on_results(frame)
            case Kind.RECALL:
                if self.recalled is not None:
                    self.recalled(Batch.read(frame.head, frame.body))
            case Kind.TAKEN:
                self.inbox.drop(frame.body.cast("Q").tolist())
                self.all_recalled = True
            case Kind.CLOSE:
                self.farewell = str(frame.body, "utf-8", "replace")
                self.turns.wake_waiters()
            case Kind.GOODBYE:
                self.farewell = str(frame.body, "utf-8", "replace")
                self._lose_boss()
            case Kind.CLOSED:
                self._on_closed()
            case _:
                super()._on_frame(frame)

    def _on_closed(self) -> None:
        """We have all that we will get: because we wanted to leave, or because the pool was shut down."""
        self.orderly = self.through or self.inbox.unfinished() <= 0
        if not self.through:
            self.farewell = self.farewell or "the pool was shut down"
            self._lose_boss()

    def _on_results(self, frame: Frame) -> None:
        segments = read_segments(frame.head, frame.body)
        if self._shift:
            segments = [_shifted(segment, self._shift) for segment in segments]
        self.inbox.receive(segments, frame.fd)
        self._readiness.raise_()
        self._taken_in += messages.PREFIX.size + len(frame.head) + len(frame.body)
        if self._taken_in - self._credited >= CREDIT_STEP:
            self._give_credit()
        if self._retrievable is not None:
            for segment in segments:
                self._retrievable.update(range(segment.first_id, segment.first_id + segment.jobs))
            self.tell_taken()

    def _give_credit(self) -> None:
        """Whoever is interrupted here counts some bytes twice: then the door sends a little more at a time."""
        if self.try_send(pack(Kind.CREDIT, messages.CREDIT.pack(self._taken_in))):
            self._credited = self._taken_in

    def tell_taken(self) -> None:
        """Tell the door which results the program has got: it keeps them no longer."""
        if self._retrievable:
            taken = self.inbox.given_out(self._retrievable)
            if taken and self.try_send(pack(Kind.TAKEN, b"", [array("Q", taken).tobytes()])):
                self._retrievable.difference_update(taken)

    def keep_rest(self) -> None:
        """We are about to leave: what the program has not got is kept for the next of our identity."""
        self.drops_all = False
        self.tell_taken()
        self._retrievable = None

    def _listen(self, seconds: float | None) -> None:
        if self._taken_in - self._credited >= CREDIT_STEP:  # another thread was sending at that time
            self._give_credit()
            seconds = DEATH_TICK if seconds is None else min(seconds, DEATH_TICK)
        super()._listen(seconds)

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, force: bool) -> None:
        """Leave."""
        self._let_go = not self.gone
        if not self.gone and self.drops_all and (force or self.orderly):
            self.try_send(pack(Kind.FORGET))
            self._flush_soon()
        self.link.close()
        self.attachment.end()
        self._lose_boss()
        self.wake()

    def _flush_soon(self) -> None:
        deadline = time.monotonic() + DEATH_TICK
        with suppress(LinkClosed):
            while not self.link.flush() and time.monotonic() < deadline:
                processes.await_fd(self.link.fileno(), select.POLLOUT, DEATH_TICK)

    def never_started(self, ids: Iterable[int]) -> set[int]:
        """Nobody knows, here."""
        return set()


def _shifted(segment: Segment, seconds: float) -> Segment:
    """Times of the pool's machine as times of ours."""
    marks = array("d", [mark + seconds for mark in memoryview(segment.marks).cast("B").cast("d")])
    return segment._replace(marks=marks.tobytes())

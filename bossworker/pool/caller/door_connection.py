"""A client's line to a pool in another program: as the caller's to its boss, with a door in between."""

from __future__ import annotations

import select
import selectors
import socket
import time
from array import array
from collections.abc import Callable, Container, Iterable, Sequence
from contextlib import suppress
from typing import Any

from bossworker.errors import BossWorkerError
from bossworker.pool.caller.awaited_fds import AwaitedFds
from bossworker.pool.caller.connection import DEATH_TICK, UNSENT_TICK, Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.door.attachment import Attachment
from bossworker.pool.door.door_protocol import WINDOW, Pieces
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.client_jobs import LONGEST_ON_LINE
from bossworker.pool.wire.frames import Frame, Part, pack
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import PREFIX, Kind
from bossworker.pool.wire.parcel import MemoryFiles, Parcel
from bossworker.pool.wire.segments import Segment, read_segments
from bossworker.system import processes
from bossworker.system.one_step import taken_at_once

CREDIT_STEP = WINDOW // 4  # bytes of results after which the door hears that they were taken
MOST_FILES = 32  # of jobs that are unfinished
_BY_OWNER_ALONE = "refused"


class _Plenty:
    """Stands for the memory that a boss shares with its caller: of what the boss holds, nothing is known here."""

    held, most_held = 0, 1 << 20


class LentFiles(MemoryFiles):
    """Memory files for a few of our unfinished jobs at a time. More large ones travel in the frame."""

    def __init__(self, unfinished: Container[int]) -> None:
        super().__init__(_Plenty(), unfinished)
        self._jobs: list[int] = []

    def lend(self, parcel: Parcel, fds: list[int], job_id: int = 0) -> bool:
        self._jobs = [one for one in self._jobs if one in self._unfinished]
        if len(self._jobs) >= MOST_FILES or not super().lend(parcel, fds, job_id):
            return False
        self._jobs.append(job_id)
        return True


class PoolLine:
    """Our line to the boss itself, for small jobs and results: they do not wake the door. All else goes by the door.

    A large job that goes by the door takes a little longer: a small one that was added behind it may be there first.
    """

    def __init__(self, link: Link) -> None:
        self.link = link
        self.ready = False  # the boss has said that it reads
        self.over = False  # it has hung up

    def takes(self, parts: list[Part]) -> bool:
        """Whether these frames go over it."""
        if not self.ready or self.over or PREFIX.unpack_from(parts[0][0])[1] != Kind.SUBMIT:
            return False
        return not any(fds or len(part) > LONGEST_ON_LINE // 2 for part, fds in parts)

    def flush(self) -> bool:
        """Send what it takes now; True when nothing is left, or when nobody is there: the door tells that soon."""
        try:
            return self.link.flush()
        except LinkClosed:
            return True


class DoorConnection(Connection):
    """See the module. `farewell`: why the other end takes no more work, or has hung up, once it has said so."""

    def __init__(self, attachment: Attachment, inbox: Inbox) -> None:
        self.attachment = attachment
        self._pool_line = PoolLine(attachment.to_boss) if attachment.to_boss is not None else None
        super().__init__(attachment.launched(), inbox)
        if attachment.carries_files:
            self.memory_files = LentFiles(inbox.jobs)
        self.said.up = True
        self.farewell = ""
        self.through = False  # we have said that no more will come
        self.drops_all = True  # whether to leave means that nothing is kept
        self._shift = attachment.clock_shift
        self._taken_in = self._credited = 0  # bytes of results
        self._pieces = Pieces()
        self._closed_told = False  # and what the boss has sent before is not here yet
        self.recalled: Callable[[Batch], None] | None = None
        self.all_recalled = False
        self._retrievable: set[int] | None = set() if attachment.keep else None  # ids of results that have come

    # -- sending ----------------------------------------------------------------------------------------

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> None:
        self.through = self.through or kind in (Kind.CLOSE, Kind.STOP)
        super().send(kind, head, body)

    def send_packed(self, parts: list[Part]) -> None:
        line = self._pool_line
        if line is not None and line.takes(parts):
            with self._sending:
                line.link.queue(parts)
                try:
                    self._flush_pool_line()
                except BaseException:  # see there
                    self._readiness.raise_()
                    raise
            return
        if line is not None and line.link.unsent:  # left over from an interrupted call: this may be about those jobs
            with self._sending:
                self._flush_pool_line()
        super().send_packed(parts)

    def try_send(self, parts: Sequence[Part] = ()) -> bool:
        line = self._pool_line
        if line is not None and line.link.unsent:
            held: list[bool] = []
            try:
                if self.closed or not taken_at_once(self._sending, held) or not line.flush():
                    return False
            finally:
                if held:
                    self._sending.release()
        return super().try_send(parts)

    def _flush_pool_line(self) -> None:
        assert self._pool_line is not None
        while not self._pool_line.flush():
            processes.await_fd(self._pool_line.link.fileno(), select.POLLOUT, DEATH_TICK)
            if self.gone or self.closed:
                return

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

    # As of a line to a scribe: for pools with a journal, which keeps our jobs (``journal_outbox.py``).

    def new_number(self) -> int:
        """Of a request."""
        return self._replies.expect()

    def await_record(self, number: int, ids: range) -> str:
        """Wait until a call is accepted; why it was not."""
        self.wait_until(lambda: self.answered(number))
        told = super().answer(number)
        return "" if told is None else str(told.get("refused", ""))

    # -- receiving --------------------------------------------------------------------------------------

    def _watch(self, selector: AwaitedFds | selectors.BaseSelector) -> None:
        super()._watch(selector)
        if self._pool_line is not None and not self._pool_line.over:
            selector.register(self._pool_line.link.sock, selectors.EVENT_READ)

    def _has_read(self) -> bool:
        return super()._has_read() or (self._pool_line is not None and self._pool_line.link.left_over)

    def _take_in(self) -> bool:
        # Results come from the boss itself, the word that there are no more from the door. They travel by two ways, so
        # the first is read before the second, and once more when the door hangs up.
        came_first = self._read_pool_line()
        came, hung_up = self._reading.take_in(self.link, self._on_frame)
        if hung_up:
            self._lose_pool()
        return came or came_first

    def _read_pool_line(self) -> bool:
        """Whether anything came from the boss itself."""
        line = self._pool_line
        if line is None or line.over:
            return False
        came, hung_up = self._reading.take_in(line.link, self._on_pool_frame)
        if hung_up:
            line.over = True
            self._unwatch(line.link.sock)
            if self._closed_told:
                self._on_closed()
        return came

    def _on_pool_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULTS:
                self._receive(frame)
            case Kind.READY if self._pool_line is not None:
                self._pool_line.ready = True
            case Kind.GOODBYE:  # it takes us for somebody who harms it
                self.farewell = str(frame.body, "utf-8", "replace")
                self._lose_boss()

    def _lose_pool(self) -> None:
        """The door is gone. What the boss has sent before is here first."""
        while self._read_pool_line():
            pass
        self._lose_boss()

    def _lose_boss(self) -> None:
        super()._lose_boss()
        if self._pool_line is not None:
            self._unwatch(self._pool_line.link.sock)

    def _unwatch(self, sock: socket.socket) -> None:
        for selector in (self._selector, self._readiness.selector):
            with suppress(AttributeError, KeyError, ValueError, TypeError):
                selector.unregister(sock)  # type: ignore[union-attr]

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
                self._lose_pool()
            case Kind.CLOSED:
                self._on_closed()
            case _:
                super()._on_frame(frame)

    def _on_closed(self) -> None:
        """We have all that we will get: because we wanted to leave, or because the pool was shut down."""
        if self._pool_line is not None and not self._pool_line.over:  # some of it may still be on its way there
            self._closed_told = True
            return
        self.said.orderly = self.through or self.inbox.unfinished() <= 0
        if not self.through:
            self.farewell = self.farewell or "the pool was shut down"
            self._lose_boss()

    def _receive(self, frame: Frame) -> list[Segment]:
        segments = read_segments(frame.head, frame.body)
        if self._shift:
            segments = [_shifted(segment, self._shift) for segment in segments]
        self.inbox.receive(segments, frame.fd)
        self._readiness.raise_()
        return segments

    def _on_results(self, frame: Frame) -> None:
        segments = self._receive(frame)
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
        if self._pool_line is not None and self._pool_line.link.unsent:  # left over from an interrupted call
            self.try_send()
            seconds = UNSENT_TICK if seconds is None else min(seconds, UNSENT_TICK)
        super()._listen(seconds)

    # -- the end ----------------------------------------------------------------------------------------

    def end(self, force: bool) -> None:
        """Leave."""
        self._let_go = not self.gone
        if not self.gone and self.drops_all and (force or self.said.orderly):
            self.try_send(pack(Kind.FORGET))
            self._flush_soon()
        self.link.close()
        if self._pool_line is not None:
            self._pool_line.link.close()
        self.attachment.end()
        self._lose_boss()
        self.wake()

    def close(self, keep_sign: bool = False, in_child: bool = False) -> None:
        if self._pool_line is not None:
            if in_child:
                self._pool_line.link.drop()
            else:
                self._pool_line.link.close()
        super().close(keep_sign, in_child)

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

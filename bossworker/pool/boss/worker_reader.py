"""What comes from workers: reports in their mailboxes, results and errors over their lines.

A handler may write anything into its worker's sockets and recorder. What cannot come from our own code ends that
worker.
"""

from __future__ import annotations

import time
from contextlib import suppress
from functools import partial

from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.first_workers import FirstWorkers
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.performer import Performer
from bossworker.pool.boss.poller import EVENT_READ, EVENT_WRITE, Poller
from bossworker.pool.boss.worker_lines import WorkerLines
from bossworker.pool.boss.workers import State
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed, close_fds
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.parcel import held
from bossworker.pool.wire.recorder import SENDING, Memory
from bossworker.pool.wire.router import Router

_ONLY_WAKE = (Kind.UP, Kind.DONE)  # what they tell of lies in the mailbox
STALLED_SECONDS = 1.0  # after this long, half a frame from a worker that says that it sends nothing is not its own


class WorkerReader:
    """See the module. What follows from that the ledger decides, and the performer carries out."""

    def __init__(
        self,
        lines: WorkerLines,
        poller: Poller,
        memory: Memory,
        intake: Intake,
        performer: Performer,
        delivery: Delivery,
        first_workers: FirstWorkers,
        caller: Link,
    ) -> None:
        self._caller = caller
        self._lines = lines
        self._reports = lines.reports
        self._poller = poller
        self._memory = memory
        self._intake = intake
        self._performer = performer
        self._ledger = performer.ledger
        self._delivery = delivery
        self._first_workers = first_workers
        self._start_errors: dict[int, str] = {}  # slot -> what an init_handler raised, until its worker has ended
        self._halves: dict[int, tuple[int, float]] = {}  # slot -> bytes of an unfinished frame, since when

    # -- who is there -----------------------------------------------------------------------------------

    def add(self, slot: int, fd: int, route: bytes) -> None:
        """A worker was started; `fd` is our end of its pair."""
        mailbox = self._intake.recorders[slot].mailbox
        mailbox.begin()
        self._reports.expect(slot, mailbox)
        self._lines.add(slot, fd, route, partial(self._read_pair, slot))

    def remove(self, slot: int) -> None:
        """A worker is dead: take everything it left, and hang up."""
        # A dead worker sends nothing more: what is read now is all. A report may be missing that it was about to make;
        # then its recorder tells what it did.
        with suppress(ProtocolError):
            self._read_all(slot)
        if slot in self._reports.slots():
            self._on_report(slot)
        self._lines.remove(slot)
        self._halves.pop(slot, None)

    def take_start_error(self, slot: int) -> str | None:
        """What the init_handler of a worker that has ended raised, if it said so."""
        return self._start_errors.pop(slot, None)

    # -- reports ------------------------------------------------------------------------------------------

    def read_reports(self) -> None:
        """Look who is up, or through with its batch. What came over the lines has been read before."""
        for slot in self._reports.slots():
            self._on_report(slot)

    def _on_report(self, slot: int) -> None:
        self._reports.forget(slot)
        try:
            report = self._intake.recorders[slot].mailbox.read_report()
            if report.spilled:
                # Results that it has sent by themselves are in the socket by now, since the worker reports once they
                # are. They must be here before the batch counts as done.
                self._read_all(slot)  # a report overtakes what was sent before it
            if report.first:
                self._on_up(slot)
            else:
                seconds = self._intake.finish_batch(slot)
                if not self._ledger.queue.jobs:  # then nobody waits but whoever wants the results
                    self._delivery.deliver()
                self._performer.perform(self._ledger.on_done(slot, seconds, report.leaves, now := time.monotonic()))
                if not self._reports.owed:
                    self._poller.expect_request(now)
        except ProtocolError as error:
            self._performer.end_misbehaving(slot, error)

    def _on_up(self, slot: int) -> None:
        """A worker's init_handler has returned."""
        self._first_workers.check_size(slot)
        now = time.monotonic()
        self._performer.chronicle.worker_up(self._ledger.workers[slot], now)
        self._performer.perform(self._ledger.on_up(slot, now))

    # -- lines --------------------------------------------------------------------------------------------

    def _read_pair(self, slot: int, events: int = EVENT_READ) -> None:
        link = self._lines.pairs.get(slot)
        if link is None:
            return
        try:
            if events & EVENT_WRITE and link.flush():
                self._poller.refresh(link)
            link.pull()
            self._take_frames(slot, link)
        except LinkClosed:  # the fork server will tell how it ended
            # It has closed its end, but may still be alive, or be one whose end the fork server has not told yet: that
            # word decides, and comes in any case.
            self._poller.forget(link)
        except ProtocolError as error:
            self._performer.end_misbehaving(slot, error)

    def _read_all(self, slot: int) -> None:
        """Read what a worker has sent up to now, to the last byte."""
        link = self._lines.pairs[slot]
        try:
            with suppress(LinkClosed):
                while link.pull():
                    pass
        finally:  # also what came before something that is no frame
            self._take_frames(slot, link)

    def _take_frames(self, slot: int, link: Link) -> None:
        """Act on what has come from a worker."""
        frames, link.frames = link.frames, []
        left = iter(frames)
        try:
            for frame in left:
                self._on_frame(slot, frame)
        finally:
            for frame in left:
                close_fds(frame.fds)
        if link.garbled:
            raise ProtocolError("bytes that are no frame")

    def _on_frame(self, slot: int, frame: Frame) -> None:
        """Act on a frame from a worker. ProtocolError: it cannot be from our own code, or not now."""
        if frame.kind in _ONLY_WAKE and not frame.fds:
            return
        worker, file = self._ledger.workers[slot], held(frame.fd, self._memory)  # closed with the last reference to it
        match frame.kind:
            case Kind.UP | Kind.DONE:
                pass
            case Kind.SPILL:
                self._intake.spill(slot, frame, file)
            case Kind.INIT_FAILED if worker.state is State.STARTING:
                self._start_errors[slot] = str(frame.body, "utf-8", "replace")
            case Kind.EXIT_FAILED if worker.state is State.LEAVING:
                self._caller.send(Kind.EXIT_ERROR, messages.EXIT_ERROR.pack(worker.pid), [bytes(frame.body)])
            case _:
                raise ProtocolError(f"a frame of kind {frame.kind!r} out of turn")

    # -- ZeroMQ -------------------------------------------------------------------------------------------

    def use_router(self, router: Router) -> None:
        """From now on there is one."""
        self._lines.router = router
        self._reports.before_sleep = self._read_rest_of_router
        self._poller.watch_fd(router.fileno(), lambda events: self._read_router())

    def _read_router(self) -> None:
        """Take off what came over ZeroMQ: it only wakes us."""
        if self._lines.router is not None:
            self._judge(self._lines.router.take())

    def _read_rest_of_router(self) -> None:
        """Take off what it might not tell of."""
        if self._lines.router is not None:
            self._judge(self._lines.router.take_rest())

    def _judge(self, messages: list[tuple[bytes, str]]) -> None:
        for route, why in messages:
            slot = self._lines.slot_of(route)
            if slot is not None:  # else it is a stranger's, or of a worker that is gone
                self._performer.end_misbehaving(slot, ProtocolError(why))

    # -- looks at the recorders, without a word of the worker's ------------------------------------------------

    def look_at_workers(self) -> None:
        """Look at the recorders that are due: for late jobs, and for results behind which a long job runs."""
        for slot in self._ledger.due(now := time.monotonic()):
            snapshot = self._performer.look(slot)
            if snapshot is not None:
                self._performer.perform(self._ledger.on_look(slot, snapshot, time.monotonic()))
                self._look_at_link(slot, now)

    def _look_at_link(self, slot: int, now: float) -> None:
        """A frame of which a part is here, and the rest does not come, is none of ours: they are sent in one go."""
        held = self._lines.pairs[slot].held
        if not held or self._intake.recorders[slot].words[SENDING]:
            self._halves.pop(slot, None)
        elif self._halves.setdefault(slot, (held, now))[0] != held:
            self._halves[slot] = (held, now)
        elif now > self._halves[slot][1] + STALLED_SECONDS:
            self._performer.end_misbehaving(slot, ProtocolError("half a frame, and no more of it"))

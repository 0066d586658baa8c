"""What goes between the boss and its workers: orders and batches to them; reports, results and errors from them.

A handler may write anything into its worker's sockets and recorder. What cannot come from our own code ends that
worker.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from bossworker.pool.boss.actions import Actions
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.poller import EVENT_READ, EVENT_WRITE, Poller
from bossworker.pool.boss.reports import Reports
from bossworker.pool.boss.router_start import RouterStart
from bossworker.pool.boss.worker_lines import WorkerLines
from bossworker.pool.boss.workers import State
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Buffer, Frame
from bossworker.pool.wire.link import Link, LinkClosed, close_fds
from bossworker.pool.wire.mailbox import fits
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.parcel import held
from bossworker.pool.wire.recorder import SENDING, Memory, Snapshot
from bossworker.pool.wire.router import Router

_BELLS = (Kind.UP, Kind.DONE)
STALLED_SECONDS = 1.0  # after this long, half a frame from a worker that says that it sends nothing is not its own


class WorkerTraffic:
    """See the module.

    `perform` carries out what the ledger decides; `on_up` is told of each worker that comes up; `deliver` sends the
    results that there are.
    """

    def __init__(
        self,
        ledger: Ledger,
        intake: Intake,
        memory: Memory,
        caller: Link,
        perform: Callable[[Actions], None],
        on_up: Callable[[int], None],
        deliver: Callable[[], None],
    ) -> None:
        self.ledger = ledger
        self.intake = intake
        self.memory = memory
        self.caller = caller
        self.perform = perform
        self.on_up = on_up
        self.deliver = deliver
        self.lines = WorkerLines()
        self.router_start: RouterStart | None = None  # if ZeroMQ is the transport
        self.reports = Reports(memory)
        self.poller = Poller(self.reports)
        self.start_errors: dict[int, str] = {}  # slot -> what an init_handler raised, until its worker has ended
        self.halves: dict[int, tuple[int, float]] = {}  # slot -> bytes of an unfinished frame, since when

    def use_router(self, router: Router) -> None:
        """From now on there is one."""
        self.lines.router = router
        self.reports.before_sleep = self.read_rest_of_router
        self.poller.watch_fd(router.fileno(), lambda events: self.read_router())

    # -- who is there -----------------------------------------------------------------------------------

    def add(self, slot: int, pid: int, fd: int, route: bytes) -> None:
        """A worker was started; `fd` is our end of its pair."""
        mailbox = self.intake.recorders[slot].mailbox
        mailbox.begin()
        self.reports.expect(slot, mailbox)
        pair = Link(socket.socket(fileno=fd))
        self.lines.add(slot, pair, route)
        self.ledger.on_spawned(slot, pid)
        self.poller.watch(pair, partial(self.read_worker, slot))

    def remove(self, slot: int) -> None:
        """A worker is dead: take everything it left, and hang up."""
        with suppress(ProtocolError):
            self._read_all(slot)
        if slot in self.reports.slots():
            self.on_report(slot)
        self.reports.forget(slot)
        link = self.lines.remove(slot)
        self.poller.forget(link)
        link.close()
        self.halves.pop(slot, None)

    # -- to a worker --------------------------------------------------------------------------------------

    def assign(self, slot: int, batch: Batch, soon: bool) -> None:
        """Note who gets what before sending it, so that nothing can be in two places."""
        self.memory.note_assigned(slot, batch.first_id + batch.count)
        now = time.monotonic()
        recorder = self.intake.recorders[slot]
        recorder.open_batch(batch.first_id, batch.count, batch.job_options.attempt, now)
        if soon:
            self.poller.expect_answer(now)
        head, body, mailbox = batch.head(), batch.body(), recorder.mailbox
        self.reports.expect(slot, mailbox)
        if batch.file is None and fits(head, body):
            if mailbox.give(Kind.BATCH, head, body):
                self._send_worker(slot, Kind.WAKE)
            return
        if self.router_start is not None:
            self.router_start.make()  # for the next one: it does not know the worker yet
        mailbox.give(Kind.BATCH, by_wire=True)
        self._send_worker(slot, Kind.BATCH, head, body, batch.file.copies() if batch.file is not None else ())

    def send_away(self, slot: int) -> None:
        """Ask an idle worker to leave in order."""
        if self.intake.recorders[slot].mailbox.give(Kind.LEAVE):
            self._send_worker(slot, Kind.WAKE)

    def _send_worker(
        self, slot: int, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()
    ) -> None:
        try:
            if not self.lines.send(slot, kind, head, body, fds):
                self.poller.watch(self.lines.pairs[slot], partial(self.read_worker, slot))
        except LinkClosed:  # its exit will be told
            pass

    # -- from workers -------------------------------------------------------------------------------------

    def read_worker(self, slot: int, events: int = EVENT_READ) -> None:
        link = self.lines.pairs.get(slot)
        if link is None:
            return
        try:
            if events & EVENT_WRITE and link.flush():
                self.poller.watch(link, partial(self.read_worker, slot))
            link.pull()
            self._take_frames(slot, link)
        except LinkClosed:  # the fork server will tell how it ended
            self.poller.forget(link)
        except ProtocolError as error:
            self.misbehaved(slot, error)

    def _read_all(self, slot: int) -> None:
        """Read what a worker has sent up to now, to the last byte."""
        link = self.lines.pairs[slot]
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
                self.on_worker_frame(slot, frame)
        finally:
            for frame in left:
                close_fds(frame.fds)
        if link.garbled:
            raise ProtocolError("bytes that are no frame")

    def read_router(self) -> None:
        """Take off what came over ZeroMQ: it only wakes us."""
        if self.lines.router is not None:
            self._judge(self.lines.router.take())

    def read_rest_of_router(self) -> None:
        """Take off what it might not tell of."""
        if self.lines.router is not None:
            self._judge(self.lines.router.take_rest())

    def _judge(self, messages: list[tuple[bytes, str]]) -> None:
        for route, why in messages:
            slot = self.lines.slot_of(route)
            if slot is not None:  # else it is a stranger's, or of a worker that is gone
                self.misbehaved(slot, ProtocolError(why))

    def read_reports(self) -> None:
        """Look who is up, or through with its batch. What came over the links has been read before."""
        for slot in self.reports.slots():
            self.on_report(slot)

    def on_report(self, slot: int) -> None:
        self.reports.forget(slot)
        try:
            report = self.intake.recorders[slot].mailbox.read_report()
            if report.spilled:
                self._read_all(slot)  # a report overtakes what was sent before it
            if report.first:
                self.on_up(slot)
            else:
                seconds = self.intake.finish_batch(slot)
                if not self.ledger.queue.jobs:  # then nobody waits but whoever wants the results
                    self.deliver()
                self.perform(self.ledger.on_done(slot, seconds, report.leaves, now := time.monotonic()))
                if not self.reports.owed:
                    self.poller.expect_request(now)
        except ProtocolError as error:
            self.misbehaved(slot, error)

    def on_worker_frame(self, slot: int, frame: Frame) -> None:
        """Act on a frame from a worker. ProtocolError: it cannot be from our own code, or not now."""
        if frame.kind in _BELLS and not frame.fds:
            return  # they wake us: the report lies in the mailbox
        worker, file = self.ledger.workers[slot], held(frame.fd, self.memory)  # closed with the last reference to it
        match frame.kind:
            case Kind.UP | Kind.DONE:
                pass
            case Kind.SPILL:
                self.intake.spill(slot, frame, file)
            case Kind.INIT_FAILED if worker.state is State.STARTING:
                self.start_errors[slot] = str(frame.body, "utf-8", "replace")
            case Kind.EXIT_FAILED if worker.state is State.LEAVING:
                self.caller.send(Kind.EXIT_ERROR, messages.EXIT_ERROR.pack(worker.pid), [bytes(frame.body)])
            case _:
                raise ProtocolError(f"a frame of kind {frame.kind!r} out of turn")

    def misbehaved(self, slot: int, error: ProtocolError) -> None:
        """A handler has written into its worker's sockets or recorder: end that worker."""
        self.poller.forget(self.lines.pairs[slot])
        self.reports.forget(slot)
        self.perform(self.ledger.on_misbehaved(slot, str(error)))

    def look_at_workers(self) -> None:
        """Look at the recorders that are due: for late jobs, and for results behind which a long job runs."""
        for slot in self.ledger.due(now := time.monotonic()):
            snapshot = self.look(slot)
            if snapshot is not None:
                self.perform(self.ledger.on_look(slot, snapshot, time.monotonic()))
                self._look_at_link(slot, now)

    def look(self, slot: int, ask: Callable[[Intake, int], Snapshot] = Intake.collect) -> Snapshot | None:
        """What a worker has done; None when its recorder cannot be believed, and it is being ended."""
        try:
            return ask(self.intake, slot)
        except ProtocolError as error:
            self.misbehaved(slot, error)
            return None

    def _look_at_link(self, slot: int, now: float) -> None:
        """A frame of which a part is here, and the rest does not come, is none of ours: they are sent in one go."""
        held = self.lines.pairs[slot].held
        if not held or self.intake.recorders[slot].words[SENDING]:
            self.halves.pop(slot, None)
        elif self.halves.setdefault(slot, (held, now))[0] != held:
            self.halves[slot] = (held, now)
        elif now > self.halves[slot][1] + STALLED_SECONDS:
            self.misbehaved(slot, ProtocolError("half a frame, and no more of it"))

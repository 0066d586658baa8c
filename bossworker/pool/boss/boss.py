"""The boss: owns the sockets and the queue, and performs what the ledger decides.

It never looks into a job, so that no job can harm it; it forks nothing, and waits nowhere but in its poll.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from bossworker.failure import Outcome, encode_text
from bossworker.pool.boss.actions import (
    Actions,
    Assign,
    Finish,
    Interrupt,
    Kill,
    Leave,
    ReplaceStuck,
    Spawn,
    TakeBack,
    Tell,
)
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.poller import EVENT_READ, EVENT_WRITE, Poller
from bossworker.pool.boss.reports import Reports
from bossworker.pool.boss.stats import take_stock
from bossworker.pool.boss.worker_lines import WorkerLines, has_room
from bossworker.pool.boss.workers import Exit, State
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.link import Buffer, Frame, Link, LinkClosed, close_fds
from bossworker.pool.wire.mailbox import fits
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.parcel import Held
from bossworker.pool.wire.recorder import SENDING, Memory, Snapshot
from bossworker.pool.wire.router import Router
from bossworker.pool.wire.segments import single
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.system import processes, signals

PARENT_TICK = 0.05  # seconds between looks at the parent where it has no descriptor
STALLED_SECONDS = 1.0  # after so long, half a frame from a worker that says that it sends nothing is not its own
OWN_DESCRIPTORS = 100  # kept free for links, files and the like, besides those counted


class CallerGone(Exception):
    """The caller hung up or died: end everything."""


class Boss:
    """One pool's server. `run` returns when the pool is closed, or raises CallerGone."""

    def __init__(
        self,
        caller: Link,
        fork_server: Link,
        memory: Memory,
        options: Options,
        parent: int,
        router: Router | None = None,
    ) -> None:
        self.caller = caller
        self.fork_server = fork_server
        self.memory = memory
        self.parent = parent
        self.ledger = Ledger(
            options.worker_count,
            kill_grace=options.kill_grace,
            max_jobs_per_worker=options.max_jobs_per_worker,
            **({} if exclusive() else {"max_batch": 1}),
        )
        self.unasked = set(range(options.worker_count))  # slots whose first worker the fork server starts by itself
        self.lines = WorkerLines(router)
        self.halves: dict[int, tuple[int, float]] = {}  # slot -> bytes of an unfinished frame, and since when so many
        self.delivery = Delivery(caller)
        self.intake = Intake(self.ledger, self.delivery, memory)
        self.start_errors: dict[int, str] = {}
        self.ready = False
        self.max_worker_memory = options.max_worker_memory
        self.oom_kills = processes.oom_kills()  # of the whole machine, as of our last look
        self.reports = Reports(memory, self.read_router)
        self.poller = Poller(self.reports)
        self.parent_fd = processes.pidfd(parent)
        self.most_descriptors = processes.most_descriptors()
        self.poller.watch(caller, self.read_caller)
        self.poller.watch(fork_server, self.read_fork_server)
        if router is not None:
            self.poller.watch_fd(router.fileno(), lambda events: self.read_router())
        if self.parent_fd is not None:
            self.poller.watch_fd(self.parent_fd, self.caller_died)

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        self.perform(self.ledger.on_tick(time.monotonic()))
        while not (self.ledger.finished and not self.delivery.unsent):
            self.wait()
            self.read_reports()
            if not self.ready:
                self.announce()
            if self.delivery.unsent:
                self.deliver()
        self.caller.send(Kind.CLOSED)

    def wait(self) -> None:
        """Sleep until something arrives or is due; read what arrived, attend to what is due."""
        began = time.monotonic()
        seconds = self.ledger.sleep(began)
        if self.parent_fd is None:
            self.poller.wait(PARENT_TICK if seconds is None else min(seconds, PARENT_TICK))
            if os.getppid() != self.parent:
                raise CallerGone
        else:
            self.poller.wait(seconds)
        if seconds is not None and (now := time.monotonic()) >= began + seconds:
            self.attend(now)

    def attend(self, now: float) -> None:
        """Do what is due by the clock."""
        self.look_at_workers()
        if self.ledger.pause_is_over(now):
            self.perform(self.ledger.on_tick(now))

    def caller_died(self, events: int) -> None:
        raise CallerGone

    def perform(self, actions: Actions) -> None:
        """Carry out what the ledger decided; carrying out may lead to more."""
        for action in actions:
            _PERFORM[type(action)](self, action)

    # -- the caller -------------------------------------------------------------------------------------

    def read_caller(self, events: int) -> None:
        if events & EVENT_WRITE and self.caller.flush():
            self.poller.watch(self.caller, self.read_caller)
        try:
            frames = self.caller.receive()
        except LinkClosed:
            raise CallerGone from None
        for frame in frames:
            self.on_caller_frame(frame)

    def on_caller_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        match frame.kind:
            case Kind.SUBMIT:
                self.perform(self.ledger.on_submit(Batch.read(frame.head, frame.body, self.hold(frame)), now))
            case Kind.CANCEL:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                queued_only = len(frame.head) > messages.REQUEST.size
                self.cancel(number, frame.body.cast("Q").tolist(), queued_only)
            case Kind.RESIZE:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                (count,) = messages.COUNT.unpack_from(frame.head, messages.REQUEST.size)
                self.perform(self.ledger.on_resize(count, now))
                self.reply(number, {})
            case Kind.STATS:
                (number,) = messages.REQUEST.unpack(frame.head)
                self.deliver()  # so that what is counted as done has been sent
                self.reply(number, take_stock(self.ledger, self.intake.recorders, self.delivery, now))
            case Kind.CLOSE:
                self.perform(self.ledger.on_close(now))
            case Kind.STOP:
                self.stop(now)
            case _:
                complain(f"dropped a frame of kind {frame.kind!r} from the caller")

    def hold(self, frame: Frame) -> Held | None:
        """Take charge of the file that came with a frame, until all who may need it have got it."""
        return Held(frame.fd, self.memory) if frame.fd is not None else None

    def reply(self, number: int, content: dict[str, object]) -> None:
        """Answer a request; number 0 wants no answer."""
        if number:
            self.caller.send(Kind.REPLY, messages.REQUEST.pack(number), [json.dumps(content).encode()])

    def announce(self) -> None:
        """Tell the caller, once, that the pool is up."""
        if self.ledger.ready:
            self.ready = True
            self.caller.send(Kind.READY)

    def deliver(self) -> None:
        """Send results, and see to it that we go on when the caller takes more."""
        try:
            self.delivery.send()
        except LinkClosed:
            raise CallerGone from None
        if self.caller.unsent:
            self.poller.watch(self.caller, self.read_caller)

    # -- the workers ------------------------------------------------------------------------------------

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
        if self.lines.router is None:
            return
        for route, why in self.lines.router.take():
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
                seconds = self.intake.done(slot)
                self.perform(self.ledger.on_done(slot, seconds, report.leaves, time.monotonic()))
        except ProtocolError as error:
            self.misbehaved(slot, error)

    def on_up(self, slot: int) -> None:
        """A worker's init_handler is through. One of the first must not be larger than it may ever be."""
        if not self.ready and self.max_worker_memory:
            size = processes.resident_bytes(self.ledger.workers[slot].pid)
            if size > self.max_worker_memory:
                self.start_failed(slot, _too_large(size, self.max_worker_memory))
        self.perform(self.ledger.on_up(slot, time.monotonic()))

    def on_worker_frame(self, slot: int, frame: Frame) -> None:
        """Act on a frame from a worker. ProtocolError: it cannot be from our own code, or not now."""
        worker, file = self.ledger.workers[slot], self.hold(frame)  # closed with the last reference to it
        match frame.kind:
            case Kind.UP | Kind.DONE:
                pass  # they wake us: the report lies in the mailbox
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

    def look(self, slot: int, ask: Callable[[Intake, int], Snapshot] = Intake.look) -> Snapshot | None:
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

    # -- the fork server ------------------------------------------------------------------------------------

    def tell_nursery(self, kind: Kind, head: bytes) -> None:
        if not self.fork_server.send(kind, head):
            self.poller.watch(self.fork_server, self.read_fork_server)

    def read_fork_server(self, events: int) -> None:
        if events & EVENT_WRITE and self.fork_server.flush():
            self.poller.watch(self.fork_server, self.read_fork_server)
        for frame in self.fork_server.receive():
            match frame.kind:
                case Kind.SPAWNED:
                    self.on_spawned(frame)
                case Kind.EXITED:
                    self.on_exited(*messages.EXITED.unpack(frame.head))
                case Kind.SPAWN_FAILED:
                    slot, number = messages.SPAWN_FAILED.unpack(frame.head)
                    self.start_failed(slot, f"fork failed: {processes.describe_shortage(number)}")
                case _:
                    complain(f"dropped a frame of kind {frame.kind!r} from the fork server")
                    close_fds(frame.fds)

    def on_spawned(self, frame: Frame) -> None:
        slot, pid, route = messages.SPAWNED.unpack(frame.head)
        if frame.fd is None:  # there was no room for it here
            self.start_failed(slot, f"no descriptor for its socket: {processes.describe_shortage(errno.EMFILE)}")
            return
        mailbox = self.intake.recorders[slot].mailbox
        mailbox.begin()
        self.reports.expect(slot, mailbox)
        pair = Link(socket.socket(fileno=frame.fds[0]))
        self.lines.add(slot, pair, route)
        self.ledger.on_spawned(slot, pid)
        self.poller.watch(pair, partial(self.read_worker, slot))

    def on_exited(self, slot: int, pid: int, status: int) -> None:
        """A worker is dead: take everything it left, then let the ledger decide."""
        worker = self.ledger.workers.get(slot)
        if worker is None or worker.pid != pid:
            return
        with suppress(ProtocolError):
            self._read_all(slot)
        if slot in self.reports.slots():
            self.on_report(slot)
        self.reports.forget(slot)
        self._hang_up(slot)
        how = self._describe_exit(status, worker.condemned)
        if worker.state is State.STARTING:
            died = f"the worker died before it was up ({how.text}"
            self.start_failed(slot, self.start_errors.pop(slot, died))
            return
        snapshot = None
        with suppress(ProtocolError):
            snapshot = self.intake.look(slot)
        self.perform(self.ledger.on_exit(slot, how, snapshot, time.monotonic()))

    def _hang_up(self, slot: int) -> None:
        link = self.lines.remove(slot)
        self.poller.forget(link)
        link.close()
        self.halves.pop(slot, None)

    def _describe_exit(self, status: int, condemned: str) -> Exit:
        hint = ")"
        if condemned:
            hint = f"), ended by the boss: {condemned}"
        elif processes.killed(status):
            before, self.oom_kills = self.oom_kills, processes.oom_kills()
            hint = "), likely out of memory" if self.oom_kills > before else ")"
        return Exit(processes.describe_exit(status) + hint, os.waitstatus_to_exitcode(status))

    def start_failed(self, slot: int, text: str) -> None:
        if not self.ready:
            self.caller.send(Kind.START_FAILED, b"", [text.encode()])
            raise CallerGone
        self.perform(self.ledger.on_start_failed(slot, text, time.monotonic()))

    # -- actions ----------------------------------------------------------------------------------------

    def spawn(self, action: Spawn) -> None:
        slot = action.slot
        self.intake.open(slot)
        workers = len(self.ledger.workers)
        self.memory.most_held = max(0, self.most_descriptors - OWN_DESCRIPTORS - 2 * workers)
        if slot in self.unasked:
            self.unasked.remove(slot)
        else:
            by_zmq = has_room(workers, self.most_descriptors)
            self.tell_nursery(Kind.SPAWN, messages.SPAWN.pack(slot, self.ledger.workers[slot].index, by_zmq))

    def assign(self, action: Assign) -> None:
        """Note who gets what before sending it, so that nothing can be in two places."""
        batch, slot = action.batch, action.slot
        self.memory.assigned_through = max(self.memory.assigned_through, batch.first_id + batch.count)
        now = time.monotonic()
        recorder = self.intake.recorders[slot]
        recorder.open_batch(batch.first_id, batch.count, batch.job_options.attempt, now)
        if action.soon:
            self.poller.expect_answer(now)
        head, body, mailbox = batch.head(), batch.body(), recorder.mailbox
        self.reports.expect(slot, mailbox)
        if batch.file is None and fits(head, body):
            if mailbox.give(Kind.BATCH, head, body):
                self._send_worker(slot, Kind.WAKE)
            return
        mailbox.give(Kind.BATCH, by_wire=True)
        self._send_worker(slot, Kind.BATCH, head, body, batch.file.copies() if batch.file is not None else ())

    def leave(self, action: Leave) -> None:
        if self.intake.recorders[action.slot].mailbox.give(Kind.LEAVE):
            self._send_worker(action.slot, Kind.WAKE)

    def _send_worker(
        self, slot: int, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()
    ) -> None:
        with suppress(LinkClosed):  # its exit will be told
            if not self.lines.send(slot, kind, head, body, fds):
                self.poller.watch(self.lines.pairs[slot], partial(self.read_worker, slot))

    def interrupt(self, action: Interrupt) -> None:
        self.intake.recorders[action.slot].expire(action.job_id)
        self._signal(action.slot, signals.INTERRUPT)

    def kill(self, action: Kill) -> None:
        self._signal(action.slot, 0)

    def replace_stuck(self, action: ReplaceStuck) -> None:
        if processes.output_is_full():
            self.ledger.on_waits_for_output(action.slot, time.monotonic())
        else:
            self._signal(action.slot, 0)

    def _signal(self, slot: int, number: int) -> None:
        worker = self.ledger.workers[slot]
        self.tell_nursery(Kind.KILL, messages.KILL.pack(slot, worker.pid, number))

    def take_back(self, action: TakeBack) -> None:
        snapshot = self.look(action.slot, Intake.take_back)
        if snapshot is not None:
            self.perform(self.ledger.on_taken_back(action.slot, snapshot, time.monotonic()))

    def finish(self, action: Finish) -> None:
        self.delivery.add(
            single(
                action.job_id,
                action.pid,
                action.attempt,
                action.started,
                action.finished,
                action.outcome | Outcome.TEXT,
                encode_text(action.text, action.code),
            )
        )

    def tell(self, action: Tell) -> None:
        self.caller.send(Kind.NOTE, messages.NOTE.pack(action.level), [action.text.encode()])

    # -- requests ---------------------------------------------------------------------------------------

    def stop(self, now: float) -> None:
        """Cancel everything, and let the workers leave."""
        running = [job_id for worker in self.ledger.busy() for job_id in worker.batch.ids]  # type: ignore[union-attr]
        self.perform(self.ledger.on_stop(now))
        self.cancel(0, running)

    def cancel(self, number: int, ids: list[int], queued_only: bool = False) -> None:
        """Cancel jobs and reply how many were unfinished; `queued_only`: but not those that a worker has."""
        now = time.monotonic()
        looks: dict[int, Snapshot] = {}
        wanted = set(ids)
        for worker in () if queued_only else self.ledger.busy():
            assert worker.batch is not None
            if wanted.isdisjoint(worker.batch.ids):
                continue
            snapshot = self.look(worker.slot, Intake.take_back)
            if snapshot is not None:
                self.ledger.reclaim(worker.slot, snapshot, now)
                looks[worker.slot] = snapshot
        count, actions = self.ledger.on_cancel(ids, looks, now)
        self.perform(actions)
        self.reply(number, {"count": count})


def _too_large(size: int, most: int) -> str:
    told = f"a worker that has run no job has {size} bytes in memory already, and max_worker_memory is {most}"
    return f"{told}: it would be replaced after each batch; allow it more than the program itself has loaded"


def complain(text: str) -> None:
    """Tell of something that should not happen; the pool goes on."""
    with suppress(OSError):
        os.write(2, f"bossworker: boss {os.getpid()}: {text}\n".encode())


_PERFORM: dict[type, Callable[..., None]] = {
    Spawn: Boss.spawn,
    Assign: Boss.assign,
    Leave: Boss.leave,
    Interrupt: Boss.interrupt,
    Kill: Boss.kill,
    ReplaceStuck: Boss.replace_stuck,
    TakeBack: Boss.take_back,
    Finish: Boss.finish,
    Tell: Boss.tell,
}

"""The boss: owns the sockets and the queue, and performs what the ledger decides.

It never looks into a job, so that no job can harm it; it forks nothing, and waits nowhere but in its poll.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from bossworker.failure import Outcome
from bossworker.pool.boss.actions import (
    Actions,
    Assign,
    Broken,
    Finish,
    Interrupt,
    Kill,
    Leave,
    ReplaceStuck,
    Spawn,
    TakeBack,
)
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.poller import EVENT_READ, EVENT_WRITE, Poller
from bossworker.pool.boss.reports import Reports
from bossworker.pool.boss.stats import take_stock
from bossworker.pool.boss.worker_lines import WorkerLines, has_room
from bossworker.pool.boss.workers import State
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.link import Buffer, Frame, Link, LinkClosed, close_fds
from bossworker.pool.wire.mailbox import fits
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.parcel import Held
from bossworker.pool.wire.recorder import Memory, Recorder, Snapshot
from bossworker.pool.wire.router import Router
from bossworker.pool.wire.segments import single
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.system import processes, signals

PARENT_TICK = 0.05  # seconds between looks at the parent where it has no descriptor
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
        self.recorders: dict[int, Recorder] = {}
        self.delivery = Delivery(caller)
        self.start_errors: dict[int, str] = {}
        self.ready = False
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
                self.reply(number, take_stock(self.ledger, self.recorders, self.delivery, now))
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
            frames = link.receive()
        except LinkClosed:  # the fork server will tell how it ended
            self.poller.forget(link)
            return
        except ProtocolError as error:  # a handler wrote into our socket
            complain(f"ending worker {self.ledger.workers[slot].pid}: {error}")
            self.perform([Kill(slot)])
            self.poller.forget(link)
            return
        for frame in frames:
            self.on_worker_frame(slot, frame)

    def read_router(self) -> None:
        """Take off what came over ZeroMQ: it only wakes us."""
        if self.lines.router is None:
            return
        for route, why in self.lines.router.take():
            slot = self.lines.slot_of(route)
            if slot is not None:  # else it is a stranger's, or of a worker that is gone
                complain(f"ending worker {self.ledger.workers[slot].pid}: {why}")
                self.perform([Kill(slot)])

    def read_reports(self) -> None:
        """Look who is up, or through with its batch. What came over the links has been read before."""
        for slot in self.reports.slots():
            self.on_report(slot)

    def on_report(self, slot: int) -> None:
        self.reports.forget(slot)
        recorder = self.recorders[slot]
        try:
            report = recorder.mailbox.read_report()
            if report.spilled:
                self._read_all(slot)  # a report overtakes what was sent before it
        except ProtocolError as error:
            complain(f"ending worker {self.ledger.workers[slot].pid}: {error}")
            self.perform([Kill(slot)])
            return
        now = time.monotonic()
        if report.first:
            self.perform(self.ledger.on_up(slot, now))
        else:
            self.take(slot, recorder.snapshot())
            self.perform(self.ledger.on_done(slot, self._batch_seconds(slot), report.leaves, now))

    def on_worker_frame(self, slot: int, frame: Frame) -> None:
        match frame.kind:
            case Kind.UP | Kind.DONE:
                pass  # they wake us: the report lies in the mailbox
            case Kind.SPILL:
                self.on_spill(slot, frame)
            case Kind.INIT_FAILED:
                self.start_errors[slot] = str(frame.body, "utf-8", "replace")
            case Kind.EXIT_FAILED:
                pid = self.ledger.workers[slot].pid
                self.caller.send(Kind.EXIT_ERROR, messages.EXIT_ERROR.pack(pid), [bytes(frame.body)])
            case _:
                complain(f"dropped a frame of kind {frame.kind!r} from a worker")

    def _batch_seconds(self, slot: int) -> float:
        marks, taken = self.recorders[slot].marks, self.ledger.workers[slot].taken
        return marks[taken] - marks[0]

    def on_spill(self, slot: int, frame: Frame) -> None:
        worker = self.ledger.workers[slot]
        job_id, outcome = messages.SPILL.unpack_from(frame.head)
        file = self.hold(frame)
        if worker.has(job_id) and worker.batch is not None:
            started, finished = frame.head[messages.SPILL.size :].cast("d")
            self.ledger.on_spilled(slot, job_id, len(frame.body))
            attempt = worker.batch.job_options.attempt
            segment = single(job_id, worker.pid, attempt, started, finished, outcome, frame.body, file)
            self.delivery.note(segment, worker.cancelled)

    def look_at_workers(self) -> None:
        """Look at the recorders that are due: for late jobs, and for results behind which a long job runs."""
        for slot in self.ledger.due(time.monotonic()):
            snapshot = self.recorders[slot].snapshot()
            self.take(slot, snapshot)
            self.perform(self.ledger.on_look(slot, snapshot, time.monotonic()))

    def take(self, slot: int, snapshot: Snapshot) -> None:
        """Collect the results published since the last look."""
        worker = self.ledger.workers[slot]
        start, stop = worker.taken, snapshot.published
        if worker.batch is None or start >= stop:
            return
        batch, size = worker.batch, 0
        for segment in self.recorders[slot].segments(
            start, stop, batch.first_id, worker.pid, batch.job_options.attempt
        ):
            self.delivery.note(segment, worker.cancelled)
            size += len(segment.payload)
        self.ledger.on_taken(slot, stop, size)

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
                    slot, errno = messages.SPAWN_FAILED.unpack(frame.head)
                    self.start_failed(slot, f"fork failed: {os.strerror(errno)}")
                case _:
                    complain(f"dropped a frame of kind {frame.kind!r} from the fork server")
                    close_fds(frame.fds)

    def on_spawned(self, frame: Frame) -> None:
        slot, pid, route = messages.SPAWNED.unpack(frame.head)
        self.recorders[slot].mailbox.begin()
        self.reports.expect(slot, self.recorders[slot].mailbox)
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
        how = processes.describe_exit(status) + self._memory_hint(status)
        if worker.state is State.STARTING:
            died = f"the worker died before it was up ({how}"
            self.start_failed(slot, self.start_errors.pop(slot, died))
            return
        snapshot = self.recorders[slot].snapshot()
        self.take(slot, snapshot)
        self.perform(self.ledger.on_exit(slot, how, snapshot, time.monotonic()))

    def _read_all(self, slot: int) -> None:
        """Read what a worker has sent up to now, to the last byte."""
        link = self.lines.pairs[slot]
        with suppress(LinkClosed):
            while link.pull():
                pass
        frames, link.frames = link.frames, []
        for frame in frames:
            self.on_worker_frame(slot, frame)

    def _hang_up(self, slot: int) -> None:
        link = self.lines.remove(slot)
        self.poller.forget(link)
        link.close()

    def _memory_hint(self, status: int) -> str:
        if not processes.killed(status):
            return ")"
        before, self.oom_kills = self.oom_kills, processes.oom_kills()
        return "), likely out of memory" if self.oom_kills > before else ")"

    def start_failed(self, slot: int, text: str) -> None:
        if not self.ready:
            self.caller.send(Kind.START_FAILED, b"", [text.encode()])
            raise CallerGone
        self.perform(self.ledger.on_start_failed(slot, text, time.monotonic()))

    # -- actions ----------------------------------------------------------------------------------------

    def spawn(self, action: Spawn) -> None:
        slot = action.slot
        if slot not in self.recorders:
            self.recorders[slot] = self.memory.recorder(slot)
            self.memory.slots = max(self.memory.slots, slot + 1)
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
        self.recorders[slot].open_batch(batch.first_id, batch.count, batch.job_options.attempt, now)
        if action.soon:
            self.poller.expect_answer(now)
        head, body, mailbox = batch.head(), batch.body(), self.recorders[slot].mailbox
        self.reports.expect(slot, mailbox)
        if batch.file is None and fits(head, body):
            if mailbox.give(Kind.BATCH, head, body):
                self._send_worker(slot, Kind.WAKE)
            return
        mailbox.give(Kind.BATCH, by_wire=True)
        self._send_worker(slot, Kind.BATCH, head, body, batch.file.copies() if batch.file is not None else ())

    def leave(self, action: Leave) -> None:
        if self.recorders[action.slot].mailbox.give(Kind.LEAVE):
            self._send_worker(action.slot, Kind.WAKE)

    def _send_worker(
        self, slot: int, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()
    ) -> None:
        with suppress(LinkClosed):  # its exit will be told
            if not self.lines.send(slot, kind, head, body, fds):
                self.poller.watch(self.lines.pairs[slot], partial(self.read_worker, slot))

    def interrupt(self, action: Interrupt) -> None:
        self.recorders[action.slot].expire(action.job_id)
        self._signal(action.slot, signals.INTERRUPT)

    def kill(self, action: Kill) -> None:
        self._signal(action.slot, 0)

    def replace_stuck(self, action: ReplaceStuck) -> None:
        if not processes.output_is_full():
            self._signal(action.slot, 0)

    def _signal(self, slot: int, number: int) -> None:
        worker = self.ledger.workers[slot]
        self.tell_nursery(Kind.KILL, messages.KILL.pack(slot, worker.pid, number))

    def take_back(self, action: TakeBack) -> None:
        snapshot = self.recorders[action.slot].take_back()
        self.take(action.slot, snapshot)
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
                action.text.encode(),
            )
        )

    def broken(self, action: Broken) -> None:
        self.caller.send(Kind.BROKEN, b"", [action.text.encode()])

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
            snapshot = self.recorders[worker.slot].take_back()
            self.take(worker.slot, snapshot)
            self.ledger.reclaim(worker.slot, snapshot, now)
            looks[worker.slot] = snapshot
        count, actions = self.ledger.on_cancel(ids, looks, now)
        self.perform(actions)
        self.reply(number, {"count": count})


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
    Broken: Boss.broken,
}

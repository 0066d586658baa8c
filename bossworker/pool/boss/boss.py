"""The boss: owns the sockets and the queue, and performs what the ledger decides.

It never looks into a job, so that no job can harm it; it forks nothing, and waits nowhere but in its poll.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from collections.abc import Callable

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
    Tried,
)
from bossworker.pool.boss.caller_requests import CallerRequests
from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.chronicle import Chronicle
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.door_requests import Doors
from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.failed_jobs import FailedJobs
from bossworker.pool.boss.fork_server_traffic import ForkServerTraffic
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.job_memory import JobMemory
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.notes import Notes
from bossworker.pool.boss.output_relay import LOOK_SECONDS, OutputRelay
from bossworker.pool.boss.poller import EVENT_WRITE
from bossworker.pool.boss.router_start import RouterStart
from bossworker.pool.boss.worker_traffic import WorkerTraffic
from bossworker.pool.options import Options
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.recorder import Memory
from bossworker.pool.wire.segments import single
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.system import processes, signals

PARENT_TICK = 0.05  # seconds between looks at the parent where it has no descriptor
_WARNING, _INFO = 30, 20  # as in the module logging, which takes long to load


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
        listener: socket.socket | None = None,
    ) -> None:
        self.caller = caller
        self.memory = memory
        self.parent = parent
        self.ledger = Ledger(
            options.worker_count,
            kill_grace=options.kill_grace,
            max_jobs_per_worker=options.max_jobs_per_worker,
            max_job_memory=options.max_job_memory,
            **({} if exclusive() else {"max_batch": 1}),
        )
        self.ring = EventRing()
        self.notes = Notes(caller)
        self.chronicle = Chronicle(self.ring, self.note)
        self.delivery = Delivery(caller, self.ring, FailedJobs(self.ledger), memory.keep_results)
        self.intake = Intake(self.ledger, self.delivery, memory)
        self.traffic = WorkerTraffic(self.ledger, self.intake, memory, caller, self.perform, self.on_up, self.deliver)
        self.fork_server = ForkServerTraffic(
            fork_server, self.traffic, self.delivery, self.chronicle, options.worker_count, self.start_failed
        )
        self.requests = CallerRequests(
            self.traffic, self.delivery, self.note, self.fork_server.tell, self.fork_server.signal, options
        )
        self.doors = Doors(self.requests, self.traffic.poller)
        self.watchers = self.requests.watchers
        self.output: OutputRelay | None = None
        self.ready = False
        self.said_farewell = False
        self.max_worker_memory = options.max_worker_memory
        self.poller = self.traffic.poller
        self.chores: list[Chore] = self.requests.chores
        self.notes.chores = self.chores
        self.parent_fd = processes.pidfd(parent)
        self.poller.watch(caller, self.read_caller)
        if self.parent_fd is not None:
            self.poller.watch_fd(self.parent_fd, self.caller_died)
        self._set_up_what_is_asked_for(options, listener)

    def _set_up_what_is_asked_for(self, options: Options, listener: socket.socket | None) -> None:
        """What some pools have, and others have not."""
        recorders = self.intake.recorders
        if options.relayed:
            output = OutputRelay(self.ledger, recorders, self.caller, self.poller, self.ring, self.requests.tails)
            output.watched = lambda: self.watchers.ever
            self.output = self.fork_server.output = output
            self.intake.before_results = output.before_results
        if options.max_job_memory:
            self.chores.append(JobMemory(self.ledger, recorders, options.max_job_memory, self.perform))
        if listener is not None:
            start = RouterStart(listener, self.chores, self.traffic.use_router, self.do_without_router)
            self.traffic.router_start = start

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        self.perform(self.ledger.on_tick(time.monotonic()))
        while not (self.ledger.closing and self.through()):
            self.wait()
            self.traffic.read_reports()
            if not self.ready:
                self.announce()
            if self.watchers.watched:
                self.watchers.attend()
            if self.delivery.unsent or (self.output is not None and self.output.waiting):
                self.deliver()
            if self.delivery.doors and self.doors.unsent:
                self.doors.deliver()
        self.doors.say_farewell()
        self.notes.release()
        self.say_last_word()

    def say_last_word(self) -> None:
        """Tell the caller that all went in order. Its socket may still be full of what was sent before that."""
        try:
            self.caller.send(Kind.CLOSED)
            while not self.caller.flush():
                processes.await_fd(self.caller.fileno(), select.POLLOUT, PARENT_TICK)
        except LinkClosed:
            raise CallerGone from None

    def through(self) -> bool:
        """Whether the pool is closed, nobody is left, and all has been told."""
        if not self.ledger.finished:
            return False
        if not self.said_farewell:
            self.said_farewell = True
            if (events := self.watchers.farewell()) is not None:
                self.caller.send(Kind.LAST_EVENTS, b"", [json.dumps(events).encode()])
                self.deliver()
        return not (self.delivery.unsent or (self.output is not None and self.output.waiting))

    def wait(self) -> None:
        """Sleep until something arrives or is due; read what arrived, attend to what is due."""
        began = time.monotonic()
        seconds = self.seconds_until_due(began)
        if self.parent_fd is None:
            self.poller.wait(PARENT_TICK if seconds is None else min(seconds, PARENT_TICK))
            if os.getppid() != self.parent:
                raise CallerGone
        else:
            self.poller.wait(seconds)
        if seconds is not None and (now := time.monotonic()) >= began + seconds:
            self.attend(now)

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until something is due; None: nothing is."""
        seconds = self.ledger.seconds_until_due(now)
        if self.watchers.watched:
            due = self.watchers.seconds_until_due(now)
            seconds = due if seconds is None else min(seconds, due)
        if self.output is not None and self.output.paused:
            self.output.attend()
            seconds = LOOK_SECONDS if seconds is None else min(seconds, LOOK_SECONDS)
        for chore in self.chores:
            wanted = chore.seconds_until_due(now)
            if wanted is not None:
                seconds = wanted if seconds is None else min(seconds, wanted)
        return seconds

    def attend(self, now: float) -> None:
        """Do what is due by the clock."""
        self.watchers.note_memory(now)
        for chore in list(self.chores):
            chore.attend(now)
        self.traffic.look_at_workers()
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
            if frame.kind is Kind.LISTEN:
                self.doors.open(frame)
            else:
                self.requests.on_frame(frame)
        if self.ledger.closing:
            self.doors.take_no_more()

    def announce(self) -> None:
        """Tell the caller, once, that the pool is up."""
        if self.ledger.staff.complete:
            self.ready = True
            self.note(_INFO, f"pool up: boss={os.getpid()} workers={len(self.ledger.workers)}")
            self.notes.release()
            self.caller.send(Kind.READY)

    def deliver(self) -> None:
        """Send what jobs have printed and their results, and see to it that we go on when the caller takes more."""
        try:
            if self.notes.held:
                self.notes.release()
            if self.output is not None:
                self.output.send()
            if self.output is None or not self.output.waiting:  # or results would overtake their jobs' lines
                self.delivery.send()
        except LinkClosed:
            raise CallerGone from None
        if self.caller.unsent:
            self.poller.watch(self.caller, self.read_caller)

    # -- workers ----------------------------------------------------------------------------------------

    def on_up(self, slot: int) -> None:
        """A worker's init_handler has returned. One of the first must not be larger than it may ever be."""
        if not self.ready and self.max_worker_memory:
            size = processes.resident_bytes(self.ledger.workers[slot].pid)
            if size > self.max_worker_memory:
                self.start_failed(slot, _too_large(size, self.max_worker_memory))
        now = time.monotonic()
        self.chronicle.worker_up(self.ledger.workers[slot], now)
        self.perform(self.ledger.on_up(slot, now))

    def do_without_router(self, why: str) -> None:
        """Pairs carry everything; workers that start from now on do not connect in vain."""
        self.fork_server.by_zmq = False
        self.note(_WARNING, f"ZeroMQ not used: transport=socketpair reason={why!r}")

    def start_failed(self, slot: int, text: str) -> None:
        """A worker did not come up. If it is one of the first, neither does the pool."""
        if not self.ready:
            self.notes.release()
            self.caller.send(Kind.START_FAILED, b"", [text.encode()])
            raise CallerGone
        self.perform(self.ledger.on_start_failed(slot, text, time.monotonic()))

    # -- actions ----------------------------------------------------------------------------------------

    def spawn(self, action: Spawn) -> None:
        self.fork_server.spawn(action.slot)

    def assign(self, action: Assign) -> None:
        self.traffic.assign(action.slot, action.batch, action.soon)

    def leave(self, action: Leave) -> None:
        self.traffic.send_away(action.slot)

    def interrupt(self, action: Interrupt) -> None:
        self.chronicle.job_stopped(self.ledger.workers[action.slot], action.job_id)
        self.intake.recorders[action.slot].expire(action.job_id, action.excess)
        self.fork_server.signal(action.slot, signals.INTERRUPT)

    def kill(self, action: Kill) -> None:
        self.chronicle.worker_killed(self.ledger.workers[action.slot])
        self.fork_server.signal(action.slot, 0)

    def replace_stuck(self, action: ReplaceStuck) -> None:
        if processes.output_is_full() or (self.output is not None and self.output.paused):
            self.ledger.on_waits_for_output(action.slot, time.monotonic())
        else:
            worker = self.ledger.workers[action.slot]
            worker.why = "stuck"
            self.chronicle.worker_killed(worker)
            self.fork_server.signal(action.slot, 0)

    def take_back(self, action: TakeBack) -> None:
        snapshot = self.traffic.look(action.slot, Intake.take_back)
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

    def tried(self, action: Tried) -> None:
        if action.error:
            self.note(_WARNING, f"pool not reloaded: error={action.error.partition(chr(10))[0]!r}")
        else:
            self.note(_INFO, "pool reloaded")
        self.requests.reloads.on_tried(action.unused, action.error)

    def tell(self, action: Tell) -> None:
        self.note(action.level, action.text)

    def note(self, level: int, text: str) -> None:
        """Have the program's logger say something."""
        self.notes.add(level, text)


def _too_large(size: int, most: int) -> str:
    told = f"a worker that has run no job has {size} bytes in memory already, and max_worker_memory is {most}"
    return f"{told}: it would be replaced after each batch; allow it more than the program itself has loaded"


_PERFORM: dict[type, Callable[..., None]] = {
    Spawn: Boss.spawn,
    Assign: Boss.assign,
    Leave: Boss.leave,
    Interrupt: Boss.interrupt,
    Kill: Boss.kill,
    ReplaceStuck: Boss.replace_stuck,
    TakeBack: Boss.take_back,
    Finish: Boss.finish,
    Tried: Boss.tried,
    Tell: Boss.tell,
}

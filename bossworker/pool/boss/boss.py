"""The boss: owns the sockets and the queue, and performs what the ledger decides.

It never looks into a job, so that no job can harm it; it forks nothing, and waits nowhere but in its poll.
"""

from __future__ import annotations

import json
import os
import select
import socket
import time
from functools import partial

from bossworker.pool.boss.caller_requests import CallerRequests
from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.chronicle import Chronicle
from bossworker.pool.boss.delivery import CallerGone, Delivery
from bossworker.pool.boss.door_requests import Doors
from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.failed_jobs import FailedJobs
from bossworker.pool.boss.first_workers import FirstWorkers
from bossworker.pool.boss.fork_server_orders import ForkServerOrders
from bossworker.pool.boss.fork_server_reader import ForkServerReader
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.job_memory import JobMemory
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.notes import Notes
from bossworker.pool.boss.operations import Operations
from bossworker.pool.boss.output_relay import LOOK_SECONDS, OutputRelay
from bossworker.pool.boss.performer import Performer
from bossworker.pool.boss.poller import EVENT_WRITE, Poller
from bossworker.pool.boss.pool_access import PoolAccess
from bossworker.pool.boss.reloads import Reloads
from bossworker.pool.boss.replying import send_reply
from bossworker.pool.boss.reports import Reports
from bossworker.pool.boss.router_start import RouterStart
from bossworker.pool.boss.worker_lines import WorkerLines
from bossworker.pool.boss.worker_orders import WorkerOrders
from bossworker.pool.boss.worker_reader import WorkerReader
from bossworker.pool.options import Options
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.recorder import Memory
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.system import processes

PARENT_TICK = 0.05  # seconds between looks at the parent where it has no descriptor


class Boss:
    """One pool's server. `run` returns when the pool is closed, or raises CallerGone or NoPool.

    What happens goes one way round: readers (`workers`, the fork server's, `requests`, `doors`) tell the ledger of it,
    and hand what that decides to the performer, which gives orders and fills the delivery. Whatever stands lower there
    knows nothing of what stands higher.
    """

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
        self.parent = parent
        self.said_farewell = False
        self.chores: list[Chore] = []
        self.ledger = Ledger(
            options.worker_count,
            kill_grace=options.kill_grace,
            max_jobs_per_worker=options.max_jobs_per_worker,
            max_job_memory=options.max_job_memory,
            **({} if exclusive() else {"max_batch": 1}),
        )
        reports = Reports(memory)
        self.poller = Poller(reports)
        self.lines = WorkerLines(self.poller, reports)
        self.notes = Notes(caller, self.chores)
        ring = EventRing()
        self.delivery = Delivery(caller, self.poller, self.notes, ring, FailedJobs(self.ledger), memory.keep_results)
        self.intake = Intake(self.ledger, self.delivery, memory)
        self.fork_server = ForkServerOrders(fork_server, self.poller, self.ledger, self.intake, memory, options)
        orders = WorkerOrders(self.lines, self.poller, memory, self.intake.recorders)
        reloads = Reloads(self.ledger, self.fork_server.tell, partial(send_reply, caller.send), options.handler)
        self.performer = Performer(
            self.ledger,
            self.intake,
            self.lines,
            orders,
            self.fork_server,
            self.delivery,
            Chronicle(ring, self.notes.add),
            reloads,
        )
        self.first_workers = FirstWorkers(self.ledger, caller, self.notes, options.max_worker_memory)
        around = (self.poller, memory, self.intake, self.performer)
        self.workers = WorkerReader(self.lines, *around, self.delivery, self.first_workers, caller)
        ForkServerReader(fork_server, *around, self.workers, self.delivery, self.first_workers)
        self.access = PoolAccess(
            caller, memory, self.performer, self.intake, self.delivery, self.fork_server, reloads, self.chores, options
        )
        operations = Operations(self.access)
        self.requests = CallerRequests(self.access, operations)
        self.doors = Doors(self.access, operations, self.poller)
        self.watchers = self.access.watchers
        self.parent_fd = processes.pidfd(parent)
        self.poller.watch(caller, self.read_caller)
        if self.parent_fd is not None:
            self.poller.watch_fd(self.parent_fd, self.caller_died)
        self._set_up_what_is_asked_for(options, orders, listener)

    def _set_up_what_is_asked_for(self, options: Options, orders: WorkerOrders, listener: socket.socket | None) -> None:
        """What some pools have, and others have not."""
        recorders, ring = self.intake.recorders, self.delivery.ring
        if options.relayed:
            output = OutputRelay(self.ledger, recorders, self.caller, self.poller, ring, self.access.tails)
            output.watched = lambda: self.watchers.ever
            self.delivery.output = output
            self.intake.before_results = output.before_results
        if options.max_job_memory:
            limit = options.max_job_memory
            self.chores.append(JobMemory(self.ledger, recorders, limit, self.performer.perform))
        if listener is not None:
            use = self.workers.use_router
            orders.router_start = RouterStart(listener, self.chores, use, self.fork_server, self.notes)

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        self.performer.perform(self.ledger.on_tick(time.monotonic()))
        while not (self.ledger.closing and self.through()):
            self.wait()
            # Behind `wait`, in which the links are read: a report stands in memory, and would overtake what its worker
            # has sent before it.
            self.workers.read_reports()
            if not self.first_workers.up:
                self.first_workers.announce()
            if self.watchers.watched:
                self.watchers.attend()
            if self.delivery.unsent:
                self.delivery.deliver()
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
                self.delivery.deliver()
        return not self.delivery.unsent

    def wait(self) -> None:
        """Sleep until something arrives or is due; read what arrived, attend to what is due."""
        began = time.monotonic()
        seconds = self.seconds_until_due(began)
        if self.parent_fd is None:
            self.poller.wait(PARENT_TICK if seconds is None else min(seconds, PARENT_TICK))
            # Where there is no descriptor of the caller, it may have ended before we came to ask: whoever has adopted
            # us has another pid.
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
        output = self.delivery.output
        if output is not None and output.paused:
            output.attend()
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
        self.workers.look_at_workers()
        if self.ledger.pause_is_over(now):
            self.performer.perform(self.ledger.on_tick(now))

    def caller_died(self, events: int) -> None:
        raise CallerGone

    # -- the caller -------------------------------------------------------------------------------------

    def read_caller(self, events: int) -> None:
        if events & EVENT_WRITE and self.caller.flush():
            self.poller.refresh(self.caller)
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

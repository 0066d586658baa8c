"""The worker: waits for batches, has their jobs run (``job_runner.py``), and reports; from its start to its end."""

from __future__ import annotations

import sys
import time
import traceback
from contextlib import suppress

from bossworker.failure import describe
from bossworker.pool.options import Handlers, Options
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import LinkClosed, close_fds
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.recorder import BOSS_ASLEEP, Memory, Recorder
from bossworker.pool.wire.spin import Spin
from bossworker.pool.wire.worker_wire import WorkerWire
from bossworker.pool.worker.job_runner import JobRunner
from bossworker.pool.worker.job_steps import describe_failed_init, describe_failed_start
from bossworker.pool.worker.leaving import leave
from bossworker.pool.worker.relayed_output import RelayedOutput
from bossworker.pool.worker.stack_file import offer_stack
from bossworker.system import processes, signals, stdio
from bossworker.system.cpython import signal  # the whole module makes enums of what it gives back, at each batch
from bossworker.system.multiprocess import WorkerIdentity

MOST_DEAD = 256  # children that ended and nobody waited for; a worker with more is replaced
COUNT_SECONDS = 1.0  # between counts of them


class Worker:
    """One worker."""

    def __init__(
        self,
        recorder: Recorder,
        wire: WorkerWire,
        memory: Memory,
        handlers: Handlers,
        options: Options,
        identity: WorkerIdentity,
        output: RelayedOutput | None = None,
    ) -> None:
        self.recorder = recorder
        self.wire = wire
        self.memory = memory
        self.handlers = handlers
        self.identity = identity
        self.max_memory = options.max_worker_memory
        self.jobs = JobRunner(recorder, wire, memory, handlers.work, options, identity.index, output)
        self.mailbox = recorder.mailbox
        self.orders: list[Frame] = []  # that came over the wire: one at the most
        self.spin = Spin()
        self.init_set_timer = False
        self.count_at = time.monotonic() + COUNT_SECONDS  # when to count the dead children again (monotonic)

    # -- life -------------------------------------------------------------------------------------------

    def live(self) -> None:
        """The whole life; returns when it could not start, exits with status 1 when the boss is gone."""
        self.memory.keep_only(self.recorder.slot)
        try:
            self.run()
        except (LinkClosed, OSError):
            sys.exit(1)

    def run(self) -> None:
        """From the init_handler to the exit_handler, if it can start."""
        if not self._start():
            return
        leaves = False
        while not leaves:
            self._tidy()
            frame = self._next_order()
            if frame.kind is not Kind.BATCH:
                break
            self.jobs.run(Batch.read(frame.head, frame.body), frame.fd)
            close_fds(frame.fds)
            leaves = bool(self.max_memory and self._too_large()) or self._too_many_dead()
            self._report(Kind.DONE, self.jobs.spilled, leaves)
            stdio.flush_streams()  # never before a job: a fork may have copied a lock of theirs as taken
        self._exit()
        leave()

    def _start(self) -> bool:
        """Run the init_handler; False when it failed, which the boss is told."""
        signal.signal(signals.INTERRUPT, self.jobs.on_interrupt)
        offer_stack(self.recorder)
        if self.handlers.init is not None and (error := self.jobs.call(self.handlers.init)) is not None:
            self.wire.send(Kind.INIT_FAILED, body=(describe_failed_init(self.handlers.init, error),))
            return False
        self.init_set_timer = signal.getitimer(signal.ITIMER_REAL)[0] > 0
        self.wire.greet()
        self._report(Kind.UP)
        return True

    def _exit(self) -> None:
        """Run the exit_handler; the caller is told when it fails."""
        if self.handlers.exit is not None and (error := self.jobs.call(self.handlers.exit)) is not None:
            with suppress(BaseException):
                traceback.print_exception(error)
            self.wire.send(Kind.EXIT_FAILED, body=(describe(error).encode("utf-8", "replace"),))

    def _tidy(self) -> None:
        """Between batches: undo what a handler did to what we rely on."""
        self.identity.take()
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        if not self.init_set_timer:
            signal.setitimer(signal.ITIMER_REAL, 0)
        if signal.getsignal(signals.INTERRUPT) != self.jobs.on_interrupt:
            signal.signal(signals.INTERRUPT, self.jobs.on_interrupt)

    def _too_large(self) -> bool:
        return processes.own_resident_bytes() > self.max_memory

    def _too_many_dead(self) -> bool:
        """What a handler detaches becomes ours, and we cannot wait for it: it looks no different from the handler's own
        children, whose statuses are not ours to take. They are the fork server's to reap once we have left.
        """
        now = time.monotonic()
        if now < self.count_at:
            return False
        self.count_at = now + COUNT_SECONDS
        return processes.dead_children() > MOST_DEAD

    # -- messages ---------------------------------------------------------------------------------------

    def _next_order(self) -> Frame:
        """Wait for the next order: first awake for an instant, since it is mostly near, then asleep."""
        mailbox = self.mailbox
        began = time.monotonic()
        awake_until = 0.0 if mailbox.always else self.spin.until(began)
        while not mailbox.has_order():
            now = time.monotonic()
            if now >= awake_until:
                self._sleep()
            else:
                self.spin.rest(now)
        self.spin.learn(time.monotonic() - began)
        return mailbox.take_order() or self._order_by_wire()

    def _sleep(self) -> None:
        """Until an order is given, or about to come."""
        if not self.mailbox.fall_asleep():
            self.orders += self.wire.orders()
        # Once we are awake. Until then a boss that leaves an order sends a message for it, also one that nobody needs:
        # such a message is read at the next sleep.
        self.mailbox.wake_up()

    def _order_by_wire(self) -> Frame:
        while not self.orders:
            self.orders += self.wire.orders()
        return self.orders.pop()

    def _report(self, kind: Kind, spilled: bool = False, leaves: bool = False) -> None:
        """Tell the boss that we are up, or through with a batch."""
        must = self.mailbox.report(spilled, leaves)
        # After the report, and its fence: a boss that is about to sleep has said so before it looked for reports, so it
        # has seen this one, or we see its word.
        if must or self.memory.words[BOSS_ASLEEP]:
            self.wire.ring(kind)


def refuse(wire: WorkerWire, what: str, error: BaseException) -> None:
    """Report that this worker cannot start, and why."""
    wire.send(Kind.INIT_FAILED, b"", [describe_failed_start(what, error)])

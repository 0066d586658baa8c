"""What comes from the fork server: workers that were started, or could not be, and those that have died or left."""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress

from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.first_workers import FirstWorkers
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.notes import complain
from bossworker.pool.boss.performer import Performer
from bossworker.pool.boss.poller import EVENT_WRITE, Poller
from bossworker.pool.boss.worker_reader import WorkerReader
from bossworker.pool.boss.workers import Exit, State, WorkerRecord
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, close_fds
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.output_frames import NO_JOB
from bossworker.pool.wire.recorder import Memory
from bossworker.system import processes


class ForkServerReader:
    """See the module. The poller calls it."""

    def __init__(
        self,
        link: Link,
        poller: Poller,
        memory: Memory,
        intake: Intake,
        performer: Performer,
        workers: WorkerReader,
        delivery: Delivery,
        first_workers: FirstWorkers,
    ) -> None:
        self._link = link
        self._poller = poller
        self._memory = memory
        self._intake = intake
        self._performer = performer
        self._ledger = performer.ledger
        self._workers = workers
        self._delivery = delivery
        self._first_workers = first_workers
        self._oom_kills = processes.oom_kills()  # of the whole machine, as of our last look
        poller.watch(link, self._read)

    def _read(self, events: int) -> None:
        if events & EVENT_WRITE and self._link.flush():
            self._poller.refresh(self._link)
        for frame in self._link.receive():
            match frame.kind:
                case Kind.SPAWNED:
                    self._on_spawned(frame)
                case Kind.OUTPUT if self._delivery.output is not None and frame.fd is not None:
                    slot, pid, stream, secret = messages.OUTPUT.unpack(frame.head)
                    self._delivery.output.add(slot, pid, stream, frame.fd, secret)
                case Kind.EXITED:
                    self._on_exited(*messages.EXITED.unpack(frame.head))
                case Kind.SPAWN_FAILED:
                    slot, number = messages.SPAWN_FAILED.unpack(frame.head)
                    self._on_start_failed(slot, f"fork failed: {processes.describe_shortage(number)}")
                case _:
                    complain(f"dropped a frame of kind {frame.kind!r} from the fork server")
                    close_fds(frame.fds)

    # -- starts -------------------------------------------------------------------------------------------

    def _on_spawned(self, frame: Frame) -> None:
        slot, pid, route = messages.SPAWNED.unpack(frame.head)
        if frame.fd is None:  # there was no room for it here
            self._on_start_failed(slot, f"no descriptor for its socket: {processes.describe_shortage(errno.EMFILE)}")
            return
        self._workers.add(slot, frame.fds[0], route)
        self._ledger.on_spawned(slot, pid)
        self._delivery.ring.indexes[pid] = self._ledger.workers[slot].index

    def _on_start_failed(self, slot: int, why: str) -> None:
        """A worker did not come up. If it is one of the first, neither does the pool."""
        if not self._first_workers.up:
            self._first_workers.fail(why)
        self._performer.perform(self._ledger.on_start_failed(slot, why, time.monotonic()))

    # -- ends ---------------------------------------------------------------------------------------------

    def _on_exited(self, slot: int, pid: int, status: int) -> None:
        """A worker is dead: take everything it left, then let the ledger decide."""
        worker = self._ledger.workers.get(slot)
        # The slot may have another worker since, where this one was given up before it was up: its end means nothing to
        # that one.
        if worker is None or worker.pid != pid:
            return
        self._take_rest(slot)
        how = self._describe_exit(status, worker.condemned)
        if worker.state is State.STARTING:
            died = f"the worker died before it was up ({how.text}"
            self._on_start_failed(slot, self._workers.take_start_error(slot) or died)
        else:
            self._on_death(worker, how)

    def _take_rest(self, slot: int) -> None:
        """Of what a dead worker had sent and printed."""
        output = self._delivery.output
        running = NO_JOB if output is None else output.running(slot)
        self._workers.remove(slot)
        if output is not None:
            output.remove(slot, running)

    def _on_death(self, worker: WorkerRecord, how: Exit) -> None:
        """One that was up is dead, or has left."""
        snapshot = None
        with suppress(ProtocolError):
            # The worker is reaped, so its recorder changes no more; and all that it has sent was read before this look.
            snapshot = self._intake.collect(worker.slot)
        # Before the slot is wiped for the next worker: whoever looks behind a boss that was killed meanwhile finds the
        # batch here or there.
        self._memory.note_exit(worker.slot)
        now = time.monotonic()
        doing = None
        if worker.batch is not None and snapshot is not None and snapshot.running:
            doing = worker.batch.first_id + snapshot.claimed - 1
        self._delivery.failures.doomed = worker.batch
        self._performer.perform(self._ledger.on_exit(worker.slot, how, snapshot, now))
        self._delivery.failures.doomed = None
        self._performer.chronicle.worker_down(worker, how, now, doing)

    def _describe_exit(self, status: int, condemned: str) -> Exit:
        hint = ")"
        if condemned:
            hint = f"), ended by the boss: {condemned}"
        elif processes.killed(status):
            # The kernel counts for the whole machine: another process may have been killed at the same time. So the
            # text says "likely".
            before, self._oom_kills = self._oom_kills, processes.oom_kills()
            hint = "), likely out of memory" if self._oom_kills > before else ")"
        return Exit(processes.describe_exit(status) + hint, os.waitstatus_to_exitcode(status))

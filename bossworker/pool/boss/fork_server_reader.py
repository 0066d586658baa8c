"""What goes between the boss and the fork server: workers to be started and signalled; those that started, or died."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from bossworker.pool.boss.chronicle import Chronicle
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.notes import complain
from bossworker.pool.boss.output_relay import OutputRelay
from bossworker.pool.boss.poller import EVENT_WRITE
from bossworker.pool.boss.worker_lines import has_room
from bossworker.pool.boss.worker_traffic import WorkerTraffic
from bossworker.pool.boss.workers import Exit, State, WorkerRecord
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Buffer, Frame
from bossworker.pool.wire.link import Link, close_fds
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.pool.wire.output_frames import NO_JOB
from bossworker.system import processes

OWN_DESCRIPTORS = 100  # kept free for links, files and the like, besides those counted


class ForkServerTraffic:
    """See the module. `start_failed` is told of each worker that did not come up, and why."""

    def __init__(
        self,
        link: Link,
        traffic: WorkerTraffic,
        delivery: Delivery,
        chronicle: Chronicle,
        first_workers: int,
        start_failed: Callable[[int, str], None],
    ) -> None:
        self.link = link
        self.traffic = traffic
        self.ledger = traffic.ledger
        self.memory = traffic.memory
        self.delivery = delivery
        self.chronicle = chronicle
        self.start_failed = start_failed
        self.output: OutputRelay | None = None  # where workers' output goes, if it is relayed
        self.by_zmq = True  # whether workers may connect by ZeroMQ, if there is room
        self.most_descriptors = processes.most_descriptors()
        self._unasked = set(range(first_workers))  # slots whose first worker the fork server starts by itself
        self._oom_kills = processes.oom_kills()  # of the whole machine, as of our last look
        traffic.poller.watch(link, self.read)

    # -- to the fork server -------------------------------------------------------------------------------

    def tell(self, kind: Kind, head: bytes, body: Sequence[Buffer] = ()) -> None:
        if not self.link.send(kind, head, body):
            self.traffic.poller.watch(self.link, self.read)

    def spawn(self, slot: int) -> None:
        """Have a worker started in this slot."""
        self.traffic.intake.open(slot)
        workers = len(self.ledger.workers)
        self.memory.most_held = max(0, self.most_descriptors - OWN_DESCRIPTORS - 2 * workers)
        if slot in self._unasked:
            self._unasked.remove(slot)
        else:
            by_zmq = self.by_zmq and has_room(workers, self.most_descriptors, self.output is not None)
            worker = self.ledger.workers[slot]
            self.tell(Kind.SPAWN, messages.SPAWN.pack(slot, worker.index, by_zmq, worker.generation))

    def signal(self, slot: int, number: int) -> None:
        """Have a worker signalled; 0: end it with all that is below it."""
        self.tell(Kind.KILL, messages.KILL.pack(slot, self.ledger.workers[slot].pid, number))

    # -- from the fork server -----------------------------------------------------------------------------

    def read(self, events: int) -> None:
        if events & EVENT_WRITE and self.link.flush():
            self.traffic.poller.watch(self.link, self.read)
        for frame in self.link.receive():
            match frame.kind:
                case Kind.SPAWNED:
                    self._on_spawned(frame)
                case Kind.OUTPUT if self.output is not None and frame.fd is not None:
                    slot, pid, stream, secret = messages.OUTPUT.unpack(frame.head)
                    self.output.add(slot, pid, stream, frame.fd, secret)
                case Kind.EXITED:
                    self._on_exited(*messages.EXITED.unpack(frame.head))
                case Kind.SPAWN_FAILED:
                    slot, number = messages.SPAWN_FAILED.unpack(frame.head)
                    self.start_failed(slot, f"fork failed: {processes.describe_shortage(number)}")
                case _:
                    complain(f"dropped a frame of kind {frame.kind!r} from the fork server")
                    close_fds(frame.fds)

    def _on_spawned(self, frame: Frame) -> None:
        slot, pid, route = messages.SPAWNED.unpack(frame.head)
        if frame.fd is None:  # there was no room for it here
            self.start_failed(slot, f"no descriptor for its socket: {processes.describe_shortage(errno.EMFILE)}")
            return
        self.traffic.add(slot, pid, frame.fds[0], route)
        self.delivery.ring.indexes[pid] = self.ledger.workers[slot].index

    def _on_exited(self, slot: int, pid: int, status: int) -> None:
        """A worker is dead: take everything it left, then let the ledger decide."""
        worker = self.ledger.workers.get(slot)
        if worker is None or worker.pid != pid:
            return
        self._take_rest(slot)
        how = self._describe_exit(status, worker.condemned)
        if worker.state is State.STARTING:
            died = f"the worker died before it was up ({how.text}"
            self.start_failed(slot, self.traffic.start_errors.pop(slot, died))
        else:
            self._on_death(worker, how)

    def _take_rest(self, slot: int) -> None:
        """Of what a dead worker had sent and printed."""
        running = NO_JOB if self.output is None else self.output.running(slot)
        self.traffic.remove(slot)
        if self.output is not None:
            self.output.remove(slot, running)

    def _on_death(self, worker: WorkerRecord, how: Exit) -> None:
        """One that was up is dead, or has left."""
        snapshot = None
        with suppress(ProtocolError):
            snapshot = self.traffic.intake.collect(worker.slot)
        self.memory.note_exit(worker.slot)
        now = time.monotonic()
        doing = None
        if worker.batch is not None and snapshot is not None and snapshot.running:
            doing = worker.batch.first_id + snapshot.claimed - 1
        self.delivery.failures.doomed = worker.batch
        self.traffic.perform(self.ledger.on_exit(worker.slot, how, snapshot, now))
        self.delivery.failures.doomed = None
        self.chronicle.worker_down(worker, how, now, doing)

    def _describe_exit(self, status: int, condemned: str) -> Exit:
        hint = ")"
        if condemned:
            hint = f"), ended by the boss: {condemned}"
        elif processes.killed(status):
            before, self._oom_kills = self._oom_kills, processes.oom_kills()
            hint = "), likely out of memory" if self._oom_kills > before else ")"
        return Exit(processes.describe_exit(status) + hint, os.waitstatus_to_exitcode(status))

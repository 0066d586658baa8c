"""A real boss, in this process, whose fork server, workers and caller are the test's: it can be told anything."""

from __future__ import annotations

import math
import os
import random
import signal
import socket
import time
from array import array
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bossworker.failure import FROM_WORKERS, Outcome
from bossworker.pool.boss.boss import Boss
from bossworker.pool.options import Options
from bossworker.pool.wire import messages, recorder
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.link import Link, LinkClosed, link_pair
from bossworker.pool.wire.mailbox import REPORTS
from bossworker.pool.wire.messages import PREFIX, VERSION, Kind
from bossworker.pool.wire.recorder import SENDING, Memory, Recorder
from bossworker.pool.wire.segments import Segment, read_segments

OPTIONS = Options(
    global_timeout=0,
    worker_count=2,
    kill_grace=0.01,
    retries=0,
    max_pending=0,
    max_jobs_per_worker=0,
    max_worker_memory=0,
    max_job_memory=0,
    start_method="fork",
    close_fds=False,
    transport="socketpair",
    name="hostile",
)
PATIENCE = 30  # turns that a worker which has misbehaved lives on when it is not ended


def check(segment: Segment) -> None:
    """What the caller gets may be wrong in what it says, not in its form."""
    marks, ends = array("d", bytes(segment.marks)), array("Q", bytes(segment.ends))
    assert (len(marks), len(ends), len(segment.outcomes)) == (segment.jobs + 1, segment.jobs, segment.jobs)
    assert 0 <= ends[-1] - segment.base == len(segment.payload)
    assert not any(segment.outcomes) or [segment.base, *ends] == sorted([segment.base, *ends])
    assert set(segment.outcomes) <= {*FROM_WORKERS, *(kind | Outcome.TEXT for kind in range(8))}


class FakeWorker:
    """A worker as the boss sees it: a recorder and a socket, in the hands of the test."""

    def __init__(self, pid: int, link: socket.socket, own: Recorder) -> None:
        self.pid = pid
        self.link = Link(link)
        self.recorder = own
        self.batch: Batch | None = None
        self.claimed = 0
        self.end = 0
        self.alive = True
        self.turns_left = -1  # until it dies by itself, once it has misbehaved
        self.works = True  # still, although it may have misbehaved
        self.obeys = True

    def send(self, kind: Kind, head: bytes = b"", body: bytes = b"") -> None:
        with suppress(LinkClosed):
            self.link.send(kind, head, [body])

    def send_raw(self, data: bytes) -> None:
        with suppress(OSError):
            self.link.sock.send(data)

    def report(self) -> None:
        self.recorder.mailbox.report()
        self.send(Kind.DONE)

    def work(self) -> None:
        """One step of an honest worker."""
        if self.batch is None:
            return
        if self.recorder.unclaimed.acquire(False):
            self.publish(self.batch.first_id + self.claimed)
        else:
            self.batch = None
            self.report()

    def publish(self, job_id: int) -> None:
        """The job that is claimed has its result."""
        own = self.recorder
        payload = b"result of %d" % job_id
        start, self.end = self.end, self.end + len(payload)
        own.payload[start : self.end] = payload
        own.ends[self.claimed], own.outcomes[self.claimed] = self.end, 0
        own.marks[self.claimed + 1] = time.monotonic()
        self.claimed += 1
        own.published.release()


class Stage:
    """See the module. `results` counts what the caller got for each job."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.memory = Memory()
        caller, callers = link_pair()
        fork_server, fork_servers = link_pair()
        self.caller, self.fork_server = Link(callers), Link(fork_servers)
        self.workers: dict[int, FakeWorker] = {}
        self.pids = 1 << 20
        self.next_id = 1
        self.results: Counter[int] = Counter()
        self.notes: list[str] = []
        self.immortal = False  # whether a worker that has misbehaved lives on until it is ended
        self.boss = Boss(Link(caller), Link(fork_server), self.memory, OPTIONS, os.getpid())
        for patience in (self.boss.poller._answers, self.boss.poller._requests):
            patience._most = patience._seconds = 0.0
        self.boss.performer.perform(self.boss.ledger.on_tick(0.0))
        for slot in range(OPTIONS.worker_count):
            self.spawn(slot)

    def close(self) -> None:
        for worker in self.workers.values():
            worker.link.close()
        for link in (
            self.caller,
            self.fork_server,
            self.boss.caller,
            self.boss.fork_server.link,
            *self.boss.lines.pairs.values(),
        ):
            link.close()
        if self.boss.poller._epoll is not None:
            self.boss.poller._epoll.close()
        if self.boss.parent_fd is not None:
            os.close(self.boss.parent_fd)
        self.memory.close()

    # -- the fork server's part ---------------------------------------------------------------------------

    def spawn(self, slot: int) -> None:
        ours, theirs = link_pair()
        self.pids += 1
        worker = FakeWorker(self.pids, theirs, self.memory.recorder(slot, fresh=True))
        self.workers[slot] = worker
        self.fork_server.send(Kind.SPAWNED, messages.SPAWNED.pack(slot, self.pids, b""), fds=(ours.detach(),))
        worker.report()

    def exit(self, slot: int, status: int) -> None:
        worker = self.workers[slot]
        worker.alive = False
        worker.link.close()
        self.fork_server.send(Kind.EXITED, messages.EXITED.pack(slot, worker.pid, status))

    def obey(self) -> None:
        for frame in self.fork_server.receive():
            if frame.kind is Kind.SPAWN:
                self.spawn(messages.SPAWN.unpack(frame.head)[0])
            else:
                slot, pid, number = messages.KILL.unpack(frame.head)
                if number == 0 and self.workers[slot].alive and self.workers[slot].pid == pid:
                    self.exit(slot, signal.SIGKILL)

    # -- the caller's part ----------------------------------------------------------------------------------

    def submit(self, count: int) -> None:
        body = b"".join((array("I", [1] * count), array("Q", [1] * count), b"j" * count))
        head = messages.BATCH_HEAD.pack(self.next_id, count, 0, count, *JobOptions(0, 0.0, 0, 1))
        self.next_id += count
        self.caller.send(Kind.SUBMIT, head, [body])

    def ask(self) -> None:
        """Cancel some jobs, or ask for the state: both have the boss look at its workers."""
        number = messages.REQUEST.pack(self.rng.choice([0, 1]))
        if self.rng.random() < 0.5:
            self.caller.send(Kind.STATS, number)
        else:
            ids = array("Q", range(max(1, self.next_id - self.rng.randrange(1, 50)), self.next_id))
            self.caller.send(Kind.CANCEL, number, [ids.tobytes()])

    def retrieve(self) -> None:
        for frame in self.caller.receive():
            if frame.kind is Kind.RESULTS:
                for segment in read_segments(frame.head, frame.body):
                    check(segment)
                    self.results.update(range(segment.first_id, segment.first_id + segment.jobs))
            elif frame.kind is Kind.NOTE:
                self.notes.append(str(frame.body, "utf-8"))

    # -- the whole ------------------------------------------------------------------------------------------

    def turn(self) -> None:
        """Everybody has a go."""
        boss = self.boss
        boss.poller.wait(0)
        boss.workers.read_reports()
        boss.workers.look_at_workers()
        boss.performer.perform(boss.ledger.on_tick(math.inf))
        boss.first_workers.announce() if not boss.first_workers.up else None
        boss.delivery.deliver()
        self.obey()
        self.retrieve()
        for slot, worker in list(self.workers.items()):
            if worker.alive:
                self.act(slot, worker)

    def act(self, slot: int, worker: FakeWorker) -> None:
        with suppress(LinkClosed):
            worker.link.receive()
        if worker.obeys and worker.recorder.mailbox.has_order():
            order = worker.recorder.mailbox.take_order()
            if order is None or order.kind is not Kind.BATCH:
                self.exit(slot, 0)
                return
            worker.batch = Batch.read(order.head, order.body)
            worker.claimed = worker.end = 0
        if worker.works:
            worker.work()
        worker.turns_left -= worker.turns_left > 0
        if worker.turns_left == 0 and not self.immortal:
            self.exit(slot, signal.SIGSEGV)

    def settled(self) -> bool:
        return len(self.results) >= self.next_id - 1

    def settle(self) -> None:
        """Until each job has a result; the workers that have misbehaved are ended, or end."""
        for _ in range(5000):
            if self.settled():
                return
            self.turn()
        left = sorted(set(range(1, self.next_id)) - set(self.results))
        raise AssertionError(f"jobs without a result: {left}")


# -- what a handler may do to its worker's recorder and socket ----------------------------------------------------


def _frame(kind: int, head: bytes = b"", body: bytes = b"", *, fds: int = 0, size: int | None = None) -> bytes:
    return PREFIX.pack(VERSION, kind, fds, len(head), len(body) if size is None else size) + head + body


def _some_time(rng: random.Random, worker: FakeWorker) -> float:
    began = worker.recorder.marks[0]
    return rng.choice([*[began] * 20, 0.0, -1.0, 1e300, math.nan, math.inf, -math.inf])


def random_bytes(rng: random.Random, worker: FakeWorker) -> None:
    worker.send_raw(rng.randbytes(rng.choice([1, 7, 15, 16, 17, 64, 5000])))


def random_frame(rng: random.Random, worker: FakeWorker) -> None:
    kind = rng.choice([*map(int, Kind), 0, 99, 255])
    worker.send_raw(
        _frame(kind, rng.randbytes(rng.choice([0, 1, 3, 8, 32, 100])), rng.randbytes(rng.choice([0, 1, 99])))
    )


def frame_out_of_turn(rng: random.Random, worker: FakeWorker) -> None:
    frame = rng.choice(
        [
            _frame(Kind.DONE),
            _frame(Kind.UP),
            _frame(Kind.INIT_FAILED, b"", b"no luck"),
            _frame(Kind.EXIT_FAILED, b"", b"no luck"),
            _frame(Kind.WAKE),
        ]
    )
    worker.send_raw(frame * rng.choice([1, 2, 3]))


def forged_spill(rng: random.Random, worker: FakeWorker) -> None:
    first = worker.batch.first_id if worker.batch is not None else 1
    job_id = first + rng.choice([-5, -1, 0, 0, worker.claimed - 1, worker.claimed, worker.claimed + 1, 5000])
    outcome = rng.choice([*[0, 1, 0x10, 0x11] * 5, 0x40, 0x20, 0x08, 0xFF, rng.randrange(256)])
    times = _some_time(rng, worker), _some_time(rng, worker)
    head = messages.SPILL.pack(max(0, job_id), outcome, *times)
    worker.send_raw(_frame(Kind.SPILL, head[: rng.choice([32, 32, 32, 31, 3, 0])], b"forged") * rng.choice([1, 1, 2]))


def endless_frame(rng: random.Random, worker: FakeWorker) -> None:
    kind = rng.choice([Kind.SPILL, Kind.DONE, Kind.UP])
    worker.send_raw(_frame(kind, bytes(32), size=rng.choice([1, 100, 1 << 20, 1 << 33, 1 << 50, (1 << 64) - 1])))


def mutated_frame(rng: random.Random, worker: FakeWorker) -> None:
    head = messages.SPILL.pack(1, 0x10, 0.0, 0.0)
    frame = bytearray(rng.choice([_frame(Kind.DONE, b"\0"), _frame(Kind.UP), _frame(Kind.SPILL, head, b"body")]))
    for _ in range(rng.choice([1, 1, 2, 5])):
        frame[rng.randrange(len(frame))] = rng.randrange(256)
    worker.send_raw(bytes(frame[: rng.choice([len(frame), len(frame), rng.randrange(len(frame))])]))


def stray_descriptors(rng: random.Random, worker: FakeWorker) -> None:
    fds = [os.dup(1) for _ in range(rng.choice([1, 1, 2]))]
    data = rng.choice([_frame(Kind.UP), _frame(Kind.DONE, b"\0", fds=1), b"\1", _frame(Kind.DONE, b"\0", fds=1) * 2])
    with suppress(OSError):
        socket.send_fds(worker.link.sock, [data], fds)
    for fd in fds:
        os.close(fd)


def hang_up(rng: random.Random, worker: FakeWorker) -> None:
    with suppress(OSError):
        worker.link.sock.shutdown(rng.choice([socket.SHUT_RD, socket.SHUT_WR, socket.SHUT_RDWR]))


def scribble(rng: random.Random, worker: FakeWorker) -> None:
    """Bytes anywhere in the slot."""
    view = worker.recorder._view
    size = rng.choice([1, 8, 8, 64, 4096, len(view)])
    places = [rng.randrange(len(view)), rng.randrange(4096), recorder._UNCLAIMED_AT, recorder._PUBLISHED_AT]
    at = rng.choice([0, *(place & -8 for place in places)])
    size = min(size, len(view) - at)
    view[at : at + size] = rng.choice([bytes(size), b"\xff" * size, rng.randbytes(size), b"\1".ljust(size, b"\0")])


def forged_counts(rng: random.Random, worker: FakeWorker) -> None:
    """A plausible number of jobs left, or published."""
    words = worker.recorder._view.cast("Q")
    at = rng.choice([recorder._UNCLAIMED_AT, recorder._PUBLISHED_AT]) // 8
    words[at] = max(0, words[at] + rng.choice([-3, -2, -1, 1, 2, 3, 2000, 1 << 31, 1 << 40]))


def forged_columns(rng: random.Random, worker: FakeWorker) -> None:
    """Ends, outcomes, times."""
    own, at = worker.recorder, rng.randrange(max(1, worker.claimed + 2))
    what = rng.randrange(4)
    if what == 0:
        own.ends[at] = rng.choice([0, 1, 1 << 17, recorder.PAYLOAD_SIZE + 1, (1 << 64) - 1])
    elif what == 1:
        own.outcomes[at] = rng.randrange(256)
    elif what == 2:
        own.marks[at] = _some_time(rng, worker)
    else:
        own.outcomes[at] = 0x40


def forged_report(rng: random.Random, worker: FakeWorker) -> None:
    """That it is through, with or without results over the wire; or that it is through many times."""
    words = worker.recorder.words
    flags, count = words[REPORTS] & 3, words[REPORTS] >> 2
    words[REPORTS] = (
        rng.choice([flags, rng.randrange(4)]) | rng.choice([count + 1, count + 1, count + 2, max(0, count - 1)]) << 2
    )


def forged_sending(rng: random.Random, worker: FakeWorker) -> None:
    worker.recorder.words[SENDING] = rng.choice([1, 2, (1 << 64) - 1])


Deed = Callable[[random.Random, FakeWorker], Any]
ON_THE_WIRE: tuple[Deed, ...] = (
    random_bytes,
    random_frame,
    frame_out_of_turn,
    forged_spill,
    endless_frame,
    mutated_frame,
    stray_descriptors,
    hang_up,
)
IN_MEMORY: tuple[Deed, ...] = (scribble, forged_counts, forged_columns, forged_report, forged_sending)

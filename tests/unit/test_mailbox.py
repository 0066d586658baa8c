"""Orders and reports in shared memory: nothing is lost, and nobody sleeps beside what was left for him."""

from __future__ import annotations

import os
import random
import select
import time
from collections.abc import Iterator

import pytest

from bossworker.pool.wire import shared_counter
from bossworker.pool.wire.mailbox import ORDER_ROOM, REPORTS, WorkerReport, fits
from bossworker.pool.wire.messages import PREFIX, Kind, ProtocolError
from bossworker.pool.wire.recorder import Memory, Recorder
from bossworker.pool.wire.shared_counter import exclusive

ROUNDS = 4000

shared = pytest.mark.skipif(not exclusive(), reason="this platform has no unnamed semaphore")


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    yield memory
    memory.close()


def ends_of(memory: Memory) -> tuple[Recorder, Recorder]:
    """The boss's and the worker's view of a slot."""
    return memory.recorder(3, fresh=True), memory.recorder(3)


def test_an_order_arrives_as_it_was_given(memory: Memory) -> None:
    boss, worker = (end.mailbox for end in ends_of(memory))
    assert not worker.has_order()
    boss.give(Kind.BATCH, b"head", (b"columns", bytearray(b"and"), memoryview(b"payload")))
    assert worker.has_order()
    frame = worker.take_order()
    assert frame is not None
    assert (frame.kind, bytes(frame.head), bytes(frame.body)) == (Kind.BATCH, b"head", b"columnsandpayload")
    assert not worker.has_order()
    boss.give(Kind.LEAVE)
    frame = worker.take_order()
    assert frame is not None
    assert (frame.kind, bytes(frame.head), bytes(frame.body)) == (Kind.LEAVE, b"", b"")


def test_an_order_that_comes_over_the_wire_is_announced(memory: Memory) -> None:
    boss, worker = (end.mailbox for end in ends_of(memory))
    boss.give(Kind.BATCH, by_wire=True)
    assert worker.has_order()
    assert worker.take_order() is None
    assert not worker.has_order()


def test_the_longest_order_that_fits_leaves_the_results_alone(memory: Memory) -> None:
    boss, worker = ends_of(memory)
    worker.payload[-1] = 7
    body = os.urandom(ORDER_ROOM - PREFIX.size - 4)
    assert fits(b"head", [body])
    assert not fits(b"head", [body, b"x"])
    boss.mailbox.give(Kind.BATCH, b"head", [body])
    frame = worker.mailbox.take_order()
    assert frame is not None
    assert frame.body == body
    assert worker.payload[-1] == 7


def test_reports_say_what_they_are_about(memory: Memory) -> None:
    boss, worker = (end.mailbox for end in ends_of(memory))
    found = []
    for spilled, leaves in ((False, False), (True, False), (False, True), (False, False)):
        assert not boss.has_report()
        worker.report(spilled, leaves)
        assert boss.has_report()
        found.append(boss.read_report())
    assert found == [
        WorkerReport(True, False, False),
        WorkerReport(False, True, False),
        WorkerReport(False, False, True),
        WorkerReport(False, False, False),
    ]


@pytest.mark.parametrize("word", [0, 2 << 2, 7 << 2, (1 << 64) - 1])
def test_a_report_that_was_written_over_is_none(memory: Memory, word: int) -> None:
    boss, worker = ends_of(memory)
    worker.mailbox.report()
    boss.mailbox.read_report()
    worker.words[REPORTS] = word
    if word >> 2 != 2:
        with pytest.raises(ProtocolError):
            boss.mailbox.read_report()


def test_a_new_worker_begins_anew(memory: Memory) -> None:
    boss, worker = (end.mailbox for end in ends_of(memory))
    worker.report()
    boss.read_report()
    boss.give(Kind.BATCH)
    successor = memory.recorder(3, fresh=True).mailbox
    boss.begin()
    assert not boss.has_report()
    assert not successor.has_order()
    successor.report()
    assert boss.read_report().first
    boss.give(Kind.LEAVE)
    assert successor.has_order()


@shared
def test_a_message_is_needed_only_for_who_sleeps(memory: Memory) -> None:
    boss, worker = (end.mailbox for end in ends_of(memory))
    assert not boss.give(Kind.BATCH)
    worker.take_order()
    assert not worker.fall_asleep()
    assert boss.give(Kind.BATCH)
    assert worker.fall_asleep()
    worker.wake_up()
    worker.take_order()
    assert not boss.give(Kind.BATCH)


def test_without_a_fence_a_message_is_always_sent(monkeypatch: pytest.MonkeyPatch, memory: Memory) -> None:
    monkeypatch.setattr(shared_counter, "_semaphore", lambda area, at: None)
    shared_counter.exclusive.cache_clear()
    shared_counter.fence.cache_clear()
    try:
        boss, worker = memory.recorder(0, fresh=True).mailbox, memory.recorder(0).mailbox
        assert boss.give(Kind.BATCH)
        assert worker.report()
        assert worker.always
    finally:
        monkeypatch.undo()
        shared_counter.exclusive.cache_clear()
        shared_counter.fence.cache_clear()


@shared
def test_nobody_sleeps_beside_an_order_or_a_report(memory: Memory) -> None:
    """Both sides fall asleep, and leave things, at instants that drift past each other."""
    boss = ends_of(memory)[0].mailbox  # the slot is wiped before the fork, as the fork server does it
    to_worker, to_boss = os.pipe(), os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            work_and_sleep(memory, to_worker[0], to_boss[1])
        finally:
            os._exit(0)
    rng = random.Random(1)
    asleep = 0
    for number in range(ROUNDS):
        if boss.give(Kind.BATCH, b"%d" % number):
            os.write(to_worker[1], b"w")
        idle(rng)
        memory.boss_asleep = True
        shared_counter.fence().release()
        shared_counter.fence().acquire(False)
        while not boss.has_report():
            asleep += 1
            assert select.select([to_boss[0]], [], [], 30)[0], f"a report was slept over, round {number}"
            os.read(to_boss[0], 100)
        memory.boss_asleep = False
        boss.read_report()
    boss.give(Kind.LEAVE)
    os.write(to_worker[1], b"w")
    os.waitpid(pid, 0)
    for fd in (*to_worker, *to_boss):
        os.close(fd)
    assert asleep > 10


def work_and_sleep(memory: Memory, wake: int, waker: int) -> None:
    mailbox = memory.recorder(3).mailbox
    rng = random.Random(2)
    while True:
        if not mailbox.fall_asleep():
            if not select.select([wake], [], [], 30)[0]:
                return  # it was slept over: the boss will miss the report
            os.read(wake, 100)
        mailbox.wake_up()
        while mailbox.has_order():
            frame = mailbox.take_order()
            if frame is None or frame.kind is Kind.LEAVE:
                return
            idle(rng)
            mailbox.report()
            if memory.boss_asleep:
                os.write(waker, b"w")


def idle(rng: random.Random) -> None:
    end = time.perf_counter() + rng.choice([0, 0, 2e-6, 5e-6, 20e-6])
    while time.perf_counter() < end:
        pass

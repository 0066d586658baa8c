"""The flight recorder: what the boss sees is what the worker did, and no job is both claimed and taken back."""

from __future__ import annotations

import errno
import faulthandler
import os
import random
import signal
import time
from array import array
from collections.abc import Callable, Iterator
from functools import partial

import pytest

from bossworker.failure import Outcome
from bossworker.pool.options import MAX_WORKERS
from bossworker.pool.wire import recorder as recorder_module
from bossworker.pool.wire import shared_counter
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.parcel import LEAST_BYTES
from bossworker.pool.wire.recorder import (
    EXPIRED,
    LIMIT,
    MAX_BATCH,
    PAYLOAD_SIZE,
    SENDING,
    SLOT_SIZE,
    Memory,
    Recorder,
    Snapshot,
)
from bossworker.pool.wire.segments import Segment, split
from bossworker.pool.wire.shared_counter import exclusive

RACES = 500  # rounds in which the child got some of the jobs, and the boss the others
GIVEN = 300  # jobs that are there to be claimed in each round

shared = pytest.mark.skipif(not exclusive(), reason="this platform has no unnamed semaphore")


@pytest.fixture
def memory() -> Iterator[Memory]:
    memory = Memory()
    yield memory
    memory.close()


def claim(recorder: Recorder) -> bool:
    """A worker's claim of its next job."""
    return recorder.unclaimed.acquire(False)


def publish(recorder: Recorder, index: int, payload: bytes, outcome: int = 0) -> None:
    """A worker's noting of a result."""
    start = recorder.ends[index - 1] if index else 0
    recorder.payload[start : start + len(payload)] = payload
    recorder.ends[index] = start + len(payload)
    recorder.outcomes[index] = outcome
    recorder.marks[index + 1] = at(index + 1)
    recorder.published.release()


def at(published: int) -> float:
    """When this many jobs had ended: some time that is past on any machine."""
    return published / MAX_BATCH


def opened(memory: Memory, count: int, slot: int = 0) -> Recorder:
    recorder = memory.recorder(slot, fresh=True)
    recorder.open_batch(100, count, 1, 0.0)
    return recorder


def in_child(act: Callable[[], None]) -> int:
    """Run this in a forked child; its pid."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return pid


# -- looking ---------------------------------------------------------------------------------------------------


def test_a_batch_that_was_just_opened_is_untouched(memory: Memory) -> None:
    snapshot = opened(memory, 3).snapshot()
    assert (snapshot.claimed, snapshot.published, snapshot.running) == (0, 0, False)


def test_a_look_follows_the_worker_step_by_step(memory: Memory) -> None:
    recorder = opened(memory, 2)
    assert claim(recorder)
    assert recorder.snapshot() == Snapshot(claimed=1, published=0, started=0.0, running=True)
    publish(recorder, 0, b"one")
    assert recorder.snapshot() == Snapshot(claimed=1, published=1, started=at(1), running=False)
    assert claim(recorder)
    assert recorder.snapshot() == Snapshot(claimed=2, published=1, started=at(1), running=True)
    publish(recorder, 1, b"two")
    assert not claim(recorder)
    assert recorder.snapshot() == Snapshot(claimed=2, published=2, started=at(2), running=False)


def test_a_job_whose_result_is_being_sent_does_not_run(memory: Memory) -> None:
    recorder = opened(memory, 1)
    claim(recorder)
    recorder.words[SENDING] = 1
    snapshot = recorder.snapshot()
    assert (snapshot.claimed, snapshot.published, snapshot.running) == (1, 0, False)


def test_another_mapping_of_the_slot_sees_the_same(memory: Memory) -> None:
    recorder = opened(memory, 2, slot=3)
    claim(memory.recorder(3))
    snapshot = recorder.snapshot()
    assert snapshot.claimed == 1


def test_slots_do_not_touch_each_other(memory: Memory) -> None:
    recorders = [opened(memory, 1, slot) for slot in (0, 1, 2, MAX_WORKERS - 1)]
    for n, recorder in enumerate(recorders):
        claim(recorder)
        publish(recorder, 0, bytes([n]) * PAYLOAD_SIZE)
        recorder.words[EXPIRED] = n
    for n, recorder in enumerate(recorders):
        assert recorder.words[EXPIRED] == n
        assert recorder.results(0, 1, 100, 1, 1).payload == bytes([n]) * PAYLOAD_SIZE
    assert memory.assigned_through == 0


def test_a_slot_has_room_for_the_largest_batch(memory: Memory) -> None:
    recorder = opened(memory, MAX_BATCH)
    assert len(recorder.marks) > MAX_BATCH
    assert len(recorder.ends) == len(recorder.outcomes) == MAX_BATCH
    assert 0 < PAYLOAD_SIZE < LEAST_BYTES  # what is larger is no bytes
    for area in (recorder.marks, recorder.ends, recorder.outcomes):  # each is written to its end, and none spills over
        area[-1] = 7
    recorder.payload[0] = 1
    assert [area[-1] for area in (recorder.marks, recorder.ends, recorder.outcomes)] == [7, 7, 7]
    assert (recorder.marks[0], recorder.ends[0], recorder.outcomes[0], recorder.notes[LIMIT]) == (0, 0, 0, MAX_BATCH)


def test_opening_a_batch_wipes_what_the_last_one_left(memory: Memory) -> None:
    recorder = opened(memory, 4)
    for index in range(4):
        claim(recorder)
        publish(recorder, index, b"x", Outcome.EXCEPTION)
    recorder.words[SENDING] = 1
    recorder.expire(103)
    recorder.open_batch(200, 3, 2, 7.0)
    assert [recorder.notes[LIMIT], recorder.words[EXPIRED], recorder.words[SENDING]] == [3, 0, 0]
    assert recorder.snapshot() == Snapshot(claimed=0, published=0, started=7.0, running=False)
    assert bytes(recorder.outcomes[:3]) == bytes(3)


def test_expiring_marks_the_job_by_its_id(memory: Memory) -> None:
    recorder = opened(memory, 1)
    recorder.expire(0)
    assert recorder.words[EXPIRED] == 1


# -- results ---------------------------------------------------------------------------------------------------


def test_a_segment_is_a_copy_of_any_stretch_of_results(memory: Memory) -> None:
    rng = random.Random(1)
    recorder = opened(memory, 20)
    payloads = [rng.randbytes(rng.choice([0, 1, 50])) for _ in range(20)]
    outcomes = [rng.choice([Outcome.OK, Outcome.EXCEPTION]) for _ in range(20)]
    for index in range(20):
        claim(recorder)
        publish(recorder, index, payloads[index], outcomes[index])
    for start in range(20):
        for stop in range(start + 1, 21):
            segment = recorder.results(start, stop, 100, 77, 3)
            assert (segment.first_id, segment.jobs, segment.pid, segment.attempt) == (100 + start, stop - start, 77, 3)
            assert segment.base == len(b"".join(payloads[:start]))
            assert segment.payload == b"".join(payloads[start:stop])
            assert list(segment.outcomes) == outcomes[start:stop]
            assert array("d", bytes(segment.marks)).tolist() == [at(n) for n in range(start, stop + 1)]
            assert [bytes(one.payload) for one in split(segment)] == payloads[start:stop]
    before = recorder.results(0, 20, 100, 77, 3)
    recorder.payload[:100] = bytes(100)
    assert before.payload == b"".join(payloads)


def test_a_segment_splits_into_its_results(memory: Memory) -> None:
    recorder = opened(memory, 3)
    for index, payload in enumerate((b"one", b"", b"three")):
        claim(recorder)
        publish(recorder, index, payload, index)
    ones = split(recorder.results(1, 3, 100, 77, 2))
    assert all(isinstance(one, Segment) for one in ones)
    assert [(one.first_id, one.jobs, one.base, one.pid, one.attempt) for one in ones] == [
        (101, 1, 3, 77, 2),
        (102, 1, 3, 77, 2),
    ]
    assert [array("d", bytes(one.marks)).tolist() for one in ones] == [[at(1), at(2)], [at(2), at(3)]]
    assert [array("Q", bytes(one.ends)).tolist() for one in ones] == [[3], [8]]
    assert [list(one.outcomes) for one in ones] == [[1], [2]]


# -- taking back -----------------------------------------------------------------------------------------------


def test_what_is_taken_back_cannot_be_claimed(memory: Memory) -> None:
    recorder = opened(memory, 5)
    assert claim(recorder)
    assert recorder.take_back() == Snapshot(claimed=1, published=0, started=0.0, running=True)
    assert not claim(recorder)
    assert recorder.notes[LIMIT] == 1


def test_a_mere_look_takes_nothing_back(memory: Memory) -> None:
    recorder = opened(memory, 5)
    recorder.snapshot()
    assert all(claim(recorder) for _ in range(5))


@shared
def test_every_job_is_claimed_or_taken_back_never_both(memory: Memory) -> None:
    """A child claims as fast as it can, and counts, while the boss hands out and takes back."""
    recorder = opened(memory, 0)
    notes = memory.recorder(1, fresh=True).words
    over, claims = 0, 1

    def work() -> None:
        mine = memory.recorder(0)
        while not notes[over]:
            if claim(mine):
                mine.published.release()
                notes[claims] += 1

    pid = in_child(work)
    try:
        rng = random.Random(1)
        races = rounds = expected = 0
        while races < RACES and rounds < 20 * RACES:
            rounds += 1
            recorder.open_batch(100, GIVEN, 1, 0.0)
            _wait_until(lambda: recorder.snapshot().claimed > 0)
            for _ in range(rng.randint(0, GIVEN)):
                pass
            claimed = recorder.take_back().claimed
            assert 0 < claimed <= GIVEN
            races += claimed < GIVEN
            expected += claimed
            _wait_until(partial(_reached, notes, claims, expected))
        assert races > 10
        assert notes[claims] == expected
    finally:
        notes[over] = 1
        os.waitpid(pid, 0)


def _reached(words: memoryview, at: int, value: int) -> bool:
    assert words[at] <= value, "a job was claimed that had been taken back"
    return words[at] == value


def _wait_until(ready: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not ready():
        assert time.monotonic() < deadline


@shared
def test_a_look_at_a_worker_at_full_speed_is_never_torn(memory: Memory) -> None:
    """What is seen to run began when the one before it had ended, and all that is published is there."""
    recorder = opened(memory, 0)
    over = memory.recorder(1, fresh=True).words

    def work() -> None:
        mine = memory.recorder(0)
        while not over[0]:
            index = 0
            while claim(mine):
                publish(mine, index, b"%4d" % index)
                index += 1

    pid = in_child(work)
    try:
        for _ in range(50):
            recorder.open_batch(100, MAX_BATCH, 1, 0.0)
            while (look := recorder.snapshot()).published < MAX_BATCH:
                assert look.claimed - look.published in (0, 1)
                assert look.running == (look.claimed > look.published)
                assert look.started == at(look.published)
                if look.published:
                    segment = recorder.results(0, look.published, 100, 1, 1)
                    assert segment.payload == b"".join(b"%4d" % n for n in range(look.published))
    finally:
        over[0] = 1
        os.waitpid(pid, 0)


@shared
def test_a_worker_that_died_leaves_exact_counts(memory: Memory) -> None:
    recorder = opened(memory, 3)

    def die() -> None:
        claim(recorder)
        publish(recorder, 0, b"one")
        claim(recorder)
        os.kill(os.getpid(), signal.SIGKILL)

    _, status = os.waitpid(in_child(die), 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    assert recorder.snapshot() == Snapshot(claimed=2, published=1, started=at(1), running=True)
    fresh = memory.recorder(0, fresh=True)
    assert fresh.snapshot() == Snapshot(claimed=0, published=0, started=0.0, running=False)


def test_without_semaphores_one_job_at_a_time_is_counted_all_the_same(
    memory: Memory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_counter, "_semaphore", lambda area, at: None)
    exclusive.cache_clear()
    try:
        assert not exclusive()
        recorder = opened(memory, 1)
        assert recorder.snapshot().claimed == 0
        assert recorder.take_back().claimed == 1  # it stays the worker's
        assert claim(memory.recorder(0))
        assert not claim(recorder)
        assert recorder.snapshot() == Snapshot(claimed=1, published=0, started=0.0, running=True)
        publish(memory.recorder(0), 0, b"one")
        assert recorder.snapshot() == Snapshot(claimed=1, published=1, started=at(1), running=False)
    finally:
        exclusive.cache_clear()


# -- what a handler has written over ---------------------------------------------------------------------------


def set_word(recorder: Recorder, at: int, value: int) -> None:
    recorder._view.cast("Q")[at // 8] = value


TICKETS, PUBLISHED = recorder_module._UNCLAIMED_AT, recorder_module._PUBLISHED_AT
FORGERIES: dict[str, Callable[[Recorder], None]] = {
    "more left than given": lambda r: set_word(r, TICKETS, 9),
    "fewer claimed than before": lambda r: set_word(r, TICKETS, 8),
    "more than one claimed": lambda r: set_word(r, TICKETS, 4),
    "a vast count": lambda r: set_word(r, TICKETS, (1 << 64) - 1),
    "more published than given": lambda r: set_word(r, PUBLISHED, 9),
    "fewer published than before": lambda r: set_word(r, PUBLISHED, 0),
    "a start in the future": lambda r: r.marks.__setitem__(1, time.monotonic() + 1000.0),
    "a start before the batch": lambda r: r.marks.__setitem__(1, -1.0),
    "a start at no time": lambda r: r.marks.__setitem__(1, float("nan")),
    "ones": lambda r: r._view.__setitem__(slice(4096), b"\xff" * 4096),
}


@shared
@pytest.mark.parametrize("forge", FORGERIES.values(), ids=FORGERIES.keys())
@pytest.mark.parametrize("ask", [Recorder.snapshot, Recorder.take_back])
def test_counts_and_times_that_cannot_be_true_are_not_believed(
    memory: Memory, ask: Callable[[Recorder], Snapshot], forge: Callable[[Recorder], None]
) -> None:
    recorder = opened(memory, 8)
    claim(recorder)
    publish(recorder, 0, b"one")
    claim(recorder)
    recorder.snapshot()
    forge(recorder)
    with pytest.raises(ProtocolError, match="its flight recorder was written over"):
        ask(recorder)


@pytest.mark.parametrize(
    ("column", "at", "value"),
    [("ends", 1, 0), ("ends", 2, PAYLOAD_SIZE + 1), ("ends", 0, 1 << 63), ("outcomes", 1, 0xFF), ("outcomes", 1, 0x20)],
)
def test_results_that_cannot_be_are_not_taken(memory: Memory, column: str, at: int, value: int) -> None:
    recorder = opened(memory, 3)
    for index in range(3):
        claim(recorder)
        publish(recorder, index, b"abc", index % 2)
    recorder.results(0, 3, 100, 1, 1)
    getattr(recorder, column)[at] = value
    with pytest.raises(ProtocolError):
        recorder.results(0, 3, 100, 1, 1)


def test_the_start_of_a_batch_is_not_taken_for_what_it_cannot_be(memory: Memory) -> None:
    recorder = opened(memory, 1)
    claim(recorder)
    publish(recorder, 0, b"one")
    look = recorder.snapshot()
    assert recorder.seconds(look) == look.started
    for wrong in (-1.0, 1e9, float("nan")):
        recorder.marks[0] = wrong
        with pytest.raises(ProtocolError):
            recorder.seconds(look)


def killed_by(act: Callable[[], object]) -> int:
    """The signal that ends a child which does this; 0 if it lives on."""

    def quietly() -> None:
        faulthandler.disable()
        act()

    _, status = os.waitpid(in_child(quietly), 0)
    return os.WTERMSIG(status)


def test_a_worker_can_write_to_its_own_slot_alone(memory: Memory) -> None:
    memory.assigned_through = 7
    recorders = [memory.recorder(slot, fresh=True) for slot in (0, 1, 2, MAX_WORKERS - 1)]

    def after(act: Callable[[], object]) -> Callable[[], object]:
        def both() -> None:
            memory.keep_only(1)
            act()

        return both

    def own() -> None:
        recorders[1]._view[:] = bytes(SLOT_SIZE)
        recorders[1].words[0] = memory.assigned_through

    assert killed_by(after(own)) == 0
    assert recorders[1].words[0] == 7
    assert killed_by(after(lambda: setattr(memory, "assigned_through", 0))) == signal.SIGSEGV
    assert killed_by(after(lambda: recorders[1].notes.__setitem__(LIMIT, 0))) == signal.SIGSEGV
    for other in (recorders[0], recorders[2], recorders[3]):
        for act in (lambda: other.words.__setitem__(0, 1), lambda: other._view[-1]):  # noqa: B023
            assert killed_by(after(act)) == signal.SIGSEGV


def test_the_file_keeps_its_size_and_no_descriptor_is_left() -> None:
    before = set(os.listdir("/proc/self/fd"))
    memory = Memory()
    assert memory.fd is not None
    size = os.fstat(memory.fd).st_size
    for other in (0, size // 2, 2 * size):
        with pytest.raises(PermissionError):
            os.ftruncate(memory.fd, other)
    again = Memory(os.dup(memory.fd))
    for one in (memory, again):
        one.close_file()
        one.close_file()
    assert set(os.listdir("/proc/self/fd")) == before
    memory.assigned_through = 5
    assert again.assigned_through == 5
    memory.close()
    again.close()


@pytest.mark.parametrize("number", [errno.EPERM, errno.ENOSYS, errno.EACCES])
def test_where_memory_files_are_forbidden_an_ordinary_one_serves(monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    def forbidden(name: str, flags: int) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "memfd_create", forbidden)
    memory = Memory()
    assert memory.fd is not None
    assert "memfd" not in os.readlink(f"/proc/self/fd/{memory.fd}")
    memory.close_file()
    recorder = opened(memory, 1)
    claim(recorder)
    assert recorder.snapshot().claimed == 1
    memory.close()


# -- notes to the caller ---------------------------------------------------------------------------------------


def test_the_boss_leaves_notes_for_the_caller(memory: Memory) -> None:
    memory.assigned_through = 1 << 40
    memory.slots = 3
    assert memory.fd is not None
    again = Memory(os.dup(memory.fd))
    assert (again.assigned_through, again.slots) == (1 << 40, 3)
    again.close()


def test_after_the_bosss_death_the_unclaimed_jobs_can_be_withdrawn(memory: Memory) -> None:
    memory.slots = 4
    recorders = [opened(memory, 5, slot) for slot in range(4)]
    for slot, recorder in enumerate(recorders):
        recorder.open_batch(100 * slot, 5, 2 if slot == 3 else 1, 0.0)
    claim(recorders[0])
    for _ in range(5):
        claim(recorders[1])
    never = sorted(job_id for ids in memory.withdraw() for job_id in ids)
    assert never == [1, 2, 3, 4, *range(200, 205)]  # slot 3 has a second attempt: its jobs ran before
    assert not any(claim(recorder) for recorder in recorders)


def test_the_memory_has_no_name_and_is_gone_when_closed() -> None:
    before = set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()
    memory = Memory()
    opened(memory, 1)
    fd = memory.fd
    assert fd is not None
    assert (set(os.listdir("/dev/shm")) if os.path.isdir("/dev/shm") else set()) - before == set()
    assert not os.get_inheritable(fd)
    memory.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


def test_after_the_bosss_death_what_was_written_over_is_said_not_to_be_known() -> None:
    memory = Memory()
    memory.slots = 1 << 60
    recorders = [opened(memory, 5, slot) for slot in range(2)]
    for slot, recorder in enumerate(recorders):
        recorder.open_batch(100 * slot, 5, 1, 0.0)
    recorders[0]._view[:] = b"\xff" * SLOT_SIZE
    assert memory.withdraw()[:1] == [range(100, 105)]
    memory.close()

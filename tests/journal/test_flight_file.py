"""The boss is killed at each line of what it notes: what never started is known, what may have run is, and no result is
another's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from bossworker.pool.wire import filed_memory, kept_results
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.memory_file import unnamed_file
from bossworker.pool.wire.messages import FIRST_CLIENT_ID
from bossworker.pool.wire.recorder import Recorder
from bossworker.pool.wire.segments import Segment, single, split
from bossworker.pool.wire.shared_counter import exclusive

pytestmark = [
    pytest.mark.skipif(not exclusive(), reason="this platform has no batches of several jobs"),
    pytest.mark.once("what is in the file between two lines of ours, whatever runs them"),
]
WIRE = str(Path(filed_memory.__file__).parent)
FIRST, COUNT = 100, 6  # ids of the batch that the worker in slot 0 has, or has had


def killed_at_each_line(prepare: Callable[[FiledMemory], Callable[[], Any]]) -> Iterator[tuple[int, FiledMemory]]:
    """Prepare a file, and do what that returns in a child that is killed at its n-th line; for each n, until all is
    done.
    """
    for line in count(1):
        memory = FiledMemory(unnamed_file(FiledMemory.size))
        act = prepare(memory)
        pid = os.fork()
        if pid == 0:
            try:
                sys.settrace(_killer(line))
                act()
            finally:
                sys.settrace(None)
                os._exit(0)
        _, status = os.waitpid(pid, 0)
        assert status == 0 or os.WTERMSIG(status) == signal.SIGKILL
        yield line, memory
        memory.close()
        if status == 0:
            return


def _killer(line: int) -> Any:
    """A trace function that kills this process before it runs its `line`-th line of the wire's modules."""
    lines = count(1)

    def trace(frame: FrameType, event: str, argument: object) -> Any:
        if not frame.f_code.co_filename.startswith(WIRE):
            return None
        if event == "line" and next(lines) == line:
            os.kill(os.getpid(), signal.SIGKILL)
        return trace

    return trace


def opened(memory: FiledMemory, claimed: int, published: int) -> Recorder:
    """A worker's batch, of which it has begun some jobs and ended some."""
    memory.slots = 1
    recorder = memory.recorder(0, fresh=True)
    memory.note_assigned(0, FIRST + COUNT)
    recorder.open_batch(FIRST, COUNT, 1, 0.0)
    for _ in range(claimed):
        assert recorder.unclaimed.acquire(False)
    for at in range(published):
        payload = b"result %d" % (FIRST + at)
        end = recorder.ends[at - 1] if at else 0
        recorder.payload[end : end + len(payload)] = payload
        recorder.ends[at], recorder.marks[at + 1] = end + len(payload), at / COUNT
        recorder.published.release()
    return recorder


def found(memory: FiledMemory) -> tuple[set[int], dict[int, bytes]]:
    """What the next owner finds: ids of the jobs that may have run, and the results."""
    may_have_run = {job_id for ids in memory.claimed() for job_id in ids}
    results: dict[int, bytes] = {}
    for whole in memory.published():
        for one in split(whole):
            assert results.setdefault(one.first_id, bytes(one.payload)) == bytes(one.payload)
    return may_have_run, results


def expected(ended: int) -> dict[int, bytes]:
    return {FIRST + at: b"result %d" % (FIRST + at) for at in range(ended)}


@pytest.mark.parametrize(
    ("next_id", "next_count"), [(200, 1), (200, COUNT), (200, COUNT + 1), (FIRST_CLIENT_ID + 5, 2)]
)
def test_as_a_worker_gets_its_next_batch(next_id: int, next_count: int) -> None:
    def prepare(memory: FiledMemory) -> Callable[[], None]:
        recorder = opened(memory, COUNT, COUNT)
        memory.kept.add(recorder.results(0, COUNT, FIRST, 7, 1))

        def assign() -> None:
            memory.note_assigned(0, next_id + next_count)
            recorder.open_batch(next_id, next_count, 1, 1.0)

        return assign

    for line, memory in killed_at_each_line(prepare):
        may_have_run, results = found(memory)
        assert may_have_run == set(range(FIRST, FIRST + COUNT)), f"line {line}"
        assert results == expected(COUNT), f"line {line}"
    assert line > 10


@pytest.mark.parametrize(("claimed", "published"), [(0, 0), (1, 0), (3, 2), (3, 3), (COUNT, COUNT)])
def test_as_jobs_are_taken_back(claimed: int, published: int) -> None:
    begun = set(range(FIRST, FIRST + claimed))
    for line, memory in killed_at_each_line(lambda memory: opened(memory, claimed, published).take_back):
        may_have_run, results = found(memory)
        # While they are being taken back, it cannot be told whether one more was claimed.
        assert begun <= may_have_run <= begun | {FIRST + published}, f"line {line}"
        assert results == expected(published), f"line {line}"
    assert may_have_run == begun
    assert line > 5


def test_as_a_dead_workers_place_is_taken_by_another() -> None:
    """The fork server wipes the recorder once the boss has noted what was in it."""

    def prepare(memory: FiledMemory) -> Callable[[], None]:
        recorder = opened(memory, 2, 1)
        memory.kept.add(recorder.results(0, 1, FIRST, 7, 1))

        def succeed() -> None:
            memory.note_exit(0)
            memory.recorder(0, fresh=True)

        return succeed

    for line, memory in killed_at_each_line(prepare):
        may_have_run, results = found(memory)
        assert may_have_run == {FIRST, FIRST + 1}, f"line {line}"
        assert results == expected(1), f"line {line}"


def result(job_id: int) -> Segment:
    return single(job_id, 7, 1, 1.0, 2.0, 0, b"result %d" % job_id)


def test_as_a_result_is_kept_in_place_of_an_older_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_results, "_ENTRIES", 4)
    three = Segment(1, 3, 0, 8, 1, bytes(32), bytes(24), bytes(3), b"three in one")
    earlier = [result(4), result(5), result(6)]

    def prepare(memory: FiledMemory) -> Callable[[], None]:
        for one in (three, *earlier):
            memory.kept.add(one)
        return lambda: memory.kept.add(result(7))

    for line, memory in killed_at_each_line(prepare):
        kept = list(memory.kept)
        assert kept in (earlier, [*earlier[1:], result(7)]), f"line {line}"
    assert kept[-1] == result(7)

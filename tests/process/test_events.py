"""``pool.events()``: what happens in a pool, in the order in which it happens, for any number of readers."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import FrozenInstanceError
from itertools import count, islice, pairwise
from pathlib import Path
from typing import Any

import pytest

from bossworker import (
    AsyncBossWorker,
    BossDied,
    BossWorker,
    JobEnded,
    JobProgress,
    JobQueued,
    JobStarted,
    Missed,
    PoolClosed,
    WorkerDown,
    WorkerUp,
    current_job,
)
from bossworker.pool.boss.event_ring import MOST_EVENTS
from bossworker.watch.pool_events import Clock, Event
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def act(job: dict[str, Any]) -> dict[str, Any]:
    if "sleep" in job:
        time.sleep(job["sleep"])
    if "fail" in job:
        raise ValueError("rattle")
    if "die" in job:
        os.kill(os.getpid(), signal.SIGKILL)
    return {"pid": os.getpid()}


class Reader:
    """Reads events in a thread of its own."""

    def __init__(self, events: Iterable[Event]) -> None:
        self.seen: list[Event] = []
        self.error: BossDied | None = None
        self._thread = threading.Thread(target=self._read, args=(events,))
        self._thread.start()

    def _read(self, events: Iterable[Event]) -> None:
        try:
            for event in events:
                self.seen.append(event)
        except BossDied as error:
            self.error = error

    def of(self, kind: type[Any]) -> list[Any]:
        return [event for event in self.seen if isinstance(event, kind)]

    def join(self) -> list[Event]:
        self._thread.join(20)
        assert not self._thread.is_alive()
        return self.seen


def test_a_job_from_its_queue_to_its_end(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    before = time.time()
    reader = Reader(bw.events())
    (good, bad) = bw.add_work({}, {"fail": 1})
    results = {result.job_id: result for result in bw.results()}
    bw.shut_down()
    reader.join()
    assert [event.job_id for event in reader.of(JobQueued)] == [good, bad]
    for started, ended in zip(reader.of(JobStarted), reader.of(JobEnded), strict=True):
        result = results[started.job_id]
        assert started.job_id == ended.job_id
        assert started.worker_pid == ended.worker_pid == result.worker_pid
        assert (started.worker_index, started.attempt, ended.attempt) == (0, 1, 1)
        assert (ended.ok, ended.error_kind) == (result.ok, result.error_kind)
        assert abs(started.time - result.started_at) < 0.01
        assert abs(ended.time - result.finished_at) < 0.01
        assert ended.duration == pytest.approx(result.duration, abs=0.01)
    seqs = [event.seq for event in reader.seen]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    assert all(before - 1 < event.time < time.time() + 1 for event in reader.seen)


def test_a_running_job_is_seen_to_start_and_told_once(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    reader = Reader(bw.events())
    bw.add_work({}, {"sleep": 0.5}, {})
    wait_for(lambda: len(reader.of(JobStarted)) == 2)
    assert len(reader.of(JobEnded)) == 1, "it is still running"
    list(bw.results())
    bw.shut_down()
    reader.join()
    assert [event.job_id for event in reader.of(JobStarted)] == [1, 2, 3]
    assert [event.job_id for event in reader.of(JobEnded)] == [1, 2, 3]


def test_workers_come_and_go_with_their_reasons(pool: Pool) -> None:
    bw = pool(act, worker_count=1, max_jobs_per_worker=2, retries=1)
    reader = Reader(bw.events(since=0))
    (first,) = bw.worker_pids
    bw.add_work({"die": 1}, retries=0)
    bw.add_work({}, {})
    list(bw.results())
    wait_for(lambda: len(reader.of(WorkerUp)) == 3)
    bw.shut_down()
    reader.join()
    ups, downs = reader.of(WorkerUp), reader.of(WorkerDown)
    assert ups[0].worker_pid == first
    assert [event.worker_pid for event in ups] == [event.worker_pid for event in downs]
    assert {event.worker_index for event in [*ups, *downs]} == {0}
    told = [(event.reason, event.orderly) for event in downs]
    assert told == [("signal 9, SIGKILL", False), ("max_jobs_per_worker", True), ("closed", True)]


def test_a_job_that_is_tried_again_starts_twice(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    reader = Reader(bw.events())
    bw.add_work({"die": 1}, retries=1)
    list(bw.results())
    bw.shut_down()
    reader.join()
    assert [event.attempt for event in reader.of(JobEnded)] == [2]
    assert reader.of(JobEnded)[0].error_kind == "crash"
    assert len(reader.of(WorkerDown)) == 3


def test_a_job_that_never_ran_has_no_start(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    reader = Reader(bw.events())
    bw.add_work({"sleep": 0.2})
    (queued,) = bw.add_work({})
    bw.cancel(queued)
    list(bw.results())
    bw.shut_down()
    reader.join()
    assert [event.job_id for event in reader.of(JobStarted)] == [1]
    (ended,) = [event for event in reader.of(JobEnded) if event.job_id == queued]
    assert (ended.error_kind, ended.worker_pid, ended.worker_index) == ("cancelled", 0, -1)


def test_several_readers_each_get_everything(pool: Pool) -> None:
    bw = pool(act, worker_count=2)
    readers = [Reader(bw.events()) for _ in range(3)]
    bw.add_work(*[{}] * 500)
    list(bw.results())
    bw.shut_down()
    for reader in readers:
        reader.join()
        assert Counter(type(event) for event in reader.seen if not isinstance(event, WorkerDown)) == {
            JobQueued: 500,
            JobStarted: 500,
            JobEnded: 500,
        }
    assert readers[0].seen == readers[1].seen == readers[2].seen


def test_since_goes_on_behind_an_event(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    bw.add_work(*[{}] * 10)
    list(bw.results())
    events = bw.events(since=0)
    seen = [next(events) for _ in range(17)]
    assert [event.seq for event in seen] == list(range(1, 18))
    assert next(bw.events(since=17)).seq == 18


def test_a_slow_reader_is_told_how_much_it_missed(pool: Pool) -> None:
    bw = pool(act, worker_count=2)
    events = bw.events(since=0)
    assert isinstance(next(events), WorkerUp)
    count = 2 * MOST_EVENTS
    for _ in bw.map({} for _ in range(count)):
        pass
    seen = []
    for event in events:
        seen.append(event)
        if isinstance(event, JobEnded) and event.job_id == count:
            break
    (missed,) = [event for event in seen if isinstance(event, Missed)]
    others = [event for event in seen if not isinstance(event, Missed)]
    assert missed.n > MOST_EVENTS
    assert others[-1].seq - 1 == len(others) + missed.n, "each event was read, or counted"
    assert all(one.seq < other.seq for one, other in pairwise(seen))


def test_readers_end_with_the_pool_and_may_read_what_is_left(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    events = bw.events()
    bw.add_work(*[{}] * 50)
    list(bw.results())
    bw.shut_down()
    seen = list(events)
    assert Counter(map(type, seen))[JobEnded] == 50
    assert isinstance(seen[-1], WorkerDown)
    assert len(list(bw.events(since=0))) == len(seen) + 1, "and the worker that came up before"


def test_readers_end_with_a_pool_that_is_shut_down_by_force(pool: Pool, tmp_path: Path) -> None:
    bw = pool(act, worker_count=1)
    reader = Reader(bw.events())
    bw.add_work({"sleep": 30})
    wait_for(lambda: reader.of(JobStarted))
    bw.shut_down(force=True)
    reader.join()
    assert reader.error is None
    for ask in (bw.events, lambda: bw.trace(tmp_path / "trace.json")):
        with pytest.raises(PoolClosed, match="by force"):
            ask()


def test_readers_are_told_of_the_boss_s_death(pool: Pool, tmp_path: Path) -> None:
    bw = pool(act, worker_count=1)
    waiting, later = Reader(bw.events()), bw.events(since=0)
    assert isinstance(next(later), WorkerUp)
    (running, queued) = bw.add_work({"sleep": 30}, {})
    assert isinstance(next(later), JobQueued)  # the other one has come along with it
    wait_for(lambda: waiting.of(JobStarted))
    os.kill(bw.boss_pid, signal.SIGKILL)
    waiting.join()
    assert waiting.error is not None
    assert {job.job_id for job in waiting.error.unfinished} == {running, queued}
    rest = [next(later)]
    with pytest.raises(BossDied):
        rest += later
    assert rest[0].seq == 3
    for ended in (False, True):
        for ask in (bw.events, lambda: bw.trace(tmp_path / "trace.json")):
            with pytest.raises(BossDied):
                ask()
        if not ended:
            bw.shut_down(force=True)


def test_a_reader_on_a_loop_is_told_of_the_boss_s_death() -> None:
    async def main() -> list[Event]:
        seen: list[Event] = []
        async with AsyncBossWorker(act, worker_count=1) as pool:
            job = asyncio.create_task(pool.run({"sleep": 30}))
            with pytest.raises(BossDied):  # noqa: PT012
                async for event in pool.events(since=0):
                    seen.append(event)
                    if isinstance(event, JobStarted):
                        os.kill(pool.pool.boss_pid, signal.SIGKILL)
            with pytest.raises(BossDied):
                await asyncio.wait_for(job, 20)
            await pool.shut_down(force=True)
        return seen

    assert [type(event) for event in asyncio.run(main())] == [WorkerUp, JobQueued, JobStarted]


def test_nobody_has_watched_a_closed_pool(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    bw.shut_down()
    with pytest.raises(PoolClosed, match="nobody had watched it"):
        bw.events()


@pytest.mark.parametrize(
    ("since", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError), (1 << 64, ValueError)]
)
def test_since_is_checked(pool: Pool, since: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="since"):
        pool(act, worker_count=1).events(since)


def test_events_cannot_be_changed() -> None:
    event = JobQueued(1, 2.0, 3)
    with pytest.raises(FrozenInstanceError):
        event.seq = 2  # type: ignore[misc]


def test_from_an_event_loop() -> None:
    async def main() -> list[Event]:
        seen: list[Event] = []
        async with AsyncBossWorker(act, worker_count=1) as pool:

            async def watch() -> None:
                async for event in pool.events(since=0):
                    seen.append(event)

            watching = asyncio.create_task(watch())
            await pool.run({})
            await pool.run({"fail": 1})
        await asyncio.wait_for(watching, 20)
        return seen

    seen = asyncio.run(main())
    kinds = [type(event) for event in seen]
    assert kinds == [WorkerUp, *[JobQueued, JobStarted, JobEnded] * 2, WorkerDown]


def test_a_reader_that_is_dropped_is_nobody_s_concern(pool: Pool) -> None:
    bw = pool(act, worker_count=1)

    async def glance() -> None:
        async with AsyncBossWorker(act, worker_count=1) as other:
            events = other.events(since=0)
            assert isinstance(await anext(events), WorkerUp)
            await events.aclose()
            assert (await other.run({})).ok

    asyncio.run(glance())
    next(bw.events(since=0))
    bw.add_work({})
    assert [result.ok for result in bw.results()] == [True]


def test_what_a_job_says_of_its_progress(pool: Pool, tmp_path: Path) -> None:
    def step(job: dict[str, Any]) -> None:
        for n in range(3):
            current = current_job()
            assert current is not None
            current.progress(n, 3, f"step {n}")
            wait_for((tmp_path / str(n)).exists)

    bw = pool(step, worker_count=1)
    reader = Reader(bw.events())
    bw.add_work({})
    for n in range(3):
        wait_for(lambda: len(reader.of(JobProgress)) == n + 1)  # noqa: B023
        (tmp_path / str(n)).touch()
    list(bw.results())
    bw.shut_down()
    reader.join()
    told = [(event.job_id, event.done, event.total, event.text) for event in reader.of(JobProgress)]
    assert told == [(1, n, 3, f"step {n}") for n in range(3)]


def test_progress_is_seen_while_a_reader_does_something_else(pool: Pool) -> None:
    def step(job: dict[str, Any]) -> None:
        current = current_job()
        assert current is not None
        for n in range(3):
            current.progress(n)
            time.sleep(0.5)

    bw = pool(step, worker_count=1)
    events = bw.events(since=0)
    bw.add_work({})
    seen = [next(events)]
    while not isinstance(seen[-1], JobProgress):
        seen.append(next(events))
    list(bw.results())  # it reads no events meanwhile
    bw.shut_down()
    assert [event.done for event in [*seen, *events] if isinstance(event, JobProgress)] == [0, 1, 2]


def test_an_idle_pool_sleeps_while_it_is_watched(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    reader = Reader(bw.events())
    time.sleep(0.2)

    def used() -> float:
        with open(f"/proc/{bw.boss_pid}/stat") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    before = used()
    time.sleep(0.5)
    assert used() - before <= 0.02
    bw.shut_down()
    reader.join()


class Interrupted(Exception):
    """Raised where Ctrl-C might be."""


def test_a_reader_that_is_interrupted_as_it_waits_loses_nothing(pool: Pool) -> None:
    """The answer to what it had asked for comes later, and is dropped: the next one has the same in it."""
    bw = pool(act, worker_count=1)
    events = bw.events(since=0)
    assert isinstance(next(events), WorkerUp)

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        for _ in range(3):
            signal.setitimer(signal.ITIMER_REAL, 0.05)  # while there is nothing to be read
            with pytest.raises(Interrupted):
                next(events)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    bw.add_work({}, {})
    list(bw.results())
    seen = [next(events) for _ in range(6)]
    assert [event.seq for event in seen] == [*range(seen[0].seq, seen[0].seq + 6)]
    assert Counter(map(type, seen)) == {JobQueued: 2, JobStarted: 2, JobEnded: 2}
    replies = bw._connection._replies
    wait_for(lambda: bw.stats().done == 2 and not replies._unwanted)  # each stats() takes in what has come
    assert not replies._here


@pytest.mark.parametrize("step", ["queue", "flush"])
def test_a_request_that_is_interrupted_as_it_is_sent_leaves_nothing_behind(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Once it is on its way, its answer comes all the same, and was kept for ever; before, none will ever come."""
    bw = pool(act, worker_count=1)
    line = bw._connection
    whole = getattr(line.link, step)

    def interrupt(*args: object) -> None:
        if step == "flush":
            whole(*args)
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(line.link, step, interrupt)
        with pytest.raises(Interrupted):
            bw.stats()
    replies = line._replies
    wait_for(lambda: bw.stats().done == 0 and not replies._unwanted)  # each stats() takes in what has come
    assert not replies._here


@pytest.mark.parametrize("at", range(1, 5))
def test_a_reader_that_is_interrupted_as_it_unpacks_goes_on_there(
    pool: Pool, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    bw = pool(act, worker_count=1)
    for n in range(4):
        bw.add_work({"n": n})
        bw.get_result()
    whole = [event.seq for event in islice(bw.events(since=0), 13)]
    unpack, calls = Clock.events, count()

    def unpack_or_not(clock: Clock, record: list[Any]) -> Iterable[Event]:
        if next(calls) == at:
            raise Interrupted
        return unpack(clock, record)

    monkeypatch.setattr(Clock, "events", unpack_or_not)
    events = bw.events(since=0)
    seen: list[int] = []
    while len(seen) < len(whole):
        try:
            seen.append(next(events).seq)
        except Interrupted:
            assert seen
    assert seen == whole
    assert next(calls) > at

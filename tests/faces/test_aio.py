"""``AsyncBossWorker``: everything is awaited, nothing blocks the loop, and whoever is cancelled cancels the job."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, suppress
from functools import partial, wraps
from pathlib import Path
from typing import Any

import pytest

from bossworker import AsyncBossWorker, BossDied, BossWorker, PoolClosed, Result, WorkerStartError
from bossworker.pool.caller import on_loop
from bossworker.pool.options import StartMethod
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import pack
from bossworker.pool.wire.messages import Kind
from tests.conftest import alive, wait_for


def in_loop(test: Callable[..., Any]) -> Callable[..., None]:
    """Run an async test in a loop of its own, for 60 seconds at most."""

    @wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def limited() -> None:
            async with asyncio.timeout(60):
                await test(*args, **kwargs)

        asyncio.run(limited())

    return run


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "path" in job:
        Path(job["path"]).touch()
    if "error" in job:
        raise ValueError(job["error"])
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n")}


async def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        await asyncio.sleep(0.002)


# -- run ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
@in_loop
async def test_run(start_method: StartMethod) -> None:
    async with AsyncBossWorker(work, worker_count=2, start_method=start_method) as pool:
        result = await pool.run({"n": 1})
        assert type(result) is Result
        assert (result["n"], result.job) == (1, {"n": 1})
        results = await asyncio.gather(*[pool.run({"n": n}) for n in range(300)])
        assert [result["n"] for result in results] == list(range(300))
        assert isinstance(pool.pool, BossWorker)
        assert pool.pool.pending() == 0
        pid = pool.pool.boss_pid
    assert not alive(pid)
    with pytest.raises(PoolClosed):
        await pool.run({})


@in_loop
async def test_errors_are_results_and_options_hold() -> None:
    async with AsyncBossWorker(work, worker_count=1, global_timeout=30) as pool:
        assert (await pool.run({"error": "rattle"})).error == "ValueError: rattle"
        assert (await pool.run({"seconds": 60}, timeout=0.05)).error_kind == "timeout"
        first = asyncio.create_task(pool.run({"seconds": 0.2}))
        await until(lambda: pool.pool.stats().running)
        order: list[int] = []

        async def one(n: int) -> None:
            order.append((await pool.run({"n": n}, priority=n))["n"])

        await asyncio.gather(*[one(n) for n in range(3)], first)
        assert order == [2, 1, 0]


@in_loop
async def test_bad_jobs_are_refused_among_good_ones() -> None:
    async with AsyncBossWorker(work, worker_count=1) as pool:
        good = [asyncio.create_task(pool.run({"n": n})) for n in range(10)]
        bad = asyncio.create_task(pool.run({"n": (n for n in range(3))}))
        with pytest.raises(TypeError, match="'n' holds generator"):
            await bad
        with pytest.raises(TypeError, match="must be a mapping"):
            await pool.run([])  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="retries"):
            await pool.run({}, retries="often")  # type: ignore[arg-type]
        assert [(await task)["n"] for task in good] == list(range(10))


@in_loop
async def test_none_is_no_job() -> None:
    async with AsyncBossWorker(work, worker_count=1) as pool:
        with pytest.raises(TypeError, match=r"job 0 must be a mapping .*NoneType"):
            await pool.run(None)  # type: ignore[arg-type]
        results = pool.map([{"n": 1}, None, {"n": 2}])  # type: ignore[list-item]
        assert (await anext(results))["n"] == 1
        with pytest.raises(TypeError, match="NoneType"):
            await anext(results)
        assert (await pool.run({"n": 3}))["n"] == 3


def test_wrong_settings_are_told_before_anything_starts() -> None:
    with pytest.raises(TypeError, match="work_handler"):
        AsyncBossWorker(3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="worker_count"):
        AsyncBossWorker(work, worker_count=-1)
    with pytest.raises(TypeError, match="nonsense"):
        AsyncBossWorker(work, nonsense=1)  # type: ignore[call-arg]
    with pytest.raises(RuntimeError, match="not started"):
        _ = AsyncBossWorker(work).pool
    assert repr(AsyncBossWorker(work)) == "<AsyncBossWorker, <BossWorker, not started>>"


@in_loop
async def test_the_first_call_starts_it_too() -> None:
    pool = AsyncBossWorker(work, worker_count=1)
    results = await asyncio.gather(pool.run({"n": 1}), pool.run({"n": 2}), pool.stats())
    assert [results[0]["n"], results[1]["n"]] == [1, 2]
    await pool.aclose()
    await pool.shut_down()
    never = AsyncBossWorker(work)
    await never.shut_down()
    with pytest.raises(PoolClosed):
        await never.run({})


def fail() -> None:
    raise ValueError("rattle")


@in_loop
async def test_a_worker_that_does_not_come_up() -> None:
    with pytest.raises(WorkerStartError, match="ValueError: rattle"):
        async with AsyncBossWorker(work, worker_count=1, init_handler=fail):
            pytest.fail("it came up")


@in_loop
async def test_one_that_did_not_come_up_has_nothing_to_close() -> None:
    pool = AsyncBossWorker(work, worker_count=1, init_handler=fail)
    with pytest.raises(WorkerStartError):
        await pool.run({})
    await pool.aclose()
    given_up = AsyncBossWorker(work, worker_count=1, init_handler=partial(time.sleep, 300))
    entering = asyncio.create_task(given_up.__aenter__())
    await asyncio.sleep(0)
    entering.cancel()
    await asyncio.wait([entering])
    await given_up.aclose()


def test_it_belongs_to_one_loop() -> None:
    pool = AsyncBossWorker(work, worker_count=1)

    async def use() -> None:
        await pool.stats()

    async def end() -> None:
        await pool.shut_down()

    with asyncio.Runner() as runner:
        runner.run(use())
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(pool.run({}))
        with pytest.raises(RuntimeError, match="another event loop"):
            asyncio.run(end())
        runner.run(end())


@in_loop
async def test_max_pending_makes_run_wait() -> None:
    async with AsyncBossWorker(work, worker_count=1, max_pending=2) as pool:
        tasks = [asyncio.create_task(pool.run({"n": n, "seconds": 0.02})) for n in range(20)]
        most = 0
        while not all(task.done() for task in tasks):
            most = max(most, pool.pool._inbox.unfinished())
            await asyncio.sleep(0.001)
        assert [task.result()["n"] for task in tasks] == list(range(20))
        assert most == 2


@in_loop
async def test_large_jobs_and_results() -> None:
    async with AsyncBossWorker(lambda job: {"data": job["data"] * 2}, worker_count=2) as pool:
        data = os.urandom(1 << 20)
        results = await asyncio.gather(*[pool.run({"data": data}) for _ in range(10)])
        assert all(result["data"] == data * 2 for result in results)


@in_loop
async def test_the_pool_beneath_may_be_used_from_other_threads() -> None:
    async with AsyncBossWorker(work, worker_count=2) as pool:

        def use() -> list[int]:
            pool.pool.add_work(*[{"n": n} for n in range(100)])
            found = [result["n"] for result in pool.pool.results()]
            return sorted([*found, *(result["n"] for result in pool.pool.map({"n": n} for n in range(100, 200)))])

        thread = asyncio.create_task(asyncio.to_thread(use))
        results = await asyncio.gather(*[pool.run({"n": n}) for n in range(500)])
        assert [result["n"] for result in results] == list(range(500))
        assert await thread == list(range(200))


@in_loop
async def test_a_job_that_finds_another_thread_sending_is_sent_later() -> None:
    """Nothing else arrives that would bring it back."""
    async with AsyncBossWorker(work, worker_count=1) as pool:
        await pool.run({})
        line = pool.pool._connection
        with line._sending:  # as another thread does
            line.link.queue(pack(Kind.CANCEL, messages.REQUEST.pack(0)))
            task = asyncio.create_task(pool.run({"n": 1}))
            await asyncio.sleep(0.05)
            assert pool._jobs is not None
            assert pool._jobs.unsent
        assert (await task)["n"] == 1


# -- cancelling -----------------------------------------------------------------------------------------------


@in_loop
async def test_cancelling_the_task_stops_a_job_that_runs() -> None:
    async with AsyncBossWorker(work, worker_count=1) as pool:
        task = asyncio.create_task(pool.run({"seconds": 300}))
        await until(lambda: pool.pool.stats().running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert not (await pool.stats()).running, "its end was awaited"
        assert pool.pool.pending() == 0
        assert (await pool.run({"n": 1}))["n"] == 1


@in_loop
async def test_cancelling_the_task_of_a_queued_job(tmp_path: Path) -> None:
    async with AsyncBossWorker(work, worker_count=1, max_pending=3) as pool:
        first = asyncio.create_task(pool.run({"seconds": 0.3}))
        await until(lambda: pool.pool.stats().running)
        queued = [asyncio.create_task(pool.run({"path": str(tmp_path / str(n))})) for n in range(10)]
        await asyncio.sleep(0)  # each has begun, and has been sent or waits for room
        for task in queued:
            task.cancel()
        ends = await asyncio.gather(*queued, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in ends)
        assert (await first).ok
        assert (await pool.run({"n": 1}))["n"] == 1
        assert not list(tmp_path.iterdir())
        assert pool.pool.pending() == 0


@in_loop
async def test_at_whatever_await_a_task_is_cancelled() -> None:
    """After each number of steps of the loop: nothing is left over, and the pool goes on."""
    async with AsyncBossWorker(work, worker_count=1) as pool:
        for steps in range(40):
            task = asyncio.create_task(pool.run({"n": steps, "seconds": 0.001}))
            for _ in range(steps):
                await asyncio.sleep(0 if steps < 20 else 0.0002)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        assert (await pool.run({"n": 1}))["n"] == 1
        assert pool.pool.pending() == 0
        assert pool._jobs is not None
        assert (len(pool._jobs._open), pool._jobs.unsent, pool.pool._inbox.pending()) == (0, False, 0)


@in_loop
async def test_a_second_cancel_does_not_wait(tmp_path: Path) -> None:
    def stubborn(job: dict[str, Any]) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with suppress(BaseException):
                (tmp_path / "begun").touch()
                time.sleep(0.05)

    async with AsyncBossWorker(stubborn, worker_count=1, kill_grace=0.5) as pool:
        task = asyncio.create_task(pool.run({}))
        await until((tmp_path / "begun").exists)
        task.cancel()
        await asyncio.sleep(0.05)
        assert not task.done(), "it waits for the end of its job"
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await pool.stats()).running == 1
        await until(lambda: not pool.pool.stats().running)


@in_loop
async def test_timeouts_and_task_groups() -> None:
    async with AsyncBossWorker(work, worker_count=2) as pool:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await pool.run({"seconds": 300})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(pool.run({"seconds": 300}), 0.1)
        with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012
            async with asyncio.TaskGroup() as group:
                group.create_task(pool.run({"seconds": 300}))
                group.create_task(raise_for(pool, {"error": "rattle"}))
        assert "rattle" in str(caught.value.exceptions[0])
        assert not (await pool.stats()).running


async def raise_for(pool: AsyncBossWorker, job: dict[str, Any]) -> None:
    (await pool.run(job)).raise_for_error()


# -- map ------------------------------------------------------------------------------------------------------


async def numbers(count: int, seconds: float = 0) -> AsyncIterator[dict[str, Any]]:
    for n in range(count):
        if seconds:
            await asyncio.sleep(seconds)
        yield {"n": n}


@pytest.mark.parametrize("ordered", [True, False])
@in_loop
async def test_map(ordered: bool) -> None:
    async with AsyncBossWorker(work, worker_count=2) as pool:
        for source in ([{"n": n} for n in range(500)], ({"n": n} for n in range(500)), numbers(500)):
            found = [result["n"] async for result in pool.map(source, ordered=ordered)]
            assert (found if ordered else sorted(found)) == list(range(500))
        assert [result async for result in pool.map([])] == []
        assert [result.error_kind async for result in pool.map([{"seconds": 60}], timeout=0.05)] == ["timeout"]
        with pytest.raises(TypeError, match="jobs must be an iterable or an async iterable, not int"):
            pool.map(3)  # type: ignore[arg-type]


@in_loop
async def test_map_is_lazy() -> None:
    taken = 0

    def endless() -> Iterator[dict[str, Any]]:
        nonlocal taken
        while True:
            taken += 1
            yield {"n": taken}

    async with AsyncBossWorker(work, worker_count=1) as pool:
        async with aclosing(pool.map(endless())) as results:
            assert (await anext(results))["n"] == 1
            await asyncio.sleep(0.05)
            assert taken <= on_loop.SLICE_JOBS
            for n in range(2, 100):
                assert (await anext(results))["n"] == n
        assert pool.pool.pending() == 0


@in_loop
async def test_results_come_while_a_slow_source_is_waited_for() -> None:
    async def slow() -> AsyncIterator[dict[str, Any]]:
        yield {"n": 1}
        await event.wait()
        yield {"n": 2}

    event = asyncio.Event()
    async with AsyncBossWorker(work, worker_count=1) as pool:
        results = pool.map(slow())
        assert (await anext(results))["n"] == 1
        event.set()
        assert (await anext(results))["n"] == 2
        with pytest.raises(StopAsyncIteration):
            await anext(results)


@in_loop
async def test_what_a_source_raises_comes_after_the_results_before() -> None:
    def failing() -> Iterator[dict[str, Any]]:
        yield from ({"n": n} for n in range(5))
        raise ValueError("rattle")

    async with AsyncBossWorker(work, worker_count=1) as pool:
        for ordered in (True, False):
            found: list[int] = []
            with pytest.raises(ValueError, match="rattle"):  # noqa: PT012
                async for result in pool.map(failing(), ordered=ordered):
                    found.append(result["n"])
            assert sorted(found) == list(range(5))
            found.clear()
            with pytest.raises(TypeError, match="must be a mapping"):  # noqa: PT012
                async for result in pool.map([{"n": 0}, {"n": 1}, 2], ordered=ordered):  # type: ignore[list-item]
                    found.append(result["n"])
            assert sorted(found) == [0, 1]


@in_loop
async def test_aclose_cancels_what_is_in_flight() -> None:
    async with AsyncBossWorker(work, worker_count=1) as pool:
        results = pool.map([{"n": 1}, *[{"seconds": 300}] * 5])
        assert (await anext(results))["n"] == 1
        await results.aclose()
        assert pool.pool.pending() == 0
        assert (await pool.run({"n": 2}))["n"] == 2

        async def consume() -> None:
            async for _ in pool.map([{"seconds": 300}] * 5):
                pytest.fail("none of them ends")

        task = asyncio.create_task(consume())
        await until(lambda: pool.pool.stats().running)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await pool.run({"n": 3}))["n"] == 3


# -- the end --------------------------------------------------------------------------------------------------


@in_loop
async def test_shut_down_sees_what_was_asked_for_through() -> None:
    pool = AsyncBossWorker(work, worker_count=1)
    tasks = [asyncio.create_task(pool.run({"n": n, "seconds": 0.01})) for n in range(20)]
    await until(lambda: pool._jobs is not None)
    await asyncio.sleep(0)
    await pool.shut_down()
    assert [task.result()["n"] for task in tasks] == list(range(20))
    with pytest.raises(PoolClosed):
        await pool.stats()
    with pytest.raises(PoolClosed):
        await anext(pool.map([{}]))


@in_loop
async def test_shut_down_has_a_limit_and_can_be_forced() -> None:
    pool = AsyncBossWorker(work, worker_count=1)
    await pool.stats()
    task = asyncio.create_task(pool.run({"seconds": 300}))
    await until(lambda: pool.pool.stats().running)
    with pytest.raises(TypeError, match="force must be True or False, not 10"):
        await pool.shut_down(10)  # type: ignore[arg-type]
    with pytest.raises(TimeoutError, match=r"not through with its work after 0\.1 seconds"):
        await pool.shut_down(timeout=0.1)
    with pytest.raises(PoolClosed):
        await pool.run({})
    await pool.shut_down(force=True)
    with pytest.raises(PoolClosed):
        await task
    assert not alive(pool.pool.boss_pid)


@in_loop
async def test_a_shut_down_after_one_that_was_cancelled_waits_for_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    pool = AsyncBossWorker(work, worker_count=1)
    await pool.run({})
    line, pid = pool._pool._connection, pool.pool.boss_pid
    end, begun, go_on = line.end, threading.Event(), threading.Event()

    def end_later(force: bool) -> None:
        begun.set()
        go_on.wait(60)
        end(force)

    monkeypatch.setattr(line, "end", end_later)
    first = asyncio.create_task(pool.shut_down())
    await until(begun.is_set)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(pool.shut_down())
    await asyncio.sleep(0.1)
    assert not second.done(), "the boss is still there"
    go_on.set()
    await second
    assert not alive(pid)


@in_loop
async def test_answers_that_nobody_waits_for_any_more_are_dropped() -> None:
    async with AsyncBossWorker(work, worker_count=1) as pool:
        for steps in range(20):
            task = asyncio.create_task(pool.stats())
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await pool.stats()
        replies = pool.pool._connection._replies
        assert (replies._here, replies._unwanted) == ({}, set())


@in_loop
async def test_the_boss_s_death_reaches_everybody() -> None:
    pool = AsyncBossWorker(work, worker_count=1)
    await pool.stats()
    tasks = [asyncio.create_task(pool.run({"seconds": 300})) for _ in range(10)]
    results = pool.map([{"seconds": 300}] * 5)
    mapped = asyncio.create_task(anext(results))
    await until(lambda: pool.pool.stats().running)
    os.kill(pool.pool.boss_pid, signal.SIGKILL)
    for end in await asyncio.gather(*tasks, mapped, return_exceptions=True):
        assert isinstance(end, BossDied)
    with pytest.raises(BossDied):
        await pool.run({})
    with pytest.raises(BossDied):
        await pool.stats()
    await pool.shut_down(force=True)


@in_loop
async def test_an_exception_lets_handlers_tidy_up(tmp_path: Path) -> None:
    def tidy(job: dict[str, Any]) -> None:
        try:
            time.sleep(300)
        finally:
            (tmp_path / "tidied").touch()

    with pytest.raises(ValueError, match="rattle"):  # noqa: PT012
        async with AsyncBossWorker(tidy, worker_count=1) as pool:
            task = asyncio.create_task(pool.run({}))
            await until(lambda: pool.pool.stats().running)
            raise ValueError("rattle")
    assert (tmp_path / "tidied").exists()
    await asyncio.gather(task, return_exceptions=True)
    assert task.done()


@in_loop
async def test_being_cancelled_while_it_waits_for_its_work_ends_that(tmp_path: Path) -> None:
    """Handlers that run may tidy up, as they may when an exception leaves the pool."""

    def tidy(job: dict[str, Any]) -> None:
        try:
            time.sleep(300)
        finally:
            (tmp_path / "tidied").touch()

    made: list[tuple[AsyncBossWorker[Any, Any], asyncio.Task[Any]]] = []

    async def use() -> None:
        async with AsyncBossWorker(tidy, worker_count=1) as pool:
            made.append((pool, asyncio.create_task(pool.run({}))))
            await until(lambda: pool.pool.stats().running)

    leaving = asyncio.create_task(use())
    await until(lambda: made and made[0][0]._closed)  # from then on, it waits for the job
    leaving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await leaving
    pool, task = made[0]
    assert (tmp_path / "tidied").exists()
    assert not alive(pool.pool.boss_pid)
    with pytest.raises(PoolClosed):
        await task


@in_loop
async def test_being_cancelled_while_it_starts_leaves_nothing() -> None:
    def start() -> None:
        time.sleep(300)

    async def use() -> None:
        async with AsyncBossWorker(work, worker_count=1, init_handler=start):
            pytest.fail("it came up")

    task = asyncio.create_task(use())
    await asyncio.sleep(0.1)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_loop_that_ends_without_a_shut_down_leaves_nothing() -> None:
    program = (
        "import asyncio\n"
        "from bossworker import AsyncBossWorker\n"
        "async def use():\n"
        "    pool = AsyncBossWorker(dict, worker_count=1)\n"
        "    await pool.run({})\n"
        "    return pool.pool.boss_pid\n"
        "print(asyncio.run(use()))\n"
    )
    command = [sys.executable, "-W", "always", "-c", program]
    told = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "ResourceWarning: <BossWorker dict, boss" in told.stderr
    assert "was not shut down" in told.stderr
    wait_for(lambda: not alive(int(told.stdout)))


# -- the loop goes on -----------------------------------------------------------------------------------------


class Delays:
    """How long others have to wait for their turn."""

    def __init__(self) -> None:
        self.seconds: list[float] = []

    async def __aenter__(self) -> Delays:
        self.task = asyncio.create_task(self.measure())
        return self

    async def __aexit__(self, *error: object) -> None:
        self.task.cancel()

    async def measure(self) -> None:
        while True:
            start = time.perf_counter()
            await asyncio.sleep(0.001)
            self.seconds.append(time.perf_counter() - start)

    @property
    def p99(self) -> float:
        return sorted(self.seconds)[int(len(self.seconds) * 0.99)]


@in_loop
async def test_a_stopped_boss_does_not_stop_the_loop() -> None:
    async with AsyncBossWorker(work, worker_count=1) as pool:
        await pool.run({})
        os.kill(pool.pool.boss_pid, signal.SIGSTOP)
        try:
            async with Delays() as delays:
                tasks = [asyncio.create_task(pool.run({"data": "x" * 5000})) for _ in range(1000)]
                stats = asyncio.create_task(pool.stats())
                await asyncio.sleep(0.5)
            assert len(delays.seconds) > 20
            assert not any(task.done() for task in tasks)
        finally:
            os.kill(pool.pool.boss_pid, signal.SIGCONT)
        assert all(result.ok for result in await asyncio.gather(*tasks))
        await stats


@pytest.mark.alone
@in_loop
async def test_many_jobs_in_flight_leave_the_loop_to_others() -> None:
    async with AsyncBossWorker(lambda job: {"n": job["n"]}, worker_count=2) as pool:

        async def one(n: int) -> int:
            return int((await pool.run({"n": n}))["n"])

        async with Delays() as delays:
            async with asyncio.TaskGroup() as group:
                tasks = []
                for n in range(10_000):
                    tasks.append(group.create_task(one(n)))
                    if not n % 100:
                        await asyncio.sleep(0)
            async for _ in pool.map({"n": n} for n in range(10_000)):
                pass
        assert [task.result() for task in tasks] == list(range(10_000))
        assert delays.p99 < 0.2, "20 ms when nothing else runs"
        assert threading.active_count() < 5


# -- programs -------------------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, os, sys, time
from bossworker import AsyncBossWorker

def work(job):
    time.sleep(300)

async def main():
    async with AsyncBossWorker(work, worker_count=2) as pool:
        print(pool.pool.boss_pid, *pool.pool.worker_pids, flush=True)
        await pool.run({})

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_program_that_is_ended_by_a_signal_leaves_nothing(number: int) -> None:
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert program.stdout is not None
    pids = [int(pid) for pid in program.stdout.readline().split()]
    assert len(pids) == 3
    program.send_signal(number)
    program.communicate(timeout=20)
    wait_for(lambda: not any(alive(pid) for pid in pids))


@in_loop
async def test_it_can_be_paused_reloaded_and_looked_into() -> None:
    async with AsyncBossWorker(work, worker_count=1, name="on a loop") as pool:
        assert pool.pool.name == "on a loop"
        await pool.pause()
        waiting = asyncio.create_task(pool.run({}))
        await asyncio.sleep(0.1)
        assert (waiting.done(), (await pool.stats()).paused) == (False, True)
        await pool.reload(lambda job: {"by": "new"})
        await pool.resume()
        assert dict(await waiting) == {"by": "new"}
        with pytest.raises(WorkerStartError, match="old handlers"):
            await pool.reload(init_handler=fail_to_start)
        with pytest.raises(TypeError, match="work_handler must be a callable"):
            await pool.reload(3)  # type: ignore[arg-type]
        await pool.reload(wait_in_a_job)
        running = asyncio.create_task(pool.run({}))
        while "in wait_in_a_job" not in await pool.stack():
            await asyncio.sleep(0.01)
        assert await pool.stack(99) == ""
        running.cancel()
    with pytest.raises(PoolClosed):
        await pool.pause()
    with pytest.raises(PoolClosed):
        await pool.reload()


def fail_to_start() -> None:
    raise ValueError("no database")


def wait_in_a_job(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(60)
    return {}

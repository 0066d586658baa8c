"""``submit``: a future for each job, whoever waits for it and however, and whatever ends."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import gc
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, CancelledError, as_completed
from typing import Any

import pytest

from bossworker import CANCELLED, BossDied, BossWorker, Executor, JobFuture, NothingPending, PoolClosed, Result
from tests.conftest import alive, wait_for

Pool = Callable[..., BossWorker]


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "error" in job:
        raise ValueError(job["error"])
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n"), "pid": os.getpid()}


def attendants() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "bossworker futures"]


# -- results --------------------------------------------------------------------------------------------------


def test_a_future_has_its_jobs_result(pool: Pool) -> None:
    bw = pool(work, worker_count=2)
    futures = [bw.submit({"n": n}) for n in range(100)]
    results = [future.result() for future in futures]
    assert [result["n"] for result in results] == list(range(100))
    assert {type(result) for result in results} == {Result}
    assert [result.job for result in results] == [{"n": n} for n in range(100)]
    assert [future.job_id for future in futures] == [result.job_id for result in results]
    assert all(isinstance(future, concurrent.futures.Future) for future in futures)
    assert bw.pending() == 0


def test_errors_stay_data(pool: Pool) -> None:
    future = pool(work, worker_count=1).submit({"error": "rattle"})
    assert future.exception() is None
    assert future.result().error == "ValueError: rattle"
    assert future.done()
    assert not future.cancelled()


def test_a_job_is_what_it_was_when_it_was_submitted(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    job = {"n": 1}
    first = bw.submit(job)
    job["n"] = 2
    assert [first.result()["n"], bw.submit(job).result()["n"]] == [1, 2]
    assert first.result().job == {"n": 1}


def test_options_of_a_call(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    assert bw.submit({"seconds": 60}, timeout=0.05).result().error_kind == "timeout"
    bw.submit({"seconds": 0.3})
    order: list[int] = []
    futures = [bw.submit({"n": n}, priority=n) for n in range(3)]
    for future in as_completed(futures):
        order.append(future.result()["n"])
    assert order == [2, 1, 0]
    with pytest.raises(TypeError, match="retries"):
        bw.submit({}, retries="often")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="must be a mapping"):
        bw.submit([])
    with pytest.raises(TypeError, match="'n' holds generator"):
        bw.submit({"n": (n for n in range(3))})


def test_large_jobs_and_results_travel(pool: Pool) -> None:
    bw = pool(lambda job: {"data": job["data"] * 2}, worker_count=1)
    data = os.urandom(1 << 20)
    assert bw.submit({"data": data}).result()["data"] == data * 2


def test_a_future_s_result_never_goes_to_get_result(pool: Pool) -> None:
    bw = pool(work, worker_count=2)
    future = bw.submit({"n": "future"})
    bw.add_work({"n": "common"})
    mapped = bw.map([{"n": "mapped"}])
    assert [result["n"] for result in bw.results()] == ["common"]
    assert next(mapped)["n"] == "mapped"
    with pytest.raises(NothingPending):
        bw.get_result()
    assert bw.get_result_nb() is None
    assert future.result()["n"] == "future"


def test_pending_counts_a_future_until_it_is_done(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"seconds": 0.2})
    bw.add_work({})
    assert bw.pending() == 2
    future.result()
    assert bw.pending() == 1
    bw.submit({})  # dropped
    wait_for(lambda: bw.pending() == 1)
    bw.get_result()
    assert bw.pending() == 0


def test_max_pending_holds_for_futures(pool: Pool) -> None:
    bw = pool(work, worker_count=1, max_pending=3)
    futures = [bw.submit({"seconds": 0.05}) for _ in range(10)]
    assert sum(future.done() for future in futures) >= 6
    assert all(future.result().ok for future in futures)


def test_a_wait_has_its_limit(pool: Pool) -> None:
    future = pool(work, worker_count=1).submit({"seconds": 60})
    for seconds in (0.05, 0, -1):
        with pytest.raises(TimeoutError, match="job 1 had not ended after"):
            future.result(seconds)
    with pytest.raises(TimeoutError):
        future.exception(timeout=0.01)


def test_what_has_arrived_is_had_without_waiting(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"n": 1})
    wait_for(lambda: bw.stats().done)
    assert future.result(timeout=0)["n"] == 1


def test_done_and_running_tell_the_truth(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    first, second = bw.submit({"seconds": 0.3}), bw.submit({})
    wait_for(first.running)
    assert not second.running()
    assert not first.done()
    wait_for(second.done)
    assert first.done()
    assert not first.running()


def test_futures_of_many_threads(pool: Pool, request: pytest.FixtureRequest) -> None:
    long = request.config.getoption("--long")
    bw = pool(work, worker_count=2)
    wrong: list[object] = []

    def use(start: int) -> None:
        for n in range(start, start + (200 if long else 60)):
            result = bw.submit({"n": n}).result()
            if result["n"] != n:
                wrong.append(result)

    threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not any(thread.is_alive() for thread in threads)
    assert bw.pending() == 0


# -- who listens ----------------------------------------------------------------------------------------------


def test_plain_use_starts_no_thread(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    futures = [bw.submit({"n": n}) for n in range(200)]
    assert futures[0].result()["n"] == 0
    assert futures[1].exception() is None
    wait_for(futures[-1].done)
    assert not futures[-1].cancelled()
    bw.submit({"seconds": 9}).running()
    assert not attendants()


def test_the_attendant_comes_when_needed_and_goes(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    for _ in range(3):
        assert concurrent.futures.wait([bw.submit({})]).not_done == set()
        assert len(attendants()) == 1, "it stays for a while"
        wait_for(lambda: not attendants())
    future = bw.submit({})
    concurrent.futures.wait([future])
    bw.shut_down()
    assert not attendants()


def test_wait_and_as_completed(pool: Pool) -> None:
    bw = pool(work, worker_count=2)
    slow = bw.submit({"seconds": 60})
    futures = [bw.submit({"n": n}) for n in range(50)]
    done, not_done = concurrent.futures.wait([slow, futures[0]], return_when=FIRST_COMPLETED)
    assert (done, not_done) == ({futures[0]}, {slow})
    assert {future.result()["n"] for future in as_completed(futures)} == set(range(50))
    assert concurrent.futures.wait(futures).not_done == set()
    with pytest.raises(TimeoutError):
        list(as_completed([slow], timeout=0.01))


def test_futures_of_two_pools_and_others_are_waited_for_together(pool: Pool) -> None:
    one, other = pool(work, worker_count=1), pool(work, worker_count=1)
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        futures: list[Any] = [one.submit({}), other.submit({}), threads.submit(time.sleep, 0.01)]
        assert set(as_completed(futures)) == set(futures)


def test_asyncio_waits_for_a_future(pool: Pool) -> None:
    bw = pool(work, worker_count=2)

    async def main() -> list[Result]:
        return await asyncio.gather(*[asyncio.wrap_future(bw.submit({"n": n})) for n in range(50)])

    assert [result["n"] for result in asyncio.run(main())] == list(range(50))


def test_asyncio_cancels_a_running_job(pool: Pool) -> None:
    bw = pool(work, worker_count=1)

    async def main() -> None:
        await asyncio.wait_for(asyncio.wrap_future(bw.submit({"seconds": 60})), 0.2)

    with pytest.raises(TimeoutError):
        asyncio.run(main())
    assert bw.submit({"n": 1}).result(20)["n"] == 1


# -- callbacks ------------------------------------------------------------------------------------------------


def test_callbacks_are_called_in_order(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    calls: list[tuple[str, int]] = []
    futures = [bw.submit({"n": n, "seconds": 0.01}) for n in range(10)]
    for future in futures:
        future.add_done_callback(lambda f: calls.append(("first", f.result()["n"])))
        future.add_done_callback(lambda f: calls.append(("then", f.result()["n"])))
    wait_for(lambda: len(calls) == 20)
    assert calls == [(which, n) for n in range(10) for which in ("first", "then")]
    futures[0].add_done_callback(lambda f: calls.append(("late", f.result()["n"])))
    assert calls[-1] == ("late", 0), "at once"


def test_a_callback_that_is_added_late_does_not_overtake(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    for _ in range(50):
        calls: list[int] = []
        future = bw.submit({})
        future.add_done_callback(lambda f, calls=calls: calls.append(1))  # type: ignore[misc]
        future.result()
        future.add_done_callback(lambda f, calls=calls: calls.append(2))  # type: ignore[misc]
        wait_for(lambda calls=calls: len(calls) == 2)  # type: ignore[misc]
        assert calls == [1, 2]


@pytest.mark.parametrize("error", [ValueError, SystemExit])
def test_what_a_callback_raises_is_logged(
    pool: Pool, caplog: pytest.LogCaptureFixture, error: type[BaseException]
) -> None:
    bw = pool(work, worker_count=1)

    def fail(future: object) -> None:
        raise error("rattle")

    called = threading.Event()
    for one in (bw.submit({}), bw.submit({})):
        one.add_done_callback(fail)
        one.add_done_callback(lambda f: called.set())
        assert called.wait(20)
        called.clear()
    with caplog.at_level(logging.ERROR, "concurrent.futures"):
        one.add_done_callback(fail)
    assert [record.name for record in caplog.records] == ["concurrent.futures"] * 3
    assert "rattle" in caplog.text


def test_no_callback_is_called_from_under_a_lock_of_the_program(pool: Pool) -> None:
    """Which a thread holds while it waits for another future: it takes results in, and must not call there."""
    bw = pool(work, worker_count=1)
    lock, called = threading.Lock(), threading.Event()

    def count(future: object) -> None:
        with lock:
            called.set()

    for _ in range(20):
        with lock:
            bw.submit({}).add_done_callback(count)
            bw.submit({}).result(20)
        assert called.wait(20)
        called.clear()


def test_a_callback_may_use_the_pool(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    last: list[Result] = []
    bw.submit({"n": 1}).add_done_callback(lambda f: last.append(bw.submit({"n": f.result()["n"] + 1}).result()))
    wait_for(lambda: last)
    assert last[0]["n"] == 2
    bw.submit({}).add_done_callback(lambda f: bw.shut_down())
    wait_for(lambda: not alive(bw.boss_pid))


# -- cancelling -----------------------------------------------------------------------------------------------


def test_cancelling_a_running_job_stops_it(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"seconds": 300})
    wait_for(future.running)
    calls: list[object] = []
    future.add_done_callback(calls.append)
    assert future.cancel()
    assert calls == [future], "called by cancel itself"
    assert future.cancelled()
    assert future.done()
    assert future.cancel(), "it is cancelled"
    assert bw.pending() == 0
    with pytest.raises(CancelledError):
        future.result()
    with pytest.raises(CancelledError):
        future.exception()
    wait_for(lambda: not bw.stats().running)
    assert bw.submit({"n": 1}).result()["n"] == 1
    assert bw.get_result_nb() is None


def test_a_cancelled_job_that_is_queued_never_runs(pool: Pool, tmp_path: Any) -> None:
    bw = pool(lambda job: job["path"].touch() if "path" in job else time.sleep(0.2), worker_count=1)
    bw.submit({})
    queued = bw.submit({"path": tmp_path / "ran"})
    assert queued.cancel()
    assert bw.submit({}).result().ok
    assert not (tmp_path / "ran").exists()


def test_a_job_that_has_ended_cannot_be_cancelled(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"n": 1})
    wait_for(lambda: bw.stats().done)
    assert not future.cancel(), "its result is here, though nobody asked for it"
    assert future.result()["n"] == 1


def test_cancel_wakes_everybody_who_waits(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"seconds": 300})
    ends: list[object] = []

    def by_result() -> None:
        try:
            future.result()
        except CancelledError as error:
            ends.append(error)

    def by_wait() -> None:
        ends.append(concurrent.futures.wait([future]).done)

    def by_as_completed() -> None:
        ends.append(list(as_completed([future])))

    threads = [threading.Thread(target=way) for way in (by_result, by_result, by_wait, by_as_completed)]
    for thread in threads:
        thread.start()
    time.sleep(0.05)
    assert future.cancel()
    for thread in threads:
        thread.join(20)
    assert len(ends) == 4


def test_the_pool_s_own_cancel_is_a_result(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"seconds": 300})
    assert bw.cancel(future.job_id) == 1
    assert future.result().error == CANCELLED
    assert not future.cancelled()


def test_cancelled_futures_leave_nothing_in_the_handle(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    for _ in range(300):
        bw.submit({}).cancel()
    bw.submit({}).result()
    inbox = bw._inbox
    assert (len(inbox.jobs), inbox.pending()) == (0, 0)
    assert inbox.unfinished() == 0


# -- the pool's end -------------------------------------------------------------------------------------------


def test_an_orderly_shut_down_resolves_every_future(pool: Pool) -> None:
    bw = pool(work, worker_count=2)
    futures = [bw.submit({"n": n, "seconds": 0.01}) for n in range(50)]
    calls: list[object] = []
    for future in futures[:10]:
        future.add_done_callback(calls.append)
    bw.shut_down()
    assert len(calls) == 10
    assert all(future.done() for future in futures)
    assert [future.result()["n"] for future in futures] == list(range(50))
    assert bw.pending() == 0
    with pytest.raises(PoolClosed):
        bw.submit({})


@pytest.mark.parametrize("way", ["result", "wait", "callback", "done"])
def test_a_forced_shut_down_reaches_every_future(pool: Pool, way: str) -> None:
    check_the_end(pool(work, worker_count=1), way, lambda bw: bw.shut_down(force=True), PoolClosed)


@pytest.mark.parametrize("way", ["result", "wait", "callback", "done"])
def test_the_boss_s_death_reaches_every_future(pool: Pool, way: str) -> None:
    check_the_end(pool(work, worker_count=1), way, lambda bw: os.kill(bw.boss_pid, signal.SIGKILL), BossDied)


def check_the_end(bw: BossWorker, way: str, end: Callable[[BossWorker], object], error: type[Exception]) -> None:
    early = bw.submit({"n": 1})
    early.result()
    futures = [bw.submit({"seconds": 300, "n": n}) for n in range(20)]
    killer = threading.Timer(0.1, end, (bw,))
    killer.start()
    if way == "result":
        with pytest.raises(error):
            futures[3].result()
    elif way == "wait":
        assert concurrent.futures.wait(futures, 20).not_done == set()
    elif way == "callback":
        calls: list[object] = []
        for future in futures:
            future.add_done_callback(calls.append)
        wait_for(lambda: len(calls) == len(futures))
        assert calls == futures
    killer.join()
    for future in futures:
        wait_for(future.done)
        assert isinstance(future.exception(), error)
        with pytest.raises(error):
            future.result()
    assert early.result()["n"] == 1
    assert bw.pending() == 0
    told = futures[0].exception()
    if isinstance(told, BossDied):
        assert [job.job_id for job in told.unfinished] == [future.job_id for future in futures]


def test_a_handle_that_is_dropped_ends_its_futures() -> None:
    bw = BossWorker(work, worker_count=1)
    future = bw.submit({"seconds": 300})
    with pytest.warns(ResourceWarning):
        del bw
    with pytest.raises(PoolClosed):
        future.result(20)


def test_in_a_forked_child_futures_refuse(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    done, open_one = bw.submit({"n": 1}), bw.submit({"seconds": 0.5, "n": 2})
    assert done.result()["n"] == 1
    pid = os.fork()
    if pid == 0:
        refused = 0
        calls: list[Callable[[], object]] = [
            open_one.result,
            open_one.exception,
            open_one.cancel,
            lambda: open_one.add_done_callback(print),
            lambda: concurrent.futures.wait([open_one]),
            lambda: bw.submit({}),
        ]
        for call in calls:
            try:
                call()
            except PoolClosed:
                refused += 1
        right = refused == len(calls) and done.result()["n"] == 1 and not open_one.done()
        os._exit(0 if right else 1)
    assert os.waitpid(pid, 0)[1] == 0
    assert open_one.result()["n"] == 2


FORKS = """
import os, threading, sys
from bossworker import BossWorker

with BossWorker(lambda job: {}, worker_count=1) as bw:
    stop = threading.Event()
    def again(future):
        if not stop.is_set():
            bw.submit({}).add_done_callback(again)
    for _ in range(8):
        bw.submit({}).add_done_callback(again)
    for _ in range(60):
        future = bw.submit({})
        pid = os.fork()
        if pid == 0:
            try:
                future.result()
            except Exception:
                pass
            os._exit(0)
        assert os.waitpid(pid, 0)[1] == 0
        future.result(20)
    stop.set()
print("through")
"""


def test_children_forked_while_the_attendant_works_do_not_hang() -> None:
    command = [sys.executable, "-W", "ignore", "-c", FORKS]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60, check=False).stdout == "through\n"


# -- memory ---------------------------------------------------------------------------------------------------


def test_abandoned_futures_are_freed(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"seconds": 0.1})
    ref = weakref.ref(future)
    del future
    for _ in range(1000):
        bw.submit({})
    wait_for(lambda: not bw.pending())
    assert ref() is None
    assert not bw._open_futures().open
    assert (len(bw._inbox.jobs), bw._inbox.pending()) == (0, 0)


def test_what_is_submitted_and_never_asked_for_does_not_pile_up(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    most = 0
    for _ in range(40):
        for _ in range(100):
            bw.submit({})
        wait_for(lambda: not bw.stats().queued)
        most = max(most, len(bw._open_futures().open))
    assert most < 1000


def test_a_result_is_freed_with_its_future(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    future = bw.submit({"n": 1})
    gone = weakref.ref(future)
    assert future.result()["n"] == 1
    gc.disable()
    try:
        del future
        assert gone() is None
    finally:
        gc.enable()


@pytest.mark.alone
def test_an_open_future_takes_little_memory() -> None:
    program = (
        "import resource, time\n"
        "from bossworker import BossWorker\n"
        "def resident(): return int(open('/proc/self/statm').read().split()[1]) * resource.getpagesize()\n"
        "with BossWorker(lambda job: time.sleep(300), worker_count=1) as bw:\n"
        "    bw.submit({'n': 0})\n"
        "    before = resident()\n"
        "    futures = [bw.submit({'n': n}) for n in range(30_000)]\n"
        "    print((resident() - before) / 30_000)\n"
        "    bw.shut_down(force=True)\n"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert float(told) < 2048


def test_a_future_can_be_neither_copied_nor_pickled(pool: Pool) -> None:
    """Nobody would resolve the copy."""
    bw = pool(work, worker_count=1)
    future = bw.submit({"n": 1})
    for take in (copy.copy, copy.deepcopy, pickle.dumps, lambda future: bw.submit({"future": future})):
        with pytest.raises(TypeError, match=r"a JobFuture belongs to its pool: copy or pickle its result\(\)"):
            take(future)
    with Executor(1) as executor, pytest.raises(TypeError, match="a CallFuture belongs to its pool"):
        executor.submit(str, executor.submit(int)).result()


def test_the_future_is_public() -> None:
    assert JobFuture.__doc__

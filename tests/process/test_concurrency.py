"""Threads, forks, signals and the garbage collector at awkward moments: nobody hangs, and no result is lost."""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from bossworker import BossDied, BossWorker, NothingPending, PoolClosed
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n")}


def exits_when_loaded(job: dict[str, Any]) -> dict[str, Any]:
    return {"bad": Exits()} if job.get("bad") else {"n": job.get("n")}


class Exits:
    def __reduce__(self) -> tuple[Any, ...]:
        return sys.exit, (3,)


def test_a_map_hears_of_the_boss_s_death_while_other_results_wait(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"n": 0})
    wait_for(lambda: bw.stats().done)
    results = bw.map({"seconds": 300} for _ in range(3))
    killer = threading.Timer(0.2, os.kill, (bw.boss_pid, signal.SIGKILL))
    killer.start()
    with pytest.raises(BossDied):
        next(results)
    killer.join()
    with pytest.raises(BossDied):
        bw.add_work({})
    assert bw.get_result() == {"n": 0}


@pytest.mark.parametrize("call", ["stats", "worker_pids", "cancel", "resize"])
def test_fileno_shows_results_that_other_calls_took_in(pool: Pool, call: str) -> None:
    bw = pool(nap, worker_count=1)
    fd = bw.fileno()
    bw.add_work({"n": 1})
    wait_for(lambda: bw.stats().done)
    calls: dict[str, Callable[[], object]] = {
        "stats": bw.stats,
        "worker_pids": lambda: bw.worker_pids,
        "cancel": lambda: bw.cancel(1),
        "resize": lambda: bw.resize(2),
    }
    calls[call]()
    assert select.select([fd], [], [], 20)[0] == [fd]
    assert bw.get_result_nb() == {"n": 1}


def test_fileno_outlives_an_orderly_shut_down_if_it_was_in_use(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    fd = bw.fileno()
    bw.add_work({"n": 1})
    bw.shut_down()
    assert select.select([fd], [], [], 20)[0] == [fd]
    assert bw.get_result_nb() == {"n": 1}
    assert bw.get_result_nb() is None
    other = pool(nap, worker_count=1)
    other.add_work({"n": 2})
    other.shut_down()
    with pytest.raises(PoolClosed):
        other.fileno()
    assert other.get_result_nb() == {"n": 2}


def test_threads_are_let_go_by_a_forced_shut_down(long: bool) -> None:
    for _ in range(50 if long else 5):
        bw = BossWorker(nap, worker_count=1)
        bw.add_work(*[{"seconds": 300}] * 8)
        ends: list[BaseException] = []

        def take(bw: BossWorker = bw, ends: list[BaseException] = ends) -> None:
            try:
                bw.get_result()
            except BaseException as error:
                ends.append(error)

        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        bw.shut_down(force=True)
        for thread in threads:
            thread.join(20)
        assert len(ends) == 8
        assert all(isinstance(end, NothingPending | BossDied | PoolClosed) for end in ends), ends


def test_a_child_forked_while_threads_use_the_pool_is_refused(pool: Pool, long: bool) -> None:
    bw = pool(nap, worker_count=2)
    stop = threading.Event()

    def work() -> None:
        while not stop.is_set():
            bw.add_work(*[{"n": n} for n in range(50)])
            for _ in range(50):
                bw.get_result()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        for _ in range(100 if long else 10):
            pid = os.fork()
            if pid == 0:
                signal.alarm(20)
                with suppress(PoolClosed):
                    bw.get_result()
                    os._exit(1)
                os._exit(0)
            assert os.waitpid(pid, 0)[1] == 0
    finally:
        stop.set()
        thread.join()


def test_a_map_that_the_garbage_collector_closes(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    before = gc.get_threshold()
    gc.set_threshold(20, 2, 2)
    try:
        for _ in range(100):
            results: Iterator[Any] = bw.map({"n": n} for n in range(200))
            next(results)
            cycle: list[Any] = [results]
            cycle.append(cycle)
            del results, cycle
            bw.add_work(*[{"n": n} for n in range(20)])
            assert sum(1 for _ in bw.results()) == 20
    finally:
        gc.set_threshold(*before)
    gc.collect()
    assert bw.pending() == 0


def test_many_open_descriptors_are_no_matter(pool: Pool) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3000:
        pytest.skip("the hard limit on descriptors is too low")
    resource.setrlimit(resource.RLIMIT_NOFILE, (3000, hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1500)]
    try:
        with BossWorker(nap, worker_count=2) as bw:
            bw.add_work(*[{"n": n} for n in range(100)])
            assert sum(1 for _ in bw.results()) == 100
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_forced_shut_down_ends_an_add_work_that_waits_for_room(pool: Pool) -> None:
    bw = pool(nap, worker_count=1, max_pending=2)
    ends: list[BaseException] = []

    def add() -> None:
        try:
            bw.add_work(*[{"seconds": 300}] * 10)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    wait_for(lambda: bw.stats().running)
    bw.shut_down(force=True)
    thread.join(20)
    assert isinstance(ends[0], PoolClosed)
    assert bw.pending() == 0


def test_an_orderly_shut_down_does_not_wait_for_an_add_work_that_waits_for_room(pool: Pool) -> None:
    bw = pool(nap, worker_count=1, max_pending=1)
    ends: list[BaseException] = []

    def add() -> None:
        try:
            bw.add_work(*[{"seconds": 0.5}] * 10)
        except BaseException as error:
            ends.append(error)

    thread = threading.Thread(target=add)
    thread.start()
    wait_for(lambda: bw.stats().running)
    bw.shut_down()
    thread.join(20)
    assert isinstance(ends[0], PoolClosed)
    assert all(result.ok for result in bw.results())


def test_a_result_that_exits_when_it_is_loaded_is_a_bad_result(pool: Pool) -> None:
    bw = pool(exits_when_loaded, worker_count=1)
    bw.add_work({"n": 1}, {"bad": True}, {"n": 2})
    results = {result.job_id: result for result in bw.results()}
    assert results[2].error_kind == "bad_result"
    assert (results[1], results[3]) == ({"n": 1}, {"n": 2})


def test_ctrl_c_in_the_result_handler_loses_no_result(pool: Pool) -> None:
    calls = 0

    def handle(result: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 1:
            raise KeyboardInterrupt
        return result

    bw = pool(nap, worker_count=1, result_handler=handle)
    bw.add_work({"n": 1})
    with pytest.raises(KeyboardInterrupt):
        bw.get_result()
    assert bw.pending() == 1
    assert bw.get_result() == {"n": 1}


def test_a_hanging_exit_handler_does_not_stop_the_others(pool: Pool) -> None:
    bw = pool(nap, worker_count=1, max_jobs_per_worker=1, exit_handler=lambda: time.sleep(300))
    assert [result["n"] for result in bw.map({"n": n} for n in range(4))] == [0, 1, 2, 3]


def test_what_an_interrupted_add_work_left_in_the_middle_is_sent_on(pool: Pool) -> None:
    class Interruption(Exception):
        pass

    def interrupt(number: int, frame: object) -> None:
        raise Interruption

    bw = pool(lambda job: {"size": len(job["data"])}, worker_count=1)
    previous = signal.signal(signal.SIGUSR1, interrupt)
    os.kill(bw.boss_pid, signal.SIGSTOP)  # so that the socket fills up

    def interrupt_once_it_is_sending() -> None:
        wait_for(lambda: bw._connection.link.unsent)
        os.kill(os.getpid(), signal.SIGUSR1)

    try:
        sender = threading.Thread(target=interrupt_once_it_is_sending)
        sender.start()
        with pytest.raises(Interruption):
            bw.add_work(*[{"data": bytes(200_000)}] * 50)
        sender.join()
    finally:
        os.kill(bw.boss_pid, signal.SIGCONT)
        signal.signal(signal.SIGUSR1, previous)
    assert bw.pending() == 50
    for _ in range(50):
        assert bw.get_result(timeout=30) == {"size": 200_000}


def test_a_signal_handler_may_force_the_end(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"seconds": 300})
    previous = signal.signal(signal.SIGUSR1, lambda number, frame: bw.shut_down(force=True))
    try:
        timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGUSR1))
        timer.start()
        with pytest.raises((NothingPending, PoolClosed)):
            bw.get_result()
        timer.join()
    finally:
        signal.signal(signal.SIGUSR1, previous)

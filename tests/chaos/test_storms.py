"""Storms: what dies, dies at random, while thousands of jobs run."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker
from bossworker.system import processes
from tests.conftest import wait_for


@cache
def opened(path: str) -> int:
    """Whoever appends to it: opened once in each process, whatever started that."""
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)


def log_job(job: dict[str, Any]) -> dict[str, Any]:
    """Append the job's number to a log, whole or not at all, then maybe work for a while."""
    os.write(opened(job["log"]), b"%d\n" % job["n"])
    if job["seconds"]:
        time.sleep(job["seconds"])
    return {"n": job["n"]}


MOST_KILLS = 100


@contextmanager
def killing(
    pids: Callable[[], tuple[int, ...]], rate: float, rng: random.Random, most: int = MOST_KILLS
) -> Iterator[list[int]]:
    """SIGKILL one of `pids`, about `rate` times a second; yields the list of those hit.

    After this many the storm is over: on a busy machine, workers would die more often than they get something done.
    """
    hit: list[int] = []
    stop = threading.Event()

    def kill() -> None:
        while len(hit) < most and not stop.wait(rng.expovariate(rate)):
            with suppress(ProcessLookupError, IndexError):
                pid = rng.choice(pids())
                os.kill(pid, signal.SIGKILL)
                hit.append(pid)

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        yield hit
    finally:
        stop.set()
        thread.join()


@pytest.mark.parametrize("seed", range(3))
def test_kills_cost_one_job_each_and_none_runs_twice(tmp_path: Path, request: pytest.FixtureRequest, seed: int) -> None:
    jobs = 200_000 if request.config.getoption("--long") else 20_000
    weather_a_storm(tmp_path / "log", random.Random(seed), jobs, jobs // 200)


@pytest.mark.parametrize("settings", [{"start_method": "spawn"}, {"transport": "socketpair"}], ids=str)
def test_so_do_spawned_workers_and_those_without_zeromq(
    tmp_path: Path, request: pytest.FixtureRequest, settings: dict[str, Any]
) -> None:
    jobs, kills = (100_000, 100) if request.config.getoption("--long") else (8_000, 25)
    weather_a_storm(tmp_path / "log", random.Random(11), jobs, kills, **settings)


def weather_a_storm(log: Path, rng: random.Random, jobs: int, kills: int, **settings: Any) -> None:
    """Kill workers while so many jobs are done, and see that each is done once."""
    with BossWorker(log_job, worker_count=4, global_timeout=30, **settings) as pool:
        told = {"log": str(log)}
        pool.add_work(*[{"n": n, **told, "seconds": rng.choice([0] * 60 + [0.001, 0.01])} for n in range(jobs)])
        with killing(lambda: pool.worker_pids, 60, rng, kills) as hit:
            results = list(pool.results())
        restarts = pool.stats().restarts
    runs = Counter(map(int, log.read_text().split()))
    kinds = Counter(result.error_kind for result in results)
    print(f"{jobs} jobs, {len(hit)} kills, {restarts} restarts, {dict(kinds)}")
    assert sorted(result.job["n"] for result in results) == list(range(jobs))
    assert set(kinds) <= {None, "crash"}
    assert kinds["crash"] <= len(hit)
    assert len(hit) >= min(20, kills // 2)
    assert max(runs.values()) == 1
    assert all(runs[result.job["n"]] == 1 for result in results if result.ok)
    assert all(result["n"] == result.job["n"] for result in results if result.ok)


def test_with_retries_no_job_is_lost_to_kills(tmp_path: Path) -> None:
    rng = random.Random(7)
    log = str(tmp_path / "log")
    with BossWorker(log_job, worker_count=3, retries=1000) as pool:
        pool.add_work(*[{"n": n, "log": log, "seconds": 0.001} for n in range(2000)])
        with killing(lambda: pool.worker_pids, 50, rng):
            results = list(pool.results())
    assert sorted(result["n"] for result in results) == list(range(2000))
    again = [result for result in results if result.attempts > 1]
    runs = Counter(map(int, (tmp_path / "log").read_text().split()))
    assert all(runs[result["n"]] <= result.attempts for result in results)
    assert len(again) >= 1


def unruly(job: dict[str, Any]) -> dict[str, Any] | None:
    """Whatever a job can do wrong."""
    match job["what"]:
        case "raise":
            raise ValueError(job["n"])
        case "exit":
            os._exit(3)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "hang":
            time.sleep(60)
        case "swallow":
            while True:
                with suppress(BaseException):
                    time.sleep(60)
        case "large":
            return {"n": job["n"], "data": b"x" * 700_000}
        case "bad":
            return iter(())  # type: ignore[return-value]
    return {"n": job["n"]}


KINDS = {
    "fine": None,
    "large": None,
    "raise": "exception",
    "exit": "crash",
    "kill": "crash",
    "hang": "timeout",
    "swallow": "timeout",
    "bad": "bad_result",
}


def test_every_job_gets_its_own_fate(request: pytest.FixtureRequest) -> None:
    """All kinds of misbehaviour at once, in random order: each job's result is its own, and only its own."""
    rng = random.Random(11)
    weights = [600, 20, 20, 10, 10, 2, 2, 10]
    count = 20_000 if request.config.getoption("--long") else 2_000
    fates = rng.choices(list(KINDS), weights, k=count)
    with BossWorker(unruly, worker_count=6, global_timeout=1.5, kill_grace=0.2) as pool:
        pool.add_work(*[{"n": n, "what": fate} for n, fate in enumerate(fates)])
        results = list(pool.results())
    assert sorted(result.job["n"] for result in results) == list(range(count))
    wrong = [r for r in results if r.error_kind != KINDS[r.job["what"]]]
    assert not wrong, wrong[:5]
    assert all(result["n"] == result.job["n"] for result in results if result.ok)


def test_cancels_in_a_storm_each_yield_one_result(tmp_path: Path) -> None:
    rng = random.Random(5)
    log = str(tmp_path / "log")
    with BossWorker(log_job, worker_count=3) as pool:
        ids = pool.add_work(*[{"n": n, "log": log, "seconds": rng.choice([0, 0, 0.001])} for n in range(6000)])
        cancelled = 0
        results = []
        with killing(lambda: pool.worker_pids, 30, rng):
            for start in range(0, 6000, 500):
                cancelled += pool.cancel(*rng.sample(ids[start : start + 500], 100))
                results += [pool.get_result() for _ in range(200)]
            results += list(pool.results())
    kinds = Counter(result.error_kind for result in results if result is not None)
    assert sorted(result.job_id for result in results if result is not None) == list(ids)
    assert kinds["cancelled"] == cancelled
    runs = Counter(map(int, (tmp_path / "log").read_text().split()))
    assert max(runs.values()) == 1


class Interrupted(BaseException):
    """Raised from a signal handler, anywhere."""


def test_interrupts_at_any_instant_lose_nothing(request: pytest.FixtureRequest) -> None:
    """As Ctrl-C does, but again and again: an exception out of a signal handler at random moments in every call."""

    armed = False

    def interrupt(number: int, frame: object) -> None:
        if armed:
            raise Interrupted

    rng = random.Random(3)
    seen: Counter[int] = Counter()
    added: list[int] = []
    interrupts = 0
    previous = signal.signal(signal.SIGALRM, interrupt)
    pool = BossWorker(log_nothing, worker_count=2)
    try:
        wanted = 2000 if request.config.getoption("--long") else 300
        while interrupts < wanted:
            keys = range(len(added), len(added) + rng.choice([1, 3, 200]))
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
                add_and_take(pool, keys, rng)
                armed = False
            except Interrupted:
                armed = False
                interrupts += 1
            added += keys
        rest = list(pool.results())
        for result in rest:
            seen[result["n"]] += 1
        assert pool.pending() == 0
        assert len({result.job_id for result in rest}) == len(rest)
        assert all(result.ok for result in rest)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        pool.shut_down(force=True)


def add_and_take(pool: BossWorker, keys: range, rng: random.Random) -> None:
    pool.add_work(*[{"n": n} for n in keys])
    while pool.pending() > 300:
        pool.get_result(timeout=rng.choice([None, 0.01]))


def log_nothing(job: dict[str, Any]) -> dict[str, Any]:
    if job["n"] < 0:
        time.sleep(300)
    return {"n": job["n"]}


@pytest.mark.parametrize("whom", ["boss", "fork server"])
def test_the_death_of_a_server_names_every_unfinished_job(whom: str) -> None:
    rng = random.Random(whom)
    for _ in range(10):
        pool = BossWorker(log_nothing, worker_count=2)
        boss, workers = pool.boss_pid, pool.worker_pids
        fork_server = processes.children(boss)[0]
        ids = list(pool.add_work(*[{"n": n} for n in range(5000)], {"n": -1}))
        time.sleep(rng.uniform(0, 0.01))
        os.kill(boss if whom == "boss" else fork_server, signal.SIGKILL)
        got = []
        with pytest.raises(BossDied) as death:  # noqa: PT012
            while True:
                result = pool.get_result(timeout=10)
                assert result is not None
                got.append(result.job_id)
        unfinished = [one.job_id for one in death.value.unfinished]
        assert sorted(got + unfinished) == ids
        wait_for(lambda: not any(map(_exists, (fork_server, *workers))), 5)  # noqa: B023
        pool.shut_down(force=True)


def _exists(pid: int) -> bool:
    processes.reap_all()
    return Path(f"/proc/{pid}").exists()

"""Storms: what dies, dies at random, while thousands of jobs run; with a journal, and without.

What dies together with its program, again and again on one journal, is in ``tests/journal/test_storm.py``.
"""

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
from bossworker import journal as journals
from bossworker.system import processes
from tests.conftest import wait_for
from tests.journal.programs import role


@pytest.fixture(params=["memory", "journal"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Any]:
    """Where a pool keeps its jobs: settings for it."""
    return {"journal": tmp_path / "jobs.db"} if request.param == "journal" else {}


def check_journal(kept: dict[str, Any], **expected: int) -> None:
    """Each job of a journal has one result, which was handed out: as many of each status as expected."""
    if kept:
        journal = journals.open(kept["journal"])
        wait_for(lambda: all(job.retrieved for job in journal.jobs()))
        assert {status: count for status, count in journal.counts().items() if count} == expected


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


def test_kills_cost_one_job_each_and_none_runs_twice(
    tmp_path: Path, request: pytest.FixtureRequest, kept: dict[str, Any]
) -> None:
    jobs = 600_000 if request.config.getoption("--long") else 20_000
    kinds = weather_a_storm(tmp_path / "log", random.Random(0), jobs, jobs // 200, **kept)
    check_journal(kept, done=kinds[None], **({"failed": kinds["crash"]} if kinds["crash"] else {}))


@pytest.mark.parametrize(
    "settings",
    [{"start_method": "spawn"}, {"transport": "socketpair"}, {"transport": "socketpair", "journal": "jobs.db"}],
    ids=str,
)
def test_so_do_spawned_workers_and_those_without_zeromq(
    tmp_path: Path, request: pytest.FixtureRequest, settings: dict[str, Any]
) -> None:
    jobs, kills = (100_000, 100) if request.config.getoption("--long") else (8_000, 25)
    kept = {"journal": tmp_path / settings["journal"]} if "journal" in settings else {}
    kinds = weather_a_storm(tmp_path / "log", random.Random(11), jobs, kills, **{**settings, **kept})
    check_journal(kept, done=kinds[None], **({"failed": kinds["crash"]} if kinds["crash"] else {}))


def weather_a_storm(log: Path, rng: random.Random, jobs: int, kills: int, **settings: Any) -> Counter[str | None]:
    """Kill workers while so many jobs are done, and see that each is done once; how many ended in which way."""
    with BossWorker(log_job, worker_count=4, global_timeout=30, **settings) as pool:
        told = {"log": str(log)}
        pool.add_work(*[{"n": n, **told, "seconds": rng.choice([0] * 60 + [0.001, 0.01])} for n in range(jobs)])
        with killing(lambda: pool.worker_pids, 60, rng, kills) as hit:
            results = list(pool.results())
        restarts = pool.stats().restarts
    runs = Counter(map(int, log.read_text().split()))
    kinds = Counter[str | None](result.error_kind for result in results)
    print(f"{jobs} jobs, {len(hit)} kills, {restarts} restarts, {dict(kinds)}")
    assert sorted(result.job["n"] for result in results) == list(range(jobs))
    assert set(kinds) <= {None, "crash"}
    assert kinds["crash"] <= len(hit)
    assert len(hit) >= min(20, kills // 2)
    assert max(runs.values()) == 1
    assert all(runs[result.job["n"]] == 1 for result in results if result.ok)
    assert all(result["n"] == result.job["n"] for result in results if result.ok)
    return kinds


def test_with_retries_no_job_is_lost_to_kills(
    tmp_path: Path, request: pytest.FixtureRequest, kept: dict[str, Any]
) -> None:
    kills = MOST_KILLS if request.config.getoption("--long") else 30
    rng = random.Random(7)
    log = str(tmp_path / "log")
    with BossWorker(log_job, worker_count=3, retries=1000, **kept) as pool:
        pool.add_work(*[{"n": n, "log": log, "seconds": 0.001} for n in range(2000)])
        with killing(lambda: pool.worker_pids, 50, rng, kills):
            results = list(pool.results())
    assert sorted(result["n"] for result in results) == list(range(2000))
    again = [result for result in results if result.attempts > 1]
    runs = Counter(map(int, (tmp_path / "log").read_text().split()))
    assert all(runs[result["n"]] <= result.attempts for result in results)
    assert len(again) >= 1
    check_journal(kept, done=2000)


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


def test_every_job_gets_its_own_fate(request: pytest.FixtureRequest, kept: dict[str, Any]) -> None:
    """All kinds of misbehaviour at once, in random order: each job's result is its own, and only its own."""
    rng = random.Random(11)
    weights = [600, 20, 20, 10, 10, 2, 2, 10]
    count = 20_000 if request.config.getoption("--long") else 600 if kept else 1_000
    fates = rng.choices(list(KINDS), weights, k=count)
    with BossWorker(unruly, worker_count=6, global_timeout=1.5, kill_grace=0.2, **kept) as pool:
        pool.add_work(*[{"n": n, "what": fate} for n, fate in enumerate(fates)])
        results = list(pool.results())
    assert sorted(result.job["n"] for result in results) == list(range(count))
    wrong = [r for r in results if r.error_kind != KINDS[r.job["what"]]]
    assert not wrong, wrong[:5]
    assert all(result["n"] == result.job["n"] for result in results if result.ok)
    good = sum(KINDS[fate] is None for fate in fates)
    check_journal(kept, done=good, failed=count - good)


def test_cancels_in_a_storm_each_yield_one_result(tmp_path: Path, kept: dict[str, Any]) -> None:
    rng = random.Random(5)
    log = str(tmp_path / "log")
    with BossWorker(log_job, worker_count=3, **kept) as pool:
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
    failed = {"failed": kinds["crash"]} if kinds["crash"] else {}
    check_journal(kept, done=kinds[None], cancelled=cancelled, **failed)


class Interrupted(BaseException):
    """Raised from a signal handler, anywhere."""


def test_interrupts_at_any_instant_lose_nothing(request: pytest.FixtureRequest, kept: dict[str, Any]) -> None:
    """As Ctrl-C does, but again and again: an exception out of a signal handler at random moments in every call."""

    armed = False

    def interrupt(number: int, frame: object) -> None:
        if armed:
            raise Interrupted

    rng = random.Random(3)
    seen: Counter[int] = Counter()
    added: list[int] = []
    accepted: list[int] = []  # how many jobs each call had that returned
    interrupts = 0
    previous = signal.signal(signal.SIGALRM, interrupt)
    pool = BossWorker(log_nothing, worker_count=2, **kept)
    try:
        wanted = 2000 if request.config.getoption("--long") else 300
        while interrupts < wanted:
            keys = range(len(added), len(added) + rng.choice([1, 3, 200]))
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
                add_and_take(pool, keys, rng, accepted)
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
        if kept:
            counts = journals.open(kept["journal"]).counts()
            assert counts["done"] == sum(counts.values()) >= sum(accepted)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        pool.shut_down(force=True)


def add_and_take(pool: BossWorker, keys: range, rng: random.Random, accepted: list[int]) -> None:
    pool.add_work(*[{"n": n} for n in keys])
    accepted.append(len(keys))
    while pool.pending() > 300:
        pool.get_result(timeout=rng.choice([None, 0.01]))


def log_nothing(job: dict[str, Any]) -> dict[str, Any]:
    if job["n"] < 0:
        time.sleep(300)
    return {"n": job["n"]}


@pytest.mark.parametrize(
    ("kept", "whom"),
    [
        ("memory", "boss"),
        ("memory", "fork server"),
        ("journal", "boss"),
        ("journal", "fork server"),
        ("journal", "scribe"),
    ],
    indirect=["kept"],
)
def test_the_death_of_a_server_names_every_unfinished_job(
    tmp_path: Path, request: pytest.FixtureRequest, kept: dict[str, Any], whom: str
) -> None:
    rng = random.Random(whom)
    for turn in range(50 if request.config.getoption("--long") else 2 if kept else 4):
        if kept:
            kept["journal"] = tmp_path / f"{turn}.db"
        pool = BossWorker(log_nothing, worker_count=2, **kept)
        servers, workers = _servers(pool), pool.worker_pids
        ids = list(pool.add_work(*[{"n": n} for n in range(5000)], {"n": -1}))
        time.sleep(rng.uniform(0, 0.01))
        os.kill(servers[whom], signal.SIGKILL)
        got = []
        with pytest.raises(BossDied) as death:  # noqa: PT012
            while True:
                result = pool.get_result(timeout=10)
                assert result is not None
                got.append(result.job_id)
        unfinished = {one.job_id: one.may_have_run for one in death.value.unfinished}
        assert sorted([*got, *unfinished]) == ids
        wait_for(lambda: not any(map(_exists, (*servers.values(), *workers))), 5)  # noqa: B023
        pool.shut_down(force=True)
        if kept:
            _check_next_owner(kept, set(ids) - set(got), unfinished)


def _servers(pool: BossWorker) -> dict[str, int]:
    """The pids of a pool's processes that are no workers."""
    pids = [*processes.children(os.getpid()), *processes.children(pool.boss_pid)]
    return {role(pid): pid for pid in pids if role(pid) in ("boss", "fork server", "scribe")}


def _check_next_owner(kept: dict[str, Any], left: set[int], unfinished: dict[int, bool]) -> None:
    """What never started is run by the next owner; what may have run is interrupted, if it has no result."""
    with BossWorker(lambda job: {"n": job["n"]}, worker_count=2, **kept) as pool:
        results = {result.job_id: result for result in pool.results()}
    assert left <= results.keys()
    assert all(result["n"] == result.job["n"] for result in results.values() if result.ok)
    interrupted = {job_id for job_id, result in results.items() if not result.ok}
    assert {results[job_id].error_kind for job_id in interrupted} <= {"interrupted"}
    assert all(unfinished[job_id] for job_id in interrupted), "a job that never started was not run"
    assert len(interrupted) <= 2  # workers


def _exists(pid: int) -> bool:
    processes.reap_all()
    return Path(f"/proc/{pid}").exists()

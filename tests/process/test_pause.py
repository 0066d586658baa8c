"""A pool that is paused starts no job, loses none, and goes on where it was."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, PoolClosed
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "mark" in job:
        Path(job["mark"]).touch()
    if "until" in job:
        wait_for(Path(job["until"]).exists)
    if job.get("die"):
        os.kill(os.getpid(), signal.SIGKILL)
    return {"n": job.get("n")}


def test_no_job_starts_and_none_is_lost(pool: Pool, tmp_path: Path) -> None:
    bw = pool(work, worker_count=2)
    bw.pause()
    assert bw.stats().paused
    assert "paused" in repr(bw.stats())
    bw.add_work(*[{"n": n, "mark": f"{tmp_path}/{n}"} for n in range(100)])
    assert bw.get_result(timeout=0.2) is None
    assert (bw.stats().queued, bw.stats().running, list(tmp_path.iterdir())) == (100, 0, [])
    bw.resume()
    assert not bw.stats().paused
    assert sorted(r["n"] for r in bw.results()) == list(range(100))


def test_what_runs_goes_on(pool: Pool, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    bw.add_work({"n": 1, "until": f"{tmp_path}/go"})
    wait_for(lambda: bw.stats().running)
    bw.add_work({"n": 2})
    bw.pause()
    assert (bw.stats().running, bw.stats().queued) == (1, 1)
    (tmp_path / "go").touch()
    assert bw.get_result()["n"] == 1
    assert bw.get_result(timeout=0.1) is None
    bw.resume()
    assert bw.get_result()["n"] == 2


def count_up(job: dict[str, Any]) -> dict[str, Any]:
    os.write(job["fd"], b".")
    end = time.monotonic() + 0.0002
    while time.monotonic() < end:
        pass
    return {}


def has_done(bw: BossWorker, jobs: int) -> bool:
    return bw.stats().done > jobs


def test_jobs_that_a_worker_has_been_given_do_not_start_either(pool: Pool, request: pytest.FixtureRequest) -> None:
    """Tiny jobs travel by the hundred. After `pause` has returned, a worker ends the one that it is in."""
    read, write = os.pipe()
    os.set_blocking(read, False)
    try:
        bw = pool(count_up, worker_count=2)
        for done in range(0, 20_000 if request.config.getoption("--long") else 4000, 1000):
            bw.add_work(*[{"fd": write}] * 1000)
            wait_for(partial(has_done, bw, done + 50))
            bw.pause()
            wait_for(lambda: not bw.stats().running)
            begun = len(os.read(read, 65536))
            for _ in range(10):  # time enough to start some
                bw.stats()
            with pytest.raises(BlockingIOError):
                os.read(read, 1)
            bw.resume()
            assert len(list(bw.results())) == 1000
            assert begun + len(os.read(read, 65536)) == 1000
    finally:
        os.close(read)
        os.close(write)


def test_cancel_reaches_what_waits(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    bw.pause()
    first, _ = bw.add_work({"n": 1}, {"n": 2})
    assert bw.cancel(first) == 1
    assert bw.get_result().error_kind == "cancelled"
    bw.resume()
    assert bw.get_result()["n"] == 2


def test_a_retry_waits_too(pool: Pool, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1, retries=1)
    bw.add_work({"die": True, "until": f"{tmp_path}/go"})
    wait_for(lambda: bw.stats().running)
    bw.pause()
    (tmp_path / "go").touch()
    wait_for(lambda: bw.stats().restarts and bw.stats().workers[0].state == "idle")
    assert bw.stats().queued == 1
    bw.resume()
    result = bw.get_result()
    assert (result.error_kind, result.attempts) == ("crash", 2)


def test_shut_down_sees_to_what_is_queued(pool: Pool) -> None:
    bw = pool(work, worker_count=2)
    bw.pause()
    bw.add_work(*[{"n": n} for n in range(50)])
    bw.shut_down()
    assert len(list(bw.results())) == 50
    with pytest.raises(PoolClosed):
        bw.pause()
    with pytest.raises(PoolClosed):
        bw.resume()


def test_workers_come_and_go_in_a_paused_pool(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    bw.pause()
    bw.pause()
    bw.add_work({"n": 1})
    os.kill(bw.worker_pids[0], signal.SIGKILL)
    wait_for(lambda: bw.stats().restarts == 1 and bw.stats().workers[0].state == "idle")
    bw.resize(3)
    wait_for(lambda: [w.state for w in bw.stats().workers] == ["idle"] * 3)
    assert bw.stats().queued == 1
    bw.resume()
    bw.resume()
    assert bw.get_result()["n"] == 1


def test_a_map_waits_and_goes_on(pool: Pool) -> None:
    bw = pool(work, worker_count=2)
    results = bw.map({"n": n} for n in range(300))
    assert next(results)["n"] == 0
    bw.pause()
    timer = threading.Timer(0.1, bw.resume)
    timer.start()
    assert [r["n"] for r in results] == list(range(1, 300))
    timer.join()

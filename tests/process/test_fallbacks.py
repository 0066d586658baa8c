"""A pool on a platform that lacks what Linux has: everything in the contract holds, at a smaller speed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bossworker import CANCELLED, TIMED_OUT, BossDied, BossWorker
from bossworker.pool.wire import shared_counter
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


@pytest.fixture(
    params=[
        ("semaphores",),
        ("sem_init",),
        ("pidfd_open",),
        ("memfd_create",),
        ("waitid",),
        ("semaphores", "pidfd_open", "memfd_create", "waitid"),
    ],
    ids=" ".join,
)
def lacking(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Takes away what the platform has; processes that are forked from this one have it neither."""
    for what in request.param:
        if what == "semaphores":
            monkeypatch.setattr(shared_counter, "_semaphore", lambda area, at: None)
        elif what == "sem_init":  # it is there, and refuses
            monkeypatch.setattr(shared_counter, "_set_semaphore", lambda semaphore, value: False)
        else:
            monkeypatch.delattr(os, what, raising=False)
    shared_counter.exclusive.cache_clear()
    yield
    monkeypatch.undo()
    shared_counter.exclusive.cache_clear()


def handle(job: dict[str, Any]) -> dict[str, Any]:
    match job.get("do"):
        case "nap":
            time.sleep(job["seconds"])
        case "raise":
            raise ValueError("rattle")
        case "crash":
            os._exit(3)
    return {"n": job["n"], "payload": job.get("payload")}


@pytest.mark.usefixtures("lacking")
def test_jobs_of_all_kinds_have_their_results(pool: Pool) -> None:
    made = pool(handle, worker_count=2, kill_grace=0.1)
    made.add_work(*({"n": n} for n in range(300)))
    made.add_work({"n": 300, "payload": bytes(1 << 20)}, {"n": 301, "do": "raise"}, {"n": 302, "do": "crash"})
    made.add_work({"n": 303, "do": "nap", "seconds": 60}, timeout=0.1)
    results = {result.job["n"]: result for result in made.results()}
    assert sorted(results) == list(range(304))
    assert all(results[n]["n"] == n for n in range(301))
    assert results[300]["payload"] == bytes(1 << 20)
    assert results[301]["ERROR"] == "ValueError: rattle"
    assert results[302]["ERROR"] == "BossWorkerAsync: worker died (exit code 3)"
    assert results[303]["ERROR"] == TIMED_OUT


@pytest.mark.usefixtures("lacking")
def test_cancelled_jobs_run_at_most_once(pool: Pool) -> None:
    made = pool(handle, worker_count=2, kill_grace=0.1)
    ids = made.add_work(*({"n": n, "do": "nap", "seconds": 60} for n in range(6)))
    wait_for(lambda: made.stats().running == 2)
    assert made.cancel(*ids) == 6
    assert [result.get("ERROR") for result in made.results()] == [CANCELLED] * 6
    made.add_work({"n": 7})
    assert made.get_result()["n"] == 7


@pytest.mark.usefixtures("lacking")
def test_a_killed_worker_and_a_killed_boss_are_noticed(pool: Pool) -> None:
    made = pool(handle, worker_count=2)
    made.add_work({"n": 1, "do": "nap", "seconds": 60})
    wait_for(lambda: made.stats().running == 1)
    os.kill(next(worker.pid for worker in made.stats().workers if worker.job_id), signal.SIGKILL)
    assert made.get_result()["ERROR"] == "BossWorkerAsync: worker died (signal 9, SIGKILL)"
    made.add_work({"n": 2, "do": "nap", "seconds": 60})
    os.kill(made.boss_pid, signal.SIGKILL)
    with pytest.raises(BossDied) as caught:
        made.get_result()
    assert [one.job["n"] for one in caught.value.unfinished] == [2]

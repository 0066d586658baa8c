"""Times of any length, and what 0 and None mean: of a limit, that there is none; of a wait, not to wait, and no end."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from bossworker import BossWorker, run_command
from bossworker.system.checks import MAX_SECONDS
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
MONTH = 30 * 86400.0  # more than poll takes, in milliseconds, in 31 bits


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n")}


@pytest.mark.parametrize("seconds", [MONTH, MAX_SECONDS])
def test_a_wait_may_be_of_any_length(pool: Pool, seconds: float) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"n": 1, "seconds": 0.1})
    result = bw.get_result(timeout=seconds)
    assert result == {"n": 1}
    future = bw.submit({"n": 2, "seconds": 0.1})
    assert future.result(timeout=seconds) == {"n": 2}
    bw.add_work({"n": 3, "seconds": 0.1})
    bw.shut_down(timeout=seconds)
    assert bw.get_result() == {"n": 3}


def test_threads_that_wait_for_the_one_that_listens_may_wait_as_long(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work(*[{"seconds": 0.1}] * 3)
    got: list[Any] = []
    threads = [threading.Thread(target=lambda: got.append(bw.get_result(timeout=MAX_SECONDS))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(got) == 3


@pytest.mark.parametrize("seconds", [MONTH, MAX_SECONDS])
def test_a_limit_and_a_grace_may_be_of_any_length(pool: Pool, seconds: float) -> None:
    bw = pool(nap, worker_count=1, global_timeout=seconds, kill_grace=seconds)
    bw.add_work({"n": 1, "seconds": 0.1})
    bw.add_work({"n": 2, "seconds": 0.1}, timeout=seconds)
    assert sorted(result["n"] for result in bw.results()) == [1, 2]
    bw.add_work({"seconds": 300})
    wait_for(lambda: bw.stats().running)
    assert bw.get_result(timeout=0.2) is None


@pytest.mark.parametrize("seconds", [MONTH, MAX_SECONDS, None, 0])
def test_so_may_those_of_commands(pool: Pool, seconds: float | None) -> None:
    bw = pool(run_command, worker_count=1)
    bw.add_work({"cmd": ["sleep", "0.1"], "timeout": seconds})
    assert bw.get_result()["exit_code"] == 0


LIMITS = ("global_timeout", "max_pending", "max_jobs_per_worker", "max_worker_memory", "max_job_memory")


@pytest.mark.parametrize("nothing", [0, None])
def test_of_a_limit_both_mean_that_there_is_none(pool: Pool, nothing: int | None) -> None:
    bw = pool(nap, worker_count=1, **dict.fromkeys(LIMITS, nothing))
    (worker,) = bw.worker_pids
    bw.add_work(*({"n": n, "seconds": 0.01} for n in range(50)))
    assert len(list(bw.results())) == 50
    assert bw.worker_pids == (worker,)


def test_a_jobs_own_limit_of_0_is_none_and_none_is_the_pools(pool: Pool) -> None:
    bw = pool(nap, worker_count=1, global_timeout=0.2)
    bw.add_work({"seconds": 0.5}, timeout=0)
    assert bw.get_result().ok
    bw.add_work({"seconds": 300}, timeout=None)
    assert bw.get_result().error_kind == "timeout"


@pytest.mark.parametrize("how", [{"blocking": False}, {"timeout": 0}, {"blocking": False, "timeout": 0}])
def test_of_a_wait_0_means_not_to_wait(pool: Pool, how: dict[str, Any]) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"seconds": 300})
    assert bw.get_result(**how) is None
    with pytest.raises(TimeoutError):
        bw.shut_down(timeout=0)

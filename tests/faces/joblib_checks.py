"""joblib's ``Parallel`` on a pool. Run by `test_joblib.py`, in a process of their own."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import joblib
import pytest

import bossworker.joblib
from bossworker import WorkerDied
from bossworker.system import cpus

delayed, Parallel = joblib.delayed, joblib.Parallel


@pytest.fixture(autouse=True)
def backend() -> Iterator[Any]:
    with joblib.parallel_config(backend="bossworker", n_jobs=2) as config:
        yield config["backend"]
        executor = config["backend"]._executor
        if executor is not None:
            executor.kill_workers()


def square(n: int) -> int:
    return n * n


def fail(n: int) -> None:
    if n == 3:
        raise ValueError("rattle")
    time.sleep(300 if n > 3 else 0)


def test_calls_are_made_by_workers_that_stay(backend: Any) -> None:
    assert Parallel()(delayed(square)(n) for n in range(100)) == [n * n for n in range(100)]
    assert Parallel()(delayed(lambda n: -n)(n) for n in range(10)) == [-n for n in range(10)]
    first = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(50)))
    again = set(Parallel(batch_size=1)(delayed(os.getpid)() for _ in range(50)))
    assert os.getpid() not in first | again
    assert len(first | again) <= 2
    assert isinstance(backend, bossworker.joblib.BossWorkerBackend)


def test_many_small_calls_are_batched(backend: Any) -> None:
    assert sum(Parallel()(delayed(square)(n) for n in range(5000))) == sum(n * n for n in range(5000))


def test_results_as_they_come() -> None:
    results = Parallel(return_as="generator_unordered")(delayed(square)(n) for n in range(20))
    assert sorted(results) == [n * n for n in range(20)]
    assert list(Parallel(return_as="generator")(delayed(square)(n) for n in range(20))) == [n * n for n in range(20)]


def test_an_error_stops_what_runs(backend: Any) -> None:
    with pytest.raises(ValueError, match="rattle"):
        Parallel(batch_size=1, pre_dispatch="all")(delayed(fail)(n) for n in range(6))
    assert Parallel()(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_a_time_limit_stops_what_runs() -> None:
    with pytest.raises(multiprocessing.TimeoutError):
        Parallel(timeout=0.3, batch_size=1)(delayed(time.sleep)(300) for _ in range(3))
    assert Parallel()(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def test_a_worker_that_dies() -> None:
    with pytest.raises(WorkerDied) as caught:
        Parallel(batch_size=1)(delayed(os._exit)(3) for _ in range(3))
    assert isinstance(caught.value, BrokenProcessPool)
    assert Parallel()(delayed(square)(n) for n in range(4)) == [0, 1, 4, 9]


def die_once(path: Path) -> str:
    if not path.exists():
        path.touch()
        os._exit(1)
    return "done"


def test_settings_go_to_the_executor(tmp_path: Path) -> None:
    with joblib.parallel_config(backend="bossworker", n_jobs=2, retries=1):
        assert Parallel(batch_size=1)(delayed(die_once)(tmp_path / "died") for _ in range(1)) == ["done"]
    with joblib.parallel_config(backend="bossworker", n_jobs=2, inner_max_num_threads=1):
        assert set(Parallel()(delayed(os.getenv)("OMP_NUM_THREADS") for _ in range(4))) == {"1"}


def nested(n: int) -> list[int]:
    return list(Parallel(n_jobs=2)(delayed(square)(n) for n in range(n)))


def test_parallel_within_parallel() -> None:
    assert Parallel()(delayed(nested)(n) for n in range(4)) == [[], [0], [0, 1], [0, 1, 4]]


def test_numbers_of_workers(backend: Any) -> None:
    assert backend.effective_n_jobs(3) == 3
    assert backend.effective_n_jobs(None) == 1
    assert backend.effective_n_jobs(-1) == cpus.usable_cpus()
    assert backend.effective_n_jobs(-1000) == 1
    with pytest.raises(ValueError, match="no meaning"):
        backend.effective_n_jobs(0)
    assert Parallel(n_jobs=1)(delayed(os.getpid)() for _ in range(2)) == [os.getpid()] * 2
    assert backend._executor is None

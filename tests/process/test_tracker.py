"""multiprocessing's resource tracker, which pools keep running where it is loaded: each test begins without one."""

from __future__ import annotations

import multiprocessing
from multiprocessing import shared_memory

import pytest

from bossworker import BossWorker


def handle(job: dict[str, int]) -> None:
    """Nothing."""


TWICE = pytest.mark.parametrize("time", [1, 2])


@TWICE
def test_a_process_is_spawned(time: int) -> None:
    """Whose module keeps the tracker that it has loaded the first time."""
    process = multiprocessing.get_context("spawn").Process(target=len, args=([],))
    process.start()
    process.join()
    assert process.exitcode == 0


@TWICE
def test_a_pool_is_spawned_where_there_is_a_tracker(time: int) -> None:
    memory = shared_memory.SharedMemory(create=True, size=10)
    memory.close()
    memory.unlink()
    with BossWorker(handle, worker_count=1, start_method="spawn") as pool:
        assert pool.worker_pids

"""The contract of all pools, kept by those on engines: on a Dask cluster, and on an executor of processes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import wait_for
from tests.door.contract_handlers import work
from tests.door.test_contract import *  # noqa: F403
from tests.engines.conftest import Face, wait_for_batches


@pytest.mark.parametrize("size", [10_000, 1_500_000])  # type: ignore[no-redef]
def test_large_payloads(face: Face, kind: str, size: int) -> None:
    """As elsewhere; but none is larger than it takes to travel beside its task."""
    bw = face(kind, work, worker_count=2)
    bw.add_work(*({"n": n, "data": str(n) * size} for n in range(2)))
    found = {result["n"]: result["data"] for result in bw.results()}
    assert found == {n: str(n) * size for n in range(2)}


def held_back(job: dict[str, Any]) -> Any:
    """As `work`, but for a job that waits for a file."""
    if "until" in job:
        Path(job["started"]).touch()
        while not Path(job["until"]).exists():
            time.sleep(0.01)
    return work(job)


def test_times_retries_and_priorities_are_the_jobs_own(  # type: ignore[no-redef]
    face: Face, kind: str, tmp_path: Path
) -> None:
    """As elsewhere. But what the engine has begun is not overtaken: so it begins nothing before it has all jobs."""
    started, until = tmp_path / "started", tmp_path / "until"
    bw = face(kind, held_back, worker_count=1, global_timeout=30.0)
    bw.add_work({"n": 0, "started": str(started), "until": str(until)})
    wait_for(started.exists)
    bw.add_work({"do": "die", "n": 1}, retries=2)
    bw.add_work({"n": 2}, priority=-1)
    bw.add_work({"n": 3}, priority=1)
    bw.add_work({"do": "sleep", "seconds": 60, "n": 4}, timeout=0.1, priority=2)
    if kind == "dask":  # which has one batch more than it runs: the most urgent
        wait_for_batches(bw, 0, 2, queued=3)
    else:
        wait_for_batches(bw, 0, queued=4)
    until.touch()
    found = list(bw.results())
    results = {result.job["n"]: result for result in found}
    assert results[4]["ERROR"] == "BossWorkerAsync: timed out"
    assert results[4].error_kind == "timeout"
    assert results[1].attempts == 3
    # Which of two batches is told of first is the engine's affair.
    assert [result.job["n"] for result in sorted(found, key=lambda one: one.started_at)] == [0, 4, 3, 1, 2]

"""What a pool on an engine does besides the contract of all pools, and what it says that it cannot do."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, WorkerStartError
from bossworker.engines import executor_engine
from tests.conftest import wait_for
from tests.engines.conftest import Face

PATIENCE = 60.0  # seconds; a machine may be busy with other things


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "says" in job:
        print(job["says"], flush=True)
        logging.getLogger("elsewhere").warning("logged %s", job["says"])
    while "until" in job and not Path(job["until"]).exists():
        time.sleep(0.01)
    if "raises" in job:
        raise ValueError("rattle")
    return {"n": job.get("n"), "pid": os.getpid()}


def fail() -> None:
    raise ValueError("no licence")


def test_figures_by_node(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=2)
    bw.add_work(*({"n": n} for n in range(50)))
    pids = {result["pid"] for result in bw.results()}
    stats = bw.stats()
    assert (stats.done, stats.failed, stats.queued, stats.running) == (50, 0, 0, 0)
    (node,) = stats.nodes
    assert (node.workers, node.done, node.running) == (2, 50, 0)
    assert node.batches > 0
    assert {worker.node for worker in stats.workers} == {node.name}
    assert pids <= {worker.pid for worker in stats.workers}


def test_resize_counts_per_node(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    assert len(bw.worker_pids) == 1
    bw.resize(3)
    wait_for(lambda: len(bw.worker_pids) == 3, PATIENCE)
    bw.resize(1)
    wait_for(lambda: len(bw.worker_pids) == 1, PATIENCE)


def test_pause_and_resume(face: Face, kind: str, tmp_path: Path) -> None:
    bw = face(kind, work, worker_count=1)
    bw.pause()
    assert bw.stats().paused
    bw.add_work({"n": 1}, {"n": 2})
    assert bw.get_result(timeout=0.5) is None
    bw.resume()
    assert [result["n"] for result in bw.results()] == [1, 2]


def test_output_is_relayed(face: Face, kind: str, caplog: pytest.LogCaptureFixture) -> None:
    """Before the results of their jobs, so that a failed one has its last lines."""
    caplog.set_level(logging.INFO, "bossworker.job")
    bw = face(kind, work, worker_count=1, logs="relay")
    bw.add_work({"says": "good morning"})
    assert bw.get_result().ok
    told = [(one.name, one.getMessage()) for one in caplog.records]
    assert ("bossworker.job", "good morning") in told
    assert ("elsewhere", "logged good morning") in told
    bw.add_work({"says": "good night", "raises": True})
    assert "good night" in bw.get_result().log


def test_handlers_at_start_and_end(face: Face, kind: str) -> None:
    with pytest.raises(WorkerStartError, match="no licence"):
        face(kind, work, worker_count=1, init_handler=fail)
    bw = face(kind, work, worker_count=1, exit_handler=fail)
    bw.add_work({})
    with pytest.warns(RuntimeWarning, match="no licence"):
        bw.shut_down()
    assert bw.get_result().ok


def test_results_come_before_their_batch_is_through(face: Face, kind: str, tmp_path: Path) -> None:
    """A long job does not hold up what ran beside it; nor what is queued, where the engine lets a task make room."""
    bw = face(kind, work, worker_count=2)
    until = tmp_path / "until"
    short = 5 if kind == "dask" else 1
    bw.add_work({"n": 0, "until": str(until)}, *({"n": n} for n in range(1, short + 1)))
    assert sorted(bw.get_result()["n"] for _ in range(short)) == list(range(1, short + 1))
    until.touch()
    assert bw.get_result()["n"] == 0
    assert bw.pending() == 0


def test_closures_travel(face: Face, kind: str) -> None:
    factor = 7
    settings = {"worker_count": 1, "result_handler": lambda result: {"m": result["n"]}}
    bw = face(kind, lambda job: {"n": factor * job["n"]}, **settings)
    bw.add_work({"n": 6})
    assert bw.get_result() == {"m": 42}


def test_what_cannot_be(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    with pytest.raises(ValueError, match="has no door"):
        bw.listen()
    with pytest.raises(ValueError, match="keeps its handlers"):
        bw.reload(work)
    assert "Executor" in repr(bw) or "Dask cluster tcp://" in repr(bw)


def test_wrong_engines(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"engine must be a dask.distributed.Client, .* or None, not 17"):
        BossWorker(work, engine=17)
    with pytest.raises(ValueError, match="'dask://HOST:PORT'"):
        BossWorker(work, engine="slurm://here")
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="worker_count counts per node with an engine"):
            BossWorker(work, engine=executor, worker_count=0)

        class Mine(BossWorker):
            pass

        with pytest.raises(ValueError, match=r"engine must be None for a subclass of BossWorker \(Mine\)"):
            Mine(work, engine=executor)
        with pytest.raises(ValueError, match="journal must be None with an engine"):
            BossWorker(work, engine=executor, journal=str(tmp_path / "jobs.db"))
        assert not (tmp_path / "jobs.db").exists()
        with pytest.raises(ValueError, match="kill_grace"):
            BossWorker(work, engine=executor, kill_grace=-1)
    with pytest.raises(WorkerStartError, match="ThreadPoolExecutor takes no tasks: cannot schedule new futures"):
        BossWorker(work, engine=executor)


def test_an_executor_of_threads_is_one_node(pool: Callable[..., BossWorker]) -> None:
    with ThreadPoolExecutor(3) as executor:
        bw = pool(work, engine=executor, worker_count=2)
        bw.add_work(*({"n": n} for n in range(1000)))
        assert sorted(result["n"] for result in bw.results()) == list(range(1000))
        assert len(bw.stats().nodes) == 1
        bw.shut_down()


def test_workers_on_other_machines_cannot_be_reached(
    pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Jobs run there, and what would need a line to them says so."""
    monkeypatch.setattr(executor_engine, "_is_local", lambda spec: False)
    until = tmp_path / "until"
    with ThreadPoolExecutor(1) as executor:
        bw = pool(work, engine=executor, worker_count=1)
        bw.add_work(*({"n": n} for n in range(10)))
        assert sorted(result["n"] for result in bw.results()) == list(range(10))
        (job_id,) = bw.add_work({"n": 10, "until": str(until)})
        with pytest.raises(ValueError, match="other machines"):
            wait_for(lambda: bw.stack(job_id))
        until.touch()
        assert bw.get_result()["n"] == 10
        bw.shut_down(force=True)

"""What a pool on an engine does besides the contract of all pools, and what it says that it cannot do."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker import AsyncBossWorker, BossWorker, WorkerStartError
from bossworker.engines import executor_engine
from bossworker.engines.adapter import finished
from bossworker.engines.home_line import HomeDoor
from tests.conftest import wait_for
from tests.engines.conftest import Face, check_what_is_refused

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


def test_a_node_is_known_when_the_pool_is_made(
    pool: Callable[..., BossWorker], process_executor: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However late the program's thread for the lines of nodes gets its turn."""
    started: list[Future[tuple[str, str]]] = []
    run = HomeDoor._run

    def run_late(door: HomeDoor) -> None:
        wait(started, timeout=1.0)  # the node has said that it is up, unless it waits for us
        time.sleep(0.2)
        run(door)

    def note_start(self: executor_engine.ExecutorEngine, events: Any) -> Future[str]:
        started.append(self._started)
        return start(self, events)

    start = executor_engine.ExecutorEngine.start
    monkeypatch.setattr(executor_engine.ExecutorEngine, "start", note_start)
    monkeypatch.setattr(HomeDoor, "_run", run_late)
    bw = pool(work, engine=process_executor, worker_count=2)
    assert len(bw.worker_pids) == 2


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


def test_reload(face: Face, kind: str, tmp_path: Path) -> None:
    """What was added before has the old handlers, or the new ones; what is added later has the new ones."""
    bw = face(kind, lambda job: {"old": job["n"]}, worker_count=1)
    bw.add_work({"n": 1})
    assert bw.get_result() == {"old": 1}
    bw.reload(lambda job: {"new": job["n"]})
    bw.add_work({"n": 2})
    assert bw.get_result() == {"new": 2}
    with pytest.raises(WorkerStartError, match=r"goes on with its old handlers.*no licence"):
        bw.reload(work, init_handler=fail)
    bw.add_work({"n": 3})
    assert bw.get_result() == {"new": 3}


def test_a_reload_does_not_interrupt(face: Face, kind: str, tmp_path: Path) -> None:
    bw = face(kind, work, worker_count=2)
    until = tmp_path / "until"
    bw.add_work({"n": 0, "until": str(until)})
    wait_for(lambda: bw.stats().running == 1, PATIENCE)
    bw.reload(lambda job: {"new": job["n"]})
    until.touch()
    assert bw.get_result()["n"] == 0
    bw.add_work({"n": 1})
    assert bw.get_result() == {"new": 1}


def test_a_node_that_has_missed_a_reload(pool: Callable[..., BossWorker], process_executor: Executor) -> None:
    """It takes up the new handlers before it runs what was added since."""
    bw = pool(lambda job: {"old": job["n"]}, engine=process_executor, worker_count=1)
    adapter = bw._adapter  # type: ignore[attr-defined]
    bw.add_work({"n": 1})
    assert bw.get_result() == {"old": 1}
    adapter.try_spec = lambda packed_spec: finished("")
    adapter.ask, ask = lambda request, nodes, seconds: finished({}), adapter.ask
    bw.reload(lambda job: {"new": job["n"]})
    bw.add_work({"n": 2})
    assert bw.get_result() == {"new": 2}
    adapter.ask = ask


def test_a_subclass(engine: Callable[[str], Any]) -> None:
    class Mine(BossWorker):
        added = 0

        def add_work(self, *jobs: Any, **options: Any) -> Any:
            self.added += len(jobs)
            return super().add_work(*jobs, **options)

    with Mine(work, engine=engine("processes"), worker_count=1) as bw:
        bw.add_work({"n": 1}, {"n": 2})
        assert sorted(result["n"] for result in bw.results()) == [1, 2]
        assert bw.added == 2
        assert isinstance(bw, Mine)
        assert type(bw).__name__ == "Mine"


def test_on_an_event_loop(engine: Callable[[str], Any], kind: str) -> None:
    async def main() -> None:
        async with AsyncBossWorker(work, engine=engine(kind), worker_count=1) as bw:
            assert (await bw.run({"n": 1}))["n"] == 1
            assert sorted([result["n"] async for result in bw.map({"n": n} for n in range(200))]) == list(range(200))
            running = asyncio.create_task(bw.run({"n": 2, "until": "/never"}))
            while not (await bw.stats()).running:
                await asyncio.sleep(0.01)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            await bw.reload(lambda job: {"new": job["n"]})
            assert await bw.run({"n": 3}) == {"new": 3}
            with pytest.raises(WorkerStartError, match="no licence"):
                await bw.reload(work, init_handler=fail)
            assert len((await bw.stats()).nodes) == 1

    asyncio.run(main())


def test_a_start_on_an_event_loop_that_fails(engine: Callable[[str], Any], kind: str) -> None:
    async def main() -> None:
        with pytest.raises(WorkerStartError, match="no licence"):
            async with AsyncBossWorker(work, engine=engine(kind), worker_count=1, init_handler=fail):
                pass

    asyncio.run(main())


def test_an_executor(engine: Callable[[str], Any], kind: str) -> None:
    with bossworker.Executor(1, engine=engine(kind), timeout=60.0) as executor:
        assert executor.submit(pow, 2, 10).result() == 1024
        assert list(executor.map(lambda n: n * n, range(100))) == [n * n for n in range(100)]
        with pytest.raises(bossworker.WorkerDied):
            executor.submit(os._exit, 3).result()
        with pytest.raises(ValueError, match="rattle"):
            executor.submit(work, {"raises": True}).result()
        assert executor.stats().nodes


def test_an_executor_has_a_pool_or_an_engine(face: Face, engine: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match="engine must be None with a pool"):
        bossworker.Executor(engine=engine("processes"), pool=face("processes", work, worker_count=1))


def test_what_cannot_be(face: Face, kind: str) -> None:
    bw = face(kind, work, worker_count=1)
    check_what_is_refused(bw)
    assert "Executor" in repr(bw) or "Dask cluster tcp://" in repr(bw)


def test_wrong_engines() -> None:
    with pytest.raises(TypeError, match=r"engine must be a dask.distributed.Client, .* or None, not 17"):
        BossWorker(work, engine=17)
    with pytest.raises(ValueError, match="'dask://HOST:PORT'"):
        BossWorker(work, engine="slurm://here")
    with ThreadPoolExecutor(1) as executor:
        with pytest.raises(ValueError, match="worker_count counts per node with an engine"):
            BossWorker(work, engine=executor, worker_count=0)

        with pytest.raises(ValueError, match="kill_grace"):
            BossWorker(work, engine=executor, kill_grace=-1)
    with pytest.raises(WorkerStartError, match="ThreadPoolExecutor takes no tasks: cannot schedule new futures"):
        BossWorker(work, engine=executor)


def test_nobody_at_the_address() -> None:
    """The error names what was given, and what to do; and nothing is left of the try."""
    pytest.importorskip("distributed")
    from dask import config

    with socket.socket() as taken:  # where nobody listens
        taken.bind(("127.0.0.1", 0))
        address = f"dask://127.0.0.1:{taken.getsockname()[1]}"
        with (
            config.set({"distributed.comm.timeouts.connect": "0.3s"}),
            pytest.raises(WorkerStartError, match=f"engine='{address}': no scheduler answers there .*dask scheduler"),
        ):
            BossWorker(work, engine=address)
    for wrong in ("dask://", "dask://nowhere"):
        with pytest.raises(ValueError, match="engine must be 'dask://HOST:PORT'"):
            BossWorker(work, engine=wrong)


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

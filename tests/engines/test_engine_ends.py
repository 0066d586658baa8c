"""The engine is restarted, or ends, in mid-work, by order of the program: each job has one Result, or is unfinished."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, CommandHandler, jobs
from tests.conftest import wait_for
from tests.engines.conftest import Face, pool_processes
from tests.engines.marks import PATIENCE, leave_a_mark, runs
from tests.engines.test_losses import all_there_is, cluster, of_dask


@of_dask
@pytest.mark.parametrize("retries", [0, 1])
def test_the_client_restarts_its_cluster(
    tmp_path: Path, pool: Callable[..., BossWorker], dask_client: Any, retries: int
) -> None:
    """Dask forgets all tasks, and starts all workers anew. What ran is lost, or tried again; the rest runs there."""
    bw = pool(leave_a_mark, engine=dask_client, worker_count=1, retries=retries)
    bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(4)))
    wait_for(lambda: runs(tmp_path), PATIENCE)
    dask_client.restart(timeout=PATIENCE)
    (tmp_path / "go").touch()
    results = {result.job["n"]: result for result in bw.results()}
    assert {n: (result.error_kind, result.attempts) for n, result in results.items()} == {
        0: (None, 2) if retries else ("crash", 1),
        **dict.fromkeys(range(1, 4), (None, 1)),
    }
    assert "node lost (tcp://" in (results[0].error or "") or retries
    assert runs(tmp_path) == Counter(range(4)) + Counter([0] * retries)
    bw.shut_down()


@of_dask
@pytest.mark.parametrize("what", ["cluster", "client"])
def test_a_cluster_or_a_client_is_closed(tmp_path: Path, pool: Callable[..., BossWorker], what: str) -> None:
    """The program hears of it, and of all jobs."""
    with cluster(1) as (local, client):
        bw = pool(leave_a_mark, engine=client, worker_count=1)
        bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(6)))
        wait_for(lambda: runs(tmp_path), PATIENCE)
        (local if what == "cluster" else client).close()
        seen, unfinished = all_there_is(bw, "the connection to the scheduler is")
        assert sorted([result.job["n"] for result in seen] + [job.job["n"] for job in unfinished]) == list(range(6))
        assert {job.job["n"]: job.may_have_run for job in unfinished}[5] is False
        ran = runs(tmp_path)  # a worker that is being closed may begin one more
        assert max(ran.values()) == 1
        assert set(ran) <= {result.job["n"] for result in seen} | {
            one.job["n"] for one in unfinished if one.may_have_run
        }
        bw.shut_down(force=True)
        if what == "cluster":
            wait_for(lambda: not pool_processes(), PATIENCE)


@of_dask
def test_what_had_not_got_to_dask_has_not_run(
    tmp_path: Path, pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    with cluster(1) as (_, client):
        bw = pool(leave_a_mark, engine=client, worker_count=1)
        adapter = bw._adapter  # type: ignore[attr-defined]
        monkeypatch.setattr(adapter, "_make_token", lambda *_: asyncio.sleep(PATIENCE))
        bw.add_work({"n": 0, "folder": str(tmp_path), "waits": True})
        wait_for(lambda: adapter._batches, PATIENCE)
        client.close()
        assert [one.may_have_run for one in all_there_is(bw, "the connection to the scheduler is")[1]] == [False]
        bw.shut_down(force=True)


def of_processes() -> Executor:
    return ProcessPoolExecutor(2, mp_context=get_context("spawn"))


def of_threads() -> Executor:
    return ThreadPoolExecutor(2)


def wait_for_file(job: dict[str, Any]) -> dict[str, Any]:
    Path(job["until"]).with_suffix(".begun").touch()
    while not Path(job["until"]).exists():
        time.sleep(0.01)
    return {"n": job["n"]}


@pytest.mark.parametrize("cancel", [False, True])
@pytest.mark.parametrize("make", [of_processes, of_threads])
def test_an_executor_is_shut_down(
    tmp_path: Path, pool: Callable[..., BossWorker], make: Callable[[], Executor], cancel: bool
) -> None:
    """It takes no more, but what it runs comes to its end: so that is waited for. The rest has not begun."""
    files = [tmp_path / str(n) for n in range(6)]
    with make() as executor:
        bw = pool(wait_for_file, engine=executor, worker_count=2)
        try:
            for n, file in enumerate(files):
                bw.add_work({"n": n, "until": str(file)}, timeout=1000.0 + n)  # each of them is a batch
            wait_for(lambda: all(file.with_suffix(".begun").exists() for file in files[:2]), PATIENCE)
            executor.shutdown(wait=False, cancel_futures=cancel)
            files[0].touch()
            assert bw.get_result()["n"] == 0
            wait_for(lambda: bw.stats().start_error, PATIENCE)  # one more was refused
        finally:
            for file in files:  # also of what the executor has, though it has not begun, unless it was to cancel that
                file.touch()
        seen, unfinished = all_there_is(bw, "cannot schedule new futures after shutdown")
        assert all(result.ok for result in seen)
        assert sorted([0, *(result["n"] for result in seen), *(job.job["n"] for job in unfinished)]) == list(range(6))
        assert 1 in [result["n"] for result in seen]
        assert not [job for job in unfinished if job.may_have_run]
        bw.shut_down(force=True)


def test_job_directories_are_on_the_node(face: Face, kind: str, tmp_path: Path) -> None:
    """Where program and nodes have one root, `jobs` knows them in the program, too."""
    root = tmp_path / "root"
    bw = face(kind, CommandHandler(root=root), worker_count=1)
    bw.add_work({"cmd": ["sh", "-c", "echo out; echo err >&2; echo left > file; exit 3"]})
    (result,) = bw.results()
    assert (result["exit_code"], result["stdout"]) == (3, "out\n")
    jobid = result["jobid"]
    assert jobs.status(jobid, root=root) == "terminated by error"
    assert (info := jobs.info(jobid, root=root)) is not None
    assert info.exit_code == 3
    assert (jobs.stdout(jobid, root=root), jobs.stderr(jobid, root=root)) == ("out\n", "err\n")
    assert jobs.result_list(jobid, root=root) == ["file"]
    assert jobs.result(jobid, "file", root=root) == "left\n"
    assert jobs.status(jobid, root=tmp_path / "another machine's") == "unknown"
    assert jobs.stdout(jobid, root=tmp_path / "another machine's") == ""
    bw.add_work({"cmd": ["sleep", "60"]})
    wait_for(lambda: len(jobs.listing(root=root)) == 2, PATIENCE)
    (running,) = set(jobs.listing(root=root)) - {jobid}
    wait_for(lambda: jobs.status(running, root=root) == "running", PATIENCE)
    assert jobs.signal(running, 15, root=root)
    assert bw.get_result()["signal"] == 15

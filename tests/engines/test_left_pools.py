"""No part of a pool is left on a node, though it was started where, or when, the program knew nothing of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.engines.node_messages import Body
from tests.conftest import wait_for
from tests.engines.conftest import pool_processes
from tests.engines.marks import PATIENCE, leave_a_mark, runs

SOON = 15.0  # seconds; what is left ends by itself after 30


@pytest.fixture
def grown(dask_client: Any) -> Iterator[Callable[[], str]]:
    """Gives the cluster one more worker; its address."""

    def grow() -> str:
        before = set(dask_client.nthreads())
        dask_client.cluster.scale(2)
        dask_client.wait_for_workers(2, timeout=PATIENCE)
        (added,) = set(dask_client.nthreads()) - before
        return str(added)

    yield grow
    dask_client.cluster.scale(1)
    wait_for(lambda: len(dask_client.nthreads()) == 1, PATIENCE)


@pytest.mark.parametrize("force", [False, True])
def test_on_a_node_that_has_not_been_noticed(
    tmp_path: Path,
    pool: Callable[..., BossWorker],
    dask_client: Any,
    grown: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
    force: bool,
) -> None:
    """It runs batches before the program has looked which nodes there are."""
    dask_engine = pytest.importorskip("bossworker.engines.dask_engine")
    monkeypatch.setattr(dask_engine, "LOOK_SECONDS", 1000.0)
    bw = pool(leave_a_mark, engine=dask_client, worker_count=1)
    added = grown()
    bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(2)))
    wait_for(lambda: len(runs(tmp_path)) == 2, PATIENCE)
    assert added not in bw._adapter._threads  # type: ignore[attr-defined]
    (tmp_path / "go").touch()
    assert len(list(bw.results())) == 2
    bw.shut_down(force=force)
    wait_for(lambda: not pool_processes(), SOON)


def test_by_a_batch_that_comes_late(
    tmp_path: Path,
    pool: Callable[..., BossWorker],
    dask_client: Any,
    grown: Callable[[], str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Dask runs tasks of a dead worker again, also once the pool has ended, and on a worker that is new."""
    dask_engine = pytest.importorskip("bossworker.engines.dask_engine")
    given: list[tuple[bytes, Body]] = []
    run = dask_engine.DaskEngine.run

    def note_and_run(self: Any, number: int, order: bytes, body: Body, priority: int) -> None:
        given.append((order, body))
        run(self, number, order, body, priority)

    monkeypatch.setattr(dask_engine.DaskEngine, "run", note_and_run)
    bw = pool(leave_a_mark, engine=dask_client, worker_count=1)
    bw.add_work({"n": 0, "folder": str(tmp_path)})
    assert bw.get_result().ok
    spec, token = bw._adapter.packed_spec, f"{bw._adapter._prefix}-1"  # type: ignore[attr-defined]
    bw.shut_down()
    again = dask_client.submit(dask_engine.run_on_dask, spec, *given[0], token, workers=[grown()], pure=False)
    answer = dask_engine._read(*again.result(timeout=PATIENCE))
    assert (answer.verdict, answer.reason) == ("unstarted", "the pool has been shut down")
    assert not pool_processes()


def test_while_it_is_being_started(tmp_path: Path, pool: Callable[..., BossWorker]) -> None:
    """By a process of an executor: it finds nobody any more whom it could tell of it."""

    def start() -> None:
        """Quickly on the first node; on the second, not before it is let go."""
        try:
            (tmp_path / "first").touch(exist_ok=False)
        except FileExistsError:
            (tmp_path / "second").touch()
            while not (tmp_path / "go").exists():
                time.sleep(0.01)

    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        bw = pool(leave_a_mark, engine=executor, worker_count=1, init_handler=start)
        bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(2)))
        wait_for((tmp_path / "second").exists, PATIENCE)
        bw.shut_down(force=True)
        (tmp_path / "go").touch()
        wait_for(lambda: not pool_processes(), SOON)

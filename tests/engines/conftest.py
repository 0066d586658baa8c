"""Engines, which are started once for all tests: a cluster of Dask's on this machine, and an executor of processes."""

from __future__ import annotations

import copyreg
import gc
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import current_process, forkserver, get_context
from pathlib import Path
from typing import Any

import cloudpickle
import pytest

from bossworker import BossWorker, BossWorkerError
from bossworker.system import processes
from tests.conftest import LEAVE_SECONDS, end_resource_tracker, wait_for
from tests.engines.marks import PATIENCE

ENGINES = ("dask", "processes")
Face = Callable[..., BossWorker]


@pytest.fixture(scope="module", autouse=True)
def handlers_travel_by_value(request: pytest.FixtureRequest) -> Iterator[None]:
    """Or each worker would load the module of the test, with pytest: more work than the test."""
    cloudpickle.register_pickle_by_value(request.module)
    yield
    cloudpickle.unregister_pickle_by_value(request.module)


@pytest.fixture(scope="package", autouse=True)
def others_are_not_concerned() -> Iterator[None]:
    """Dask has exceptions pickled in a way of its own, and executors leave a resource tracker: not for other tests."""
    yield
    for kind, reduce in list(copyreg.dispatch_table.items()):
        if getattr(getattr(reduce, "func", reduce), "__module__", "").startswith("tblib"):
            del copyreg.dispatch_table[kind]
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    end_resource_tracker()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process of a pool behind, or a file. Engines live on, with what they have open."""
    before = pool_traces()
    yield
    deadline = time.monotonic() + LEAVE_SECONDS
    while (left := pool_traces() - before) and time.monotonic() < deadline:
        gc.collect()
        time.sleep(0.02)
    assert not left, f"left behind: {sorted(left)}"


def pool_traces() -> set[str]:
    """The processes of pools below this one, and their files."""
    names = [name for folder in (tempfile.gettempdir(), "/dev/shm") for name in os.listdir(folder)]
    return pool_processes() | {f"file {name}" for name in names if "bossworker" in name}


def pool_processes() -> set[str]:
    return {f"process {pid} {title}" for pid in descendants(os.getpid()) if (title := pool_title(pid))}


def descendants(pid: int) -> Iterator[int]:
    for child in processes.children(pid):
        yield child
        yield from descendants(child)


def pool_title(pid: int) -> str:
    """What a process of a pool is called; of others, nothing."""
    with suppress(OSError):
        title = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        if title.startswith("bossworker ") or "bossworker.pool.launch" in title:
            return title
    return ""


NO_LOOKS = {
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
    "distributed.admin.system-monitor.interval": "10s",
    "distributed.worker.memory.monitor-interval": "1s",
}
"""For a cluster that has nothing to do most of the time, and looks at itself a hundred times a second."""


@contextmanager
def quick_nodes() -> Iterator[None]:
    """Dask's nannies fork their workers from a process that has loaded Dask: each would take a second to do so."""
    from dask import config

    # Or multiprocessing makes a folder for the process's socket that it misses at exit, when ours is tidied away.
    current_process()._config.setdefault("tempdir", tempfile.mkdtemp(prefix="pymp-"))  # type: ignore[attr-defined]
    with config.set({"distributed.worker.multiprocessing-method": "forkserver", **NO_LOOKS}):
        yield


@pytest.fixture(scope="package")
def dask_client() -> Iterator[Any]:
    """A client of a cluster with one worker, which runs one task at a time."""
    distributed = pytest.importorskip("distributed")
    with (
        quick_nodes(),
        distributed.LocalCluster(n_workers=1, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster, set_as_default=False) as client,
    ):
        yield client


@pytest.fixture(scope="package")
def process_executor() -> Iterator[Executor]:
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        yield executor


@pytest.fixture
def engine(request: pytest.FixtureRequest) -> Callable[[str], Any]:
    """The engine of that name."""
    fixtures = {"dask": "dask_client", "processes": "process_executor"}
    return lambda kind: request.getfixturevalue(fixtures[kind])


@pytest.fixture(params=ENGINES)
def kind(request: pytest.FixtureRequest) -> str:
    """Which engine."""
    return str(request.param)


@pytest.fixture
def face(pool: Callable[..., BossWorker], engine: Callable[[str], Any]) -> Face:
    """Makes a pool on an engine."""
    return lambda kind, handler, **settings: pool(handler, engine=engine(kind), **settings)


def wait_for_batches(bw: BossWorker, *priorities: int, queued: int) -> None:
    """Wait until the engine has batches of these priorities, and so many jobs are queued in the program."""
    book = bw._connection.line.batches.book  # type: ignore[attr-defined]

    def found() -> tuple[list[int], int]:
        return sorted(flight.batch.job_options.priority for flight in list(book.flights.values())), book.queue.jobs

    wait_for(lambda: found() == (sorted(priorities), queued), PATIENCE)


def check_what_is_refused(bw: BossWorker) -> None:
    """What no pool on an engine has."""
    with pytest.raises(ValueError, match="has no door"):
        bw.listen()
    with pytest.raises(ValueError, match="has no page"):
        bw.web()
    with pytest.raises(BossWorkerError, match="has no operators"):
        bw.operator.now()

"""Nodes, nannies, the scheduler and the program are killed in mid-batch: each job has one Result, none runs twice."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker, Result, UnfinishedJob
from bossworker.engines import engine_pool, line_beats, line_orders
from bossworker.system import identity
from tests.conftest import alive, wait_for
from tests.engines.conftest import descendants, pool_processes, pool_traces, quick_nodes
from tests.engines.marks import PATIENCE, leave_a_mark, runs

of_dask = pytest.mark.once(
    "what Dask does when it loses something, which is one release for all; ours is in other tests"
)


@contextmanager
def cluster(workers: int, **settings: Any) -> Iterator[tuple[Any, Any]]:
    """A Dask cluster of this test's own, and a client."""
    distributed = pytest.importorskip("distributed")
    with (
        quick_nodes(),
        distributed.LocalCluster(workers, threads_per_worker=1, dashboard_address=":0", **settings) as local,
        distributed.Client(local, set_as_default=False) as client,
    ):
        yield local, client


class Elsewhere(Executor):
    """One whose processes nobody here knows; it may run each task several times."""

    def __init__(self, executor: Executor, times: int = 1) -> None:
        self._executor = executor
        self._times = times

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        first, *_ = [self._executor.submit(fn, *args, **kwargs) for _ in range(self._times)]
        return first


@contextmanager
def on_another_machine() -> Iterator[None]:
    """As far as nodes are told of this program."""
    place = [*identity.own()[:-1], "another host"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(identity, "own", lambda: place)
        yield


def all_there_is(bw: BossWorker, why: str) -> tuple[list[Result], list[UnfinishedJob]]:
    """The results until the pool is found dead, and what it says is unfinished."""
    seen: list[Result] = []
    with pytest.raises(BossDied, match=why) as caught:
        seen.extend(iter(bw.get_result, None))
    return seen, caught.value.unfinished


@pytest.fixture
def two_nodes(dask_client: Any) -> Iterator[Any]:
    """The client, while its cluster has two workers. Those that are killed are replaced."""
    dask_client.cluster.scale(2)
    dask_client.wait_for_workers(2, timeout=PATIENCE)
    yield dask_client
    dask_client.cluster.scale(1)
    wait_for(lambda: len(dask_client.nthreads()) == 1, PATIENCE)


def pids_of(client: Any) -> dict[str, int]:
    """The processes of a cluster's workers."""
    return dict(client.run(os.getpid))


def kill_a_node(client: Any) -> None:
    """With what it runs: until that is gone, it may begin other jobs."""
    node = next(iter(pids_of(client).values()))
    family = [node, *descendants(node)]
    os.kill(node, signal.SIGKILL)
    wait_for(lambda: not any(map(alive, family)), PATIENCE)


@of_dask
@pytest.mark.parametrize("retries", [0, 1])
def test_a_node_is_killed(tmp_path: Path, two_nodes: Any, pool: Callable[..., BossWorker], retries: int) -> None:
    """What it ran is lost, or tried again; what nobody had begun runs elsewhere. Dask runs the task again, in vain."""
    bw = pool(leave_a_mark, engine=two_nodes, retries=retries)
    bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(8)))
    wait_for(lambda: len(runs(tmp_path)) == 2, PATIENCE)
    begun = set(runs(tmp_path))
    kill_a_node(two_nodes)
    (tmp_path / "go").touch()
    results = {result.job["n"]: result for result in bw.results()}
    assert set(results) == set(range(8))
    failed = [result for result in results.values() if not result.ok]
    again = [result for result in results.values() if result.attempts == 2]
    if retries:
        assert not failed
        assert len(again) == 1
        assert again[0].job["n"] in begun
    else:
        assert [result.error_kind for result in failed] == ["crash"]
        assert failed[0].job["n"] in begun
        assert "node lost (tcp://" in (failed[0].error or "")
    assert runs(tmp_path) == Counter(range(8)) + Counter(result.job["n"] for result in again)


@of_dask
def test_the_last_node_is_killed_and_another_comes(
    tmp_path: Path, dask_client: Any, pool: Callable[..., BossWorker]
) -> None:
    """Its nanny starts one; what had not begun runs there, with the handlers that the pool has by then."""
    bw = pool(leave_a_mark, engine=dask_client)
    bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(3)))
    wait_for(lambda: runs(tmp_path), PATIENCE)
    kill_a_node(dask_client)
    (tmp_path / "go").touch()
    results = {result.job["n"]: result.ok for result in bw.results()}
    assert results == {0: False, 1: True, 2: True}
    assert runs(tmp_path) == Counter(range(3))


@pytest.mark.parametrize("which", ["boss", "worker"])
def test_what_is_killed_on_a_node_is_replaced(dask_client: Any, pool: Callable[..., BossWorker], which: str) -> None:
    bw = pool(lambda job: {"pids": (os.getpid(), os.getppid())}, engine=dask_client, worker_count=1)
    bw.add_work({})
    worker, fork_server = bw.get_result()["pids"]
    boss = int(Path(f"/proc/{fork_server}/stat").read_text().rpartition(")")[2].split()[1])
    os.kill(worker if which == "worker" else boss, signal.SIGKILL)
    wait_for(lambda: not alive(worker), PATIENCE)
    bw.add_work(*({} for _ in range(5)))
    results = list(bw.results())
    assert len(results) == 5
    assert results[-1].ok


@of_dask
def test_the_nanny_is_killed(tmp_path: Path, pool: Callable[..., BossWorker], commands: Commands) -> None:
    """Its worker ends with it, and so does the part of the pool that is there."""
    distributed = pytest.importorskip("distributed")
    commands.start_scheduler()
    nanny = commands.start_worker()
    commands.start_worker("--no-nanny")
    with distributed.Client(commands.address, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=PATIENCE)
        bw = pool(leave_a_mark, engine=f"dask://{commands.address.removeprefix('tcp://')}")
        bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(4)))
        wait_for(lambda: len(runs(tmp_path)) == 2, PATIENCE)
        nanny.kill()
        wait_for(lambda: len(client.nthreads()) == 1, PATIENCE)
        (tmp_path / "go").touch()
        results = {result.job["n"]: result for result in bw.results()}
        assert sum(not result.ok for result in results.values()) == 1
        assert runs(tmp_path) == Counter(range(4))
        bw.shut_down()


@of_dask
def test_the_scheduler_is_killed(tmp_path: Path, pool: Callable[..., BossWorker], commands: Commands) -> None:
    """The program hears of it, and of each job without a result; nothing runs on."""
    distributed = pytest.importorskip("distributed")
    from dask import config

    scheduler = commands.start_scheduler()
    commands.start_worker("--no-nanny")
    quickly = {"distributed.comm.timeouts.connect": "2s"}  # for the client to give up
    with config.set(quickly), distributed.Client(commands.address, set_as_default=False) as client:
        client.wait_for_workers(1, timeout=PATIENCE)
        bw = pool(leave_a_mark, engine=client)
        bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(10)))
        wait_for(lambda: runs(tmp_path), PATIENCE)
        scheduler.kill()
        seen, unfinished = all_there_is(bw, "the engine is gone")
        assert len(seen) + len(unfinished) == 10
        assert {job.job["n"]: job.may_have_run for job in unfinished}[9] is False
        assert runs(tmp_path) == Counter([0])
        bw.shut_down(force=True)


PROGRAM = """
import sys
from pathlib import Path
from bossworker import BossWorker
from distributed import Client
from tests.engines.marks import leave_a_mark

if __name__ == "__main__":
    bw = BossWorker(leave_a_mark, engine=Client(sys.argv[1]))
    bw.add_work({"n": 0, "folder": sys.argv[2], "waits": True})
    bw.get_result()
"""


def test_the_program_is_killed(tmp_path: Path, dask_client: Any) -> None:
    """Nothing of its pool is left on the nodes."""
    script = tmp_path / "program.py"
    script.write_text(PROGRAM)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    address = dask_client.scheduler.address
    program = subprocess.Popen([sys.executable, str(script), address, str(tmp_path)], env=environment)
    wait_for(lambda: runs(tmp_path), PATIENCE)
    assert pool_traces()
    program.kill()
    program.wait()
    wait_for(lambda: not pool_traces(), PATIENCE)


def test_a_program_elsewhere_falls_silent(
    tmp_path: Path, dask_client: Any, pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a program on another machine, nodes know no more than when they heard of it last."""
    monkeypatch.setattr(engine_pool, "LEASE_SECONDS", 3.0)
    monkeypatch.setattr(line_beats, "BEAT_SECONDS", 0.2)
    with on_another_machine():
        bw = pool(leave_a_mark, engine=dask_client)
    bw.add_work({"n": 0, "folder": str(tmp_path), "waits": True})
    wait_for(lambda: runs(tmp_path), PATIENCE)
    time.sleep(4.0)  # longer than the lease
    assert pool_traces()
    bw._connection.line.beats.next_at += 1000.0  # type: ignore[attr-defined]
    wait_for(lambda: not pool_traces(), PATIENCE)
    assert "node lost" in (bw.get_result().error or "")


STOPPED = """
import sys
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from bossworker import BossWorker
from bossworker.engines import engine_pool
from tests.engines.marks import leave_a_mark

if __name__ == "__main__":
    engine_pool.LEASE_SECONDS = 1.0
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as executor:
        with BossWorker(leave_a_mark, engine=executor) as bw:
            bw.add_work({"n": 0, "folder": sys.argv[1], "waits": True})
            print(bw.get_result().error)
"""


def test_a_stopped_program_is_waited_for(tmp_path: Path) -> None:
    """By nodes that have a line to it: these see that it is there."""
    script = tmp_path / "program.py"
    script.write_text(STOPPED)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, str(script), str(tmp_path)]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        wait_for(lambda: runs(tmp_path), PATIENCE)
        program.send_signal(signal.SIGSTOP)
        time.sleep(2.5)  # longer than the lease
        program.send_signal(signal.SIGCONT)
        (tmp_path / "go").touch()
        assert program.stdout.read() == "None\n"


def test_nodes_of_an_executor_elsewhere_end_when_idle(
    tmp_path: Path, process_executor: Executor, pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not while they have a batch, however long that takes; and what comes later starts them again."""
    monkeypatch.setattr(engine_pool, "LEASE_SECONDS", 1.0)
    with on_another_machine():
        bw = pool(leave_a_mark, engine=Elsewhere(process_executor), worker_count=1)
    bw.add_work({"n": 0, "folder": str(tmp_path), "waits": True})
    wait_for(lambda: runs(tmp_path), PATIENCE)
    time.sleep(2.5)  # longer than the lease
    (tmp_path / "go").touch()
    assert bw.get_result().ok
    assert pool_processes()  # it does not end at once: the next batch may come
    wait_for(lambda: not pool_processes(), PATIENCE)
    bw.add_work({"n": 1, "folder": str(tmp_path)})
    assert bw.get_result().ok
    assert runs(tmp_path) == Counter(range(2))
    bw.shut_down()  # in order: by force, a node elsewhere may have to find out by itself


def test_a_node_that_was_stopped_keeps_nobody_waiting(
    tmp_path: Path, pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        bw = pool(leave_a_mark, engine=executor, worker_count=1)
        bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(2)))
        wait_for(lambda: len(runs(tmp_path)) == 2, PATIENCE)
        names = {node.name for node in bw.stats().nodes}
        assert len(names) == 2
        stopped = next(iter(executor._processes))  # which the public face does not tell
        others = [name for name in names if not name.endswith(f":{stopped}")]
        monkeypatch.setattr(line_orders, "ASK_SECONDS", 0.2)
        os.kill(stopped, signal.SIGSTOP)
        try:
            wait_for(lambda: [node.name for node in bw.stats().nodes] == others, PATIENCE)
            (tmp_path / "go").touch()
            assert bw.get_result().ok
        finally:
            os.kill(stopped, signal.SIGCONT)
            monkeypatch.undo()
        assert bw.get_result().ok
        assert {node.name for node in bw.stats().nodes} == names
        bw.shut_down()


def test_a_process_of_an_executor_is_killed(tmp_path: Path, pool: Callable[..., BossWorker]) -> None:
    """Such an executor is done for, as its own users know; each job that had begun has its result."""
    with ProcessPoolExecutor(2, mp_context=get_context("spawn")) as executor:
        bw = pool(leave_a_mark, engine=executor)
        bw.add_work(*({"n": n, "folder": str(tmp_path), "waits": True} for n in range(6)))
        wait_for(lambda: len(runs(tmp_path)) == 2, PATIENCE)
        begun = set(runs(tmp_path))
        os.kill(next(iter(executor._processes)), signal.SIGKILL)  # which the public face does not tell
        seen, unfinished = all_there_is(bw, "ProcessPoolExecutor")
        assert {result.job["n"] for result in seen} == begun
        assert {result.error_kind for result in seen} == {"crash"}
        assert {job.job["n"] for job in unfinished} == set(range(6)) - begun
        assert sum(job.may_have_run for job in unfinished) <= 1  # the executor takes one more than it has processes for
        assert runs(tmp_path) == Counter(begun)


@of_dask
def test_a_cluster_that_grows_and_shrinks(tmp_path: Path, pool: Callable[..., BossWorker]) -> None:
    """It has no worker at first. Those that leave, leave no job behind."""
    with cluster(0) as (local, client):
        bw = pool(leave_a_mark, engine=client, retries=5)  # it closes workers amid their tasks
        local.adapt(minimum=0, maximum=2, interval="50ms", wait_count=2, target_duration="100ms")
        bw.add_work(*({"n": n, "folder": str(tmp_path)} for n in range(200)))
        results = list(bw.results())
        assert [result for result in results if not result.ok] == []
        assert len(results) == 200
        wait_for(lambda: not client.nthreads(), PATIENCE)
        bw.add_work({"n": 200, "folder": str(tmp_path)})
        results.append(bw.get_result())
        assert results[-1].ok
        assert all(1 <= runs(tmp_path)[result.job["n"]] <= result.attempts for result in results)
        bw.shut_down()


def address_in(file: Path) -> str:
    """The scheduler's, once its file is written, which is not done at once."""
    with suppress(FileNotFoundError, ValueError):
        return str(json.loads(file.read_text())["address"])
    return ""


class Commands:
    """Scheduler and workers by Dask's own commands, each a process to be killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.address = ""
        self._started: list[subprocess.Popen[bytes]] = []

    def start_scheduler(self, host: str = "127.0.0.1") -> subprocess.Popen[bytes]:
        file = self.folder / "scheduler.json"
        options = ["--host", host, "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        process = self._start("dask_scheduler", *options)
        self.address = self._await(process, lambda: address_in(file))
        return process

    def _await(self, process: subprocess.Popen[bytes], condition: Callable[[], Any]) -> Any:
        """As long as the process lives, however busy the machine is with other things."""
        while not (value := condition()):
            if process.poll() is not None:
                pytest.fail(f"{process.args!r} ended: {(self.folder / 'log').read_text()[-5000:]}")
            time.sleep(0.01)
        return value

    def start_worker(
        self, *more: str, host: str = "127.0.0.1", address: str = "", before: tuple[str, ...] = ()
    ) -> subprocess.Popen[bytes]:
        options = ["--nthreads", "1", "--no-dashboard", "--host", host, "--local-directory", str(self.folder)]
        return self._start("dask_worker", address or self.address, *options, *more, before=before)

    def _start(self, module: str, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        log = (self.folder / "log").open("ab")
        command = [*before, sys.executable, "-m", f"distributed.cli.{module}", *arguments]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        log.close()
        self._started.append(process)
        return process

    def end(self) -> None:
        """By SIGKILL: a worker of Dask's that is sent SIGTERM while its scheduler closes it may never end."""
        for process in reversed(self._started):
            process.kill()
        for process in self._started:
            process.wait()


@pytest.fixture
def commands(tmp_path: Path) -> Iterator[Commands]:
    made = Commands(tmp_path)
    yield made
    made.end()

"""New handlers for a running pool: worker by worker, with no job lost, and none run by a mixture."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, PoolClosed, WorkerStartError, current_job, run_command
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
BOTH = pytest.mark.parametrize("start_method", ["fork", "spawn"])


def old(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 0))
    if "until" in job:
        wait_for(Path(job["until"]).exists)
    return {"by": "old", "init": started_by}


started_by: str | None = None


def start_old() -> None:
    global started_by
    started_by = "old"


def makes(name: str, ready: list[str] | None = None) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """A closure."""
    return lambda job: {"by": name, "ready": ready}


@BOTH
def test_a_closure_takes_over(pool: Pool, start_method: str) -> None:
    bw = pool(old, worker_count=2, start_method=start_method)
    pids = bw.worker_pids
    for name in ("one", "two"):
        bw.reload(makes(name))
        bw.add_work(*[{} for _ in range(100)])
        assert {r["by"] for r in bw.results()} == {name}
    wait_for(lambda: [w.state for w in bw.stats().workers] == ["idle"] * 2)
    assert not {*pids} & {*bw.worker_pids}
    assert sorted(w.index for w in bw.stats().workers) == [0, 1]
    assert bw.stats().failed_starts == 0


@BOTH
def test_no_job_is_lost_or_run_twice_while_it_rolls(pool: Pool, start_method: str, tmp_path: Path) -> None:
    path = str(tmp_path / "log")

    def write(job: dict[str, Any]) -> dict[str, Any]:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        os.write(fd, b"%d\n" % job["n"])
        os.close(fd)
        return {"pid": os.getpid()}

    bw = pool(write, worker_count=3, start_method=start_method)
    jobs = 3000 if start_method == "fork" else 1000
    ids = bw.add_work(*[{"n": n} for n in range(jobs)])
    for _ in range(3):
        bw.reload()
    results = list(bw.results())
    assert sorted(r.job_id for r in results) == list(ids)
    assert all(r.ok for r in results)
    assert sorted(map(int, Path(path).read_text().split())) == list(range(jobs))


def test_no_job_is_lost_though_workers_are_killed_meanwhile(pool: Pool) -> None:
    bw = pool(makes("0"), worker_count=3, retries=1000)
    ids = [*bw.add_work(*[{} for _ in range(500)])]

    def reload(name: str) -> None:
        with suppress(WorkerStartError):  # the one that tried was killed
            bw.reload(makes(name))

    for n in range(1, 5):
        reloading = threading.Thread(target=reload, args=(f"{n}",))
        reloading.start()
        for pid in bw.worker_pids[:2]:
            with suppress(ProcessLookupError):  # it has been replaced just now
                os.kill(pid, signal.SIGKILL)
        ids += bw.add_work(*[{} for _ in range(200)])
        reloading.join()
    results = list(bw.results())
    assert sorted(r.job_id for r in results) == ids
    assert {r.error for r in results} == {None}
    wait_for(lambda: [w.state for w in bw.stats().workers] == ["idle"] * 3)
    assert sorted(w.index for w in bw.stats().workers) == [0, 1, 2]


def test_handlers_go_together(pool: Pool) -> None:
    """None runs a new job after an old start, whichever of them is replaced."""
    bw = pool(old, worker_count=2, init_handler=start_old)

    def start_new() -> None:
        made["by"] = "new"

    made: dict[str, str] = {}
    bw.reload(lambda job: {"by": "new", **made}, init_handler=start_new)
    bw.add_work(*[{} for _ in range(50)])
    assert [dict(r) for r in bw.results()] == [{"by": "new"}] * 50
    bw.reload(lambda job: {**made, "init": "none"}, init_handler=None)
    bw.add_work({})
    assert dict(bw.get_result()) == {"init": "none"}


def test_the_old_exit_handler_runs_in_the_old_workers(pool: Pool, tmp_path: Path) -> None:
    def leave(name: str) -> Callable[[], None]:
        def touch() -> None:
            (tmp_path / f"{name} {os.getpid()}").touch()

        return touch

    bw = pool(old, worker_count=2, exit_handler=leave("old"))
    before = bw.worker_pids
    bw.reload(exit_handler=leave("new"))
    wait_for(lambda: [w.state for w in bw.stats().workers] == ["idle"] * 2)
    after = bw.worker_pids
    bw.shut_down()
    assert {path.name for path in tmp_path.iterdir()} == {f"old {p}" for p in before} | {f"new {p}" for p in after}


def test_a_job_that_runs_is_not_interrupted_and_those_added_later_are_not_for_its_worker(
    pool: Pool, tmp_path: Path
) -> None:
    bw = pool(old, worker_count=2)
    bw.add_work({"until": f"{tmp_path}/go"})
    wait_for(lambda: bw.stats().running)
    bw.reload(makes("new"))
    bw.add_work(*[{} for _ in range(20)])
    assert [bw.get_result()["by"] for _ in range(20)] == ["new"] * 20
    wait_for(lambda: len(bw.stats().workers) == 2)  # the one that made place leaves
    (tmp_path / "go").touch()
    assert bw.get_result()["by"] == "old"
    wait_for(lambda: [w.state for w in bw.stats().workers] == ["idle"] * 2)
    assert sorted(w.index for w in bw.stats().workers) == [0, 1]


def test_one_worker_alone_is_replaced_when_it_is_through(pool: Pool, tmp_path: Path) -> None:
    """Two never work at once: a pool of one worker may stand for a lock."""
    bw = pool(old, worker_count=1)
    bw.add_work({"until": f"{tmp_path}/go"}, {}, {})
    wait_for(lambda: bw.stats().running)
    reloading = threading.Thread(target=bw.reload, args=(makes("new"),))
    reloading.start()
    time.sleep(0.1)
    assert [w.state for w in bw.stats().workers] == ["busy"]
    (tmp_path / "go").touch()
    reloading.join()
    assert [r["by"] for r in bw.results()] == ["old", "new", "new"]


@BOTH
def test_an_init_that_fails_leaves_the_pool_as_it_was(pool: Pool, start_method: str) -> None:
    bw = pool(old, worker_count=2, init_handler=start_old, start_method=start_method)

    def fail() -> None:
        raise ValueError("no database")

    for _ in range(2):
        with pytest.raises(WorkerStartError, match=r"old handlers.*ValueError: no database") as raised:
            bw.reload(makes("new"), init_handler=fail)
        assert "in fail" in str(raised.value)
        bw.add_work(*[{} for _ in range(20)])
        assert {(r["by"], r["init"]) for r in bw.results()} == {("old", "old")}
        wait_for(lambda: [w.state for w in bw.stats().workers] == ["idle"] * 2)
        assert (bw.stats().failed_starts, bw.stats().start_error) == (0, None)
    bw.reload(makes("newer"))
    bw.add_work({})
    assert bw.get_result()["by"] == "newer"


def test_a_worker_that_dies_in_its_new_init_is_told_of(pool: Pool) -> None:
    bw = pool(old, worker_count=1)
    with pytest.raises(WorkerStartError, match=r"died before it was up \(exit code 3\)"):
        bw.reload(init_handler=lambda: os._exit(3))
    bw.add_work({})
    assert bw.get_result()["by"] == "old"


def test_handlers_that_cannot_travel_are_named(pool: Pool) -> None:
    bw = pool(old, worker_count=1)
    lock = threading.Lock()
    with pytest.raises(TypeError, match="work_handler must be something that cloudpickle takes along to be reloaded"):
        bw.reload(lambda job: {"locked": lock.locked()})
    shared = multiprocessing.get_context("fork").Lock()  # is inherited by a fork, and in no other way
    with pytest.raises(TypeError, match="init_handler must be something"):
        bw.reload(init_handler=shared.acquire)
    with pytest.raises(TypeError, match="exit_handler must be a callable or None, not 3"):
        bw.reload(exit_handler=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="work_handler must be a callable"):
        bw.reload("work")  # type: ignore[arg-type]
    bw.add_work({})
    assert bw.get_result()["by"] == "old"


def test_one_that_does_not_load_leaves_the_pool_as_it_was(pool: Pool) -> None:
    class Trap:
        def __call__(self, job: dict[str, Any]) -> dict[str, Any]:
            return {}

        def __reduce__(self) -> Any:
            return int, ("rattle",)

    bw = pool(old, worker_count=1)
    with pytest.raises(WorkerStartError, match="the handlers could not be loaded: ValueError"):
        bw.reload(Trap())
    bw.add_work({})
    assert bw.get_result()["by"] == "old"


def test_workers_that_do_not_come_up_any_more_can_be_helped(pool: Pool, tmp_path: Path) -> None:
    """Its successors fail in their init_handler, again and again; then it is reloaded with another."""
    mark = tmp_path / "fail"

    def start() -> None:
        if mark.exists():
            raise ValueError("not now")

    bw = pool(old, worker_count=1, init_handler=start)
    mark.touch()
    os.kill(bw.worker_pids[0], signal.SIGKILL)
    wait_for(lambda: bw.stats().failed_starts >= 2)
    bw.add_work({})
    bw.reload(makes("new"), init_handler=None)
    assert bw.get_result()["by"] == "new"


def test_successors_have_the_new_handlers_too(pool: Pool) -> None:
    bw = pool(old, worker_count=2)
    bw.reload(lambda job: os._exit(3) if job.get("die") else {"index": current_job().worker_index})  # type: ignore[union-attr]
    for _ in range(3):
        bw.add_work({"die": True}, {"die": True})
        assert [r.error_kind for r in bw.results()] == ["crash", "crash"]
    bw.add_work(*[{} for _ in range(10)])
    assert {r["index"] for r in bw.results()} <= {0, 1}


def test_a_paused_pool_is_reloaded(pool: Pool) -> None:
    bw = pool(old, worker_count=2)
    bw.pause()
    bw.add_work({})
    bw.reload(makes("new"))
    bw.resume()
    assert bw.get_result()["by"] == "new"


def test_two_threads_reload_one_after_the_other(pool: Pool) -> None:
    bw = pool(old, worker_count=2)
    threads = [threading.Thread(target=bw.reload, args=(makes(f"{n}"),)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bw.add_work(*[{} for _ in range(50)])
    assert len({r["by"] for r in bw.results()}) == 1


def test_what_the_new_handler_wants_done_to_jobs_is_done(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths of a command mean the caller's folder."""
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    (tmp_path / "there").mkdir()
    bw = pool(old, worker_count=1)
    bw.reload(run_command)
    monkeypatch.chdir(tmp_path)
    bw.add_work({"cmd": ["pwd"], "cwd": "there"})
    assert bw.get_result()["stdout"] == f"{tmp_path}/there\n"


def test_a_pool_that_has_ended_is_not_reloaded(pool: Pool) -> None:
    bw = pool(old, worker_count=1)
    bw.shut_down()
    with pytest.raises(PoolClosed):
        bw.reload(makes("new"))


def test_a_module_that_the_program_has_reloaded_is_reloaded(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / "changing_handlers.py"
    path.write_text("def work(job): return {'version': 1}")
    import importlib

    module = importlib.import_module("changing_handlers")
    try:
        bw = pool(module.work, worker_count=2)
        path.write_text("def work(job): return {'version': 2}  # and longer")
        importlib.reload(module)
        bw.reload(module.work)
        bw.add_work({}, {}, {})
        assert [r["version"] for r in bw.results()] == [2, 2, 2]
    finally:
        del sys.modules["changing_handlers"]


NOTEBOOK = """
    from bossworker import BossWorker

    cells = [
        "def helper(n): return n + 1\\ndef work(job): return {'n': helper(job['n'])}",
        "def helper(n): return n * 100",  # a cell of its own: work is the same function as before
        "factor = 7\\ndef work(job): return {'n': factor * job['n']}",
        "class Point:\\n    def __init__(self, x): self.x = x\\ndef work(job): return {'n': Point(job['n'])}",
    ]

    exec(cells[0], globals())
    with BossWorker(work, worker_count=1, start_method=METHOD) as pool:
        for cell in cells[1:]:
            pool.add_work({"n": 5})
            print(pool.get_result().raise_for_error()["n"])
            exec(cell, globals())
            pool.reload(work)
        pool.add_work({"n": 5})
        point = pool.get_result()["n"]
        print(type(point) is Point, point.x)
"""


@BOTH
def test_what_was_defined_anew_in_main_is_used(start_method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(NOTEBOOK).replace("METHOD", repr(start_method)))
    told = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False)
    assert (told.stdout.splitlines(), told.stderr) == (["6", "500", "35", "True 5"], "")

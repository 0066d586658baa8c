"""What a job has started when its time is up ends with it; what others have started stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JobTimeout, Result
from bossworker.system import processes
from tests.conftest import alive, wait_for

Pool = Callable[..., BossWorker]
LONG = "300"


def call(job: dict[str, Any]) -> dict[str, Any]:
    value: dict[str, Any] = job["do"]()
    return value


def note(path: Path, pid: int) -> None:
    with path.open("a") as file:
        file.write(f"{pid}\n")


def noted(path: Path, count: int = 1) -> list[int]:
    wait_for(lambda: path.exists() and path.read_text().count("\n") >= count)
    return list(map(int, path.read_text().split()))


def timed_out(bw: BossWorker, do: Callable[[], Any], timeout: float = 0.3) -> Result:
    bw.add_work({"do": do}, timeout=timeout)
    result = bw.get_result(timeout=60)
    assert isinstance(result, Result)
    assert result.error_kind == "timeout"
    return result


def test_what_a_shell_has_started_ends_with_the_job(pool: Pool, tmp_path: Path) -> None:
    bw = pool(call, worker_count=1, kill_grace=10)
    pids = tmp_path / "pids"
    command = f"sleep {LONG} & echo $! >> {pids}; sleep {LONG} | cat & echo $! >> {pids}; wait"
    worker = timed_out(bw, lambda: subprocess.run(command, shell=True, check=False)).worker_pid
    assert not any(map(alive, noted(pids, 2)))
    assert bw.worker_pids == (worker,), "and not with its worker"


def test_so_does_what_left_its_group_and_its_parent(pool: Pool, tmp_path: Path) -> None:
    def wander() -> None:
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                note(tmp_path / "pid", os.getpid())
                time.sleep(300)
            os._exit(0)
        noted(tmp_path / "pid")
        time.sleep(300)

    bw = pool(call, worker_count=1, kill_grace=10)
    timed_out(bw, wander, timeout=1.0)
    wait_for(lambda: not alive(noted(tmp_path / "pid")[0]))


def test_no_zombie_is_left_of_it(pool: Pool, tmp_path: Path) -> None:
    bw = pool(call, worker_count=1, kill_grace=10)
    for _ in range(3):
        timed_out(bw, lambda: subprocess.run(["sleep", LONG], check=False))
    (worker,) = bw.worker_pids
    assert processes.children(worker) == []


def test_a_cancelled_job_leaves_nothing_either(pool: Pool, tmp_path: Path) -> None:
    bw = pool(call, worker_count=1, kill_grace=10)
    path = tmp_path / "pid"
    (job,) = bw.add_work(
        {"do": lambda: subprocess.run(f"echo $$ > {path}; sleep {LONG} | cat", shell=True, check=False)}
    )
    (shell,) = noted(path)
    assert bw.cancel(job) == 1
    assert bw.get_result().error_kind == "cancelled"
    assert not alive(shell)


def test_servers_of_an_init_handler_and_of_earlier_jobs_live_on(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "pids"

    def start(group: bool = False) -> dict[str, Any]:
        child = subprocess.Popen(["sleep", LONG], start_new_session=group)
        child.returncode = 0  # nobody waits for it
        note(path, child.pid)
        return {}

    def init() -> None:
        start()
        start(group=True)

    bw = pool(call, worker_count=1, kill_grace=10, init_handler=init)
    bw.add_work({"do": start})
    assert bw.get_result().ok
    for _ in range(2):
        timed_out(bw, lambda: subprocess.run(["sleep", LONG], check=False))
    assert len(noted(path, 3)) == 3
    assert all(map(alive, noted(path, 3)))


def test_what_a_server_starts_meanwhile_lives_on_with_its_group(pool: Pool, tmp_path: Path) -> None:
    """A server that forks twice: the child becomes the worker's, and is in the server's group."""
    path, go = tmp_path / "pid", tmp_path / "go"
    server = f"while [ ! -e {go} ]; do sleep 0.01; done; (sleep {LONG} & echo $! > {path}); exec sleep {LONG}"

    def init() -> None:
        subprocess.Popen(server, shell=True, start_new_session=True).returncode = 0

    def trigger() -> None:
        go.touch()
        noted(path)
        time.sleep(300)

    bw = pool(call, worker_count=1, kill_grace=10, init_handler=init)
    timed_out(bw, trigger, timeout=1.0)
    assert alive(noted(path)[0])


def test_an_earlier_job_of_the_same_batch_keeps_what_it_has_started(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    def leave() -> dict[str, Any]:
        child = subprocess.Popen(["sleep", LONG])
        child.returncode = 0
        note(path, child.pid)
        time.sleep(0.1)  # more than a tick of the clock by which ages are told
        return {}

    bw = pool(call, worker_count=1, kill_grace=10)
    bw.add_work({"do": leave}, {"do": lambda: time.sleep(300)}, timeout=1.0)
    kinds = [result.error_kind for result in bw.results()]
    assert kinds == [None, "timeout"]
    assert alive(noted(path)[0])


def test_a_handler_that_catches_it_keeps_what_it_wants(pool: Pool, tmp_path: Path) -> None:
    path = tmp_path / "pid"

    def catch() -> dict[str, Any]:
        child = subprocess.Popen(["sleep", LONG])
        child.returncode = 0
        note(path, child.pid)
        with suppress(JobTimeout):
            time.sleep(300)
        return {"caught": True}

    bw = pool(call, worker_count=1, kill_grace=10)
    bw.add_work({"do": catch}, timeout=0.3)
    assert bw.get_result() == {"caught": True}
    assert alive(noted(path)[0])


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere children cannot be listed")
def test_what_does_not_end_at_once_holds_nobody_up(pool: Pool, tmp_path: Path) -> None:
    """A stopped child is killed all the same; one that takes its time goes with the worker."""
    path = tmp_path / "pid"

    def stop() -> None:
        child = subprocess.Popen(["sleep", LONG])
        note(path, child.pid)
        child.send_signal(signal.SIGSTOP)
        child.wait()

    bw = pool(call, worker_count=1, kill_grace=10)
    timed_out(bw, stop)
    wait_for(lambda: not alive(noted(path)[0]))

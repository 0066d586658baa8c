"""What was detached ends with nobody: neither with the worker whose handler started it, nor with another command."""

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

from bossworker import BossWorker, CommandHandler, jobs
from bossworker.jobs import Status
from bossworker.tasks import TaskPool
from tests.conftest import alive, wait_for

STARTS_A_JOB = """
import sys, time
from bossworker import jobs
print(jobs.start(["sleep", "60"]), flush=True)
time.sleep(60)
"""


def start_and_stay(job: dict[str, Any]) -> dict[str, Any]:
    """A handler that starts a detached job, a daemon, and a child of its own, and may then refuse to end."""
    daemon = TaskPool(job["folder"], mkdir_if_missing=0o700).spawn(["sleep", "60"], behavior="daemon")
    child = subprocess.Popen(["sleep", "60"])
    Path(job["note"]).write_text(f"{jobs.start(['sleep', '60'])} {daemon.pid} {child.pid}")
    while job["stays"]:
        with suppress(BaseException):
            time.sleep(60)
    return {}


def in_order(pool: BossWorker) -> None:
    pool.get_result()
    pool.shut_down()


def by_force(pool: BossWorker) -> None:
    pool.shut_down(force=True)


def by_cancelling(pool: BossWorker) -> None:
    assert pool.cancel(1) == 1
    assert pool.get_result().error_kind == "cancelled"


def by_a_kill(pool: BossWorker) -> None:
    (worker,) = pool.worker_pids
    os.kill(worker, signal.SIGKILL)
    assert pool.get_result().error_kind == "crash"


def by_the_bosss_death(pool: BossWorker) -> None:
    os.kill(pool.boss_pid, signal.SIGKILL)


@pytest.mark.parametrize("end", [in_order, by_force, by_cancelling, by_a_kill, by_the_bosss_death])
def test_what_a_handler_detaches_goes_on(
    pool: Callable[..., BossWorker], root: Path, tmp_path: Path, end: Callable[[BossWorker], None]
) -> None:
    made = pool(start_and_stay, worker_count=1, kill_grace=0.1)
    note = tmp_path / "note"
    made.add_work({"folder": str(tmp_path / "tasks"), "note": str(note), "stays": end is not in_order})
    wait_for(lambda: note.exists() and len(note.read_text().split()) == 3)
    jobid, daemon, child = note.read_text().split()
    end(made)
    wait_for(lambda: not alive(int(child)), what="the handler's own child to end")
    assert jobs.status(jobid) is Status.RUNNING
    task = TaskPool(tmp_path / "tasks").task_by_pid(int(daemon))
    assert task is not None
    assert task.info(fresh=True)["status"]["running"]
    task.delete()
    assert jobs.signal(jobid)
    assert jobs.wait(jobid, 20) is Status.TERMINATED_BY_REQUEST


def test_a_job_that_a_job_has_started_goes_on(root: Path) -> None:
    outer = jobs.start([sys.executable, "-c", STARTS_A_JOB], env={"PYTHONPATH": os.pathsep.join(sys.path)})
    inner = wait_for(lambda: jobs.stdout(outer).strip())
    assert jobs.signal(outer)
    assert jobs.wait(outer, 20) is Status.TERMINATED_BY_REQUEST
    assert jobs.status(inner) is Status.RUNNING
    assert jobs.signal(inner)
    assert jobs.wait(inner, 20) is Status.TERMINATED_BY_REQUEST


def test_a_job_that_a_pools_command_has_started_goes_on(pool: Callable[..., BossWorker], root: Path) -> None:
    made = pool(CommandHandler(), worker_count=1)
    (number,) = made.add_work(
        {"cmd": [sys.executable, "-c", STARTS_A_JOB], "env": {"PYTHONPATH": os.pathsep.join(sys.path)}}
    )
    (outer,) = wait_for(jobs.listing)
    inner = wait_for(lambda: jobs.stdout(outer).strip())
    assert made.cancel(number) == 1
    assert made.get_result().error_kind == "cancelled"
    assert jobs.status(inner) is Status.RUNNING
    assert jobs.signal(inner)
    assert jobs.wait(inner, 20) is Status.TERMINATED_BY_REQUEST

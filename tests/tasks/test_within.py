"""Tasks whose commands spawn tasks."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from bossworker.tasks import Task, TaskPool
from tests.conftest import alive, wait_for
from tests.tasks.programs import SLEEP, python, wait_for_info, wait_for_output
from tests.tasks.test_deaths import PROJECT

SPAWNS = """
import sys
from bossworker.tasks import TaskPool, current
inner = TaskPool(sys.argv[1]).spawn([sys.executable, "-c", sys.argv[2]])
inner.wait(20)
print(current().pid, inner.pid, *inner.stream(1).read().decode().split())
"""


def test_a_task_within_a_task_is_its_own(pool: TaskPool) -> None:
    inner = "import os\nfrom bossworker.tasks import current\n"
    inner += "print(current().pid, open('/proc/self/environ').read().count('BOSSWORKER_TASK_PID='))"
    task = pool.spawn(python(SPAWNS, pool.path, inner), env={"PYTHONPATH": PROJECT})
    assert task.wait(40)
    outer_pid, inner_pid, told_pid, count = map(int, task.stream(1).read().split())
    assert (outer_pid, told_pid, count) == (task.pid, inner_pid, 1)


SPAWNS_BOTH = """
import time
from bossworker.tasks import default_task_pool
pool = default_task_pool()
print(*[pool.spawn(["sleep", "3600"], behavior=behavior).pid for behavior in ("daemon", "background")], flush=True)
time.sleep(3600)
"""


def outer_and_inner(pool: TaskPool) -> tuple[Task, Task, Task]:
    """A task that has spawned two: itself, the daemon, the other one."""
    task = pool.spawn(python(SPAWNS_BOTH), env={"PYTHONPATH": PROJECT})
    wait_for_output(task, b"\n")
    daemon, other = (Task(pool, int(pid)) for pid in task.stream(1).read().split())
    return task, daemon, other


@pytest.mark.parametrize("end", [Task.terminate_supervisor, Task.delete])
def test_a_daemon_stays_when_the_task_that_spawned_it_ends(pool: TaskPool, end: Callable[[Task], None]) -> None:
    task, daemon, other = outer_and_inner(pool)
    end(task)
    assert daemon.info()["status"]["running"]
    assert daemon.kill(0)
    assert not alive(other.pid)
    wait_for(lambda: alive_parent(daemon.pid) != task.pid)


def alive_parent(pid: int) -> int:
    with open(f"/proc/{pid}/stat", encoding="ascii") as file:
        return int(file.read().rpartition(")")[2].split()[1])


def test_a_daemon_stays_when_the_command_that_spawned_it_is_killed_or_paused(pool: TaskPool) -> None:
    task, daemon, other = outer_and_inner(pool)
    task.pause()
    wait_for_info(task, lambda info: info["status"]["paused"])
    assert not daemon.info(fresh=True)["status"]["paused"]
    task.kill()
    assert task.wait(20)
    assert daemon.kill(0)
    wait_for(lambda: not alive(other.pid))


def test_a_daemon_stays_when_the_supervisor_above_it_is_killed(pool: TaskPool) -> None:
    task, daemon, other = outer_and_inner(pool)
    os.kill(task.pid, signal.SIGKILL)
    wait_for(lambda: not alive(task.pid))
    assert not task.info(fresh=True)["status"]["running"]
    assert not alive(other.pid)
    assert daemon.kill(0)


def test_a_daemon_is_known_by_a_name_that_its_command_does_not_have(pool: TaskPool) -> None:
    daemon = pool.spawn(SLEEP, behavior="daemon")
    names = [Path(f"/proc/{pid}/comm").read_text() for pid in (daemon.pid, daemon.info()["pid"])]
    assert names == ["bossworker-task\n", "sleep\n"]

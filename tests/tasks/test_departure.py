"""Supervisors that leave by themselves, or were killed: what is told, kept and ended then."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from bossworker.tasks import Task, TaskGone, TaskPool
from bossworker.tasks.wire.protocol import encode
from tests.conftest import alive, wait_for
from tests.tasks.programs import CAT, shell, wait_for_info, wait_for_output
from tests.tasks.test_clients import connected


def test_a_supervisor_leaves_some_time_after_the_end(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo out; echo err >&2; exit 3"), linger=0.01, meta={"a": 1})
    wait_for(lambda: not alive(task.pid))
    assert task.wait(0)
    info = task.info(fresh=True)
    assert (info["status"]["state"], info["status"]["exit_code"], info["meta"]) == ("terminated by error", 3, {"a": 1})
    assert info["supervisor"] == {"pid": task.pid, "running": False}
    assert (task.stream(1).read(), task.stream(2).read()) == (b"out\n", b"err\n")
    assert list(Task(pool, task.pid).stream(1).follow()) == [b"out\n"]
    assert pool.search({"status": {"exit_code": 3}}) == [task]
    assert pool.task_by_pid(task.pid) is None
    assert not os.path.exists(pool.socket_path(task.pid))
    assert not os.path.exists(pool.output_path(task.pid))
    with pytest.raises(TaskGone):
        task.restart()


def test_no_time_at_all(pool: TaskPool) -> None:
    tasks = [pool.spawn(["true"], linger=0) for _ in range(10)]
    for task in tasks:
        status = task.wait(20)
        assert status
        assert status["state"] == "completed"
        wait_for(lambda pid=task.pid: not alive(pid))  # type: ignore[misc]


def test_what_is_restarted_lingers_anew(pool: TaskPool) -> None:
    task = pool.spawn(shell("read line"), linger=0.3)
    task.stream(0).close()
    assert task.wait(20)
    assert task.restart()
    time.sleep(0.6)
    assert task.kill(0)
    task.stream(0).close()
    wait_for(lambda: not alive(task.pid))
    assert task.info(fresh=True)["restarts"]["count"] == 1


def test_a_restart_that_is_due_is_waited_for(pool: TaskPool) -> None:
    task = pool.spawn(["false"], restart="always", restart_backoff=0.3, restart_limit=1, linger=0.01)
    wait_for(lambda: not alive(task.pid))
    assert task.info(fresh=True)["restarts"]["count"] == 1


def test_with_no_time_named_it_stays(pool: TaskPool) -> None:
    task = pool.spawn(["true"], linger=None)
    assert task.wait(20)
    assert task.restart()


@pytest.mark.parametrize("keeps_stream", [True, False])
def test_what_is_left_behind_keeps_the_supervisor(pool: TaskPool, keeps_stream: bool) -> None:
    streams = "" if keeps_stream else "<&- >&- 2>&- 3>&-"
    task = pool.spawn(shell(f"setsid sleep 3600 {streams} & echo $!"), linger=0.01)
    assert task.wait(20)
    wait_for_output(task, b"\n")
    left = int(task.stream(1).read())
    time.sleep(0.3)
    assert task.kill(0) is False  # it is there to be asked
    assert alive(left)
    os.kill(left, signal.SIGKILL)
    wait_for(lambda: not alive(task.pid))


@pytest.mark.parametrize("end", [Task.terminate_supervisor, Task.delete])
@pytest.mark.parametrize("look", [False, True])
def test_what_an_ended_command_had_left_to_a_supervisor_that_was_killed(
    pool: TaskPool, end: Callable[[Task], None], look: bool
) -> None:
    """Nobody but who ends the task looks for it: a command that has ended may leave things that go on."""
    task = pool.spawn(shell("setsid sleep 3600 & echo $!"))
    assert task.wait(20)
    wait_for_output(task, b"\n")
    left = int(task.stream(1).read())
    os.kill(task.pid, signal.SIGKILL)
    wait_for(lambda: not alive(task.pid))
    if look:  # who looks at it changes nothing
        assert pool.search({"status": {"state": "completed"}}) == [task]
    assert alive(left)
    end(task)
    assert not alive(left)


@pytest.mark.parametrize("op", ["terminate", "delete"])
def test_whoever_wants_a_restart_too_late_hears_of_none(pool: TaskPool, op: str) -> None:
    """Its request is there when the supervisor leaves for somebody else, who came first."""
    task = pool.spawn(["true"])
    assert task.wait(20)
    with connected(pool, task.pid) as first, connected(pool, task.pid) as second:
        wait_for_info(task, lambda info: info["clients"] == 3)
        os.kill(task.pid, signal.SIGSTOP)
        first.sendall(encode({"op": op}))
        second.sendall(encode({"op": "restart"}))
        os.kill(task.pid, signal.SIGCONT)
        assert b'"ok": true' in first.recv(1000)
        with suppress(ConnectionResetError):  # the supervisor has hung up, and not read it at all
            assert second.recv(1000) == b""


def test_two_tasks_of_one_pid_are_two(pool: TaskPool) -> None:
    first, second = pool.spawn(CAT), pool.spawn(CAT)
    namesake = Task(pool, first.pid)
    namesake._belong_to(second.id)
    assert namesake != first
    assert Task(pool, first.pid) == first
    wait_for_info(first, lambda info: info["status"]["running"])

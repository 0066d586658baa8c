"""Things that happen to few, each at its worst moment."""

from __future__ import annotations

import fcntl
import os
import signal
import threading
from pathlib import Path

import pytest

from bossworker import process
from bossworker.commands.loop import Loop
from bossworker.tasks import TaskLocked, TaskPool, TaskRefused
from tests.commands.disk import fill, small_disk
from tests.tasks.programs import SLEEP, python, shell, wait_for_info

__all__ = ["small_disk"]

LEAVES_LATE = """
import os, time
os.write(1, b"x")
time.sleep(0.1)  # longer than two events about one stream are apart
os.close(1)
time.sleep(0.1)
"""


def test_the_end_of_a_stream_is_told_though_its_pipe_was_closed_before(pool: TaskPool) -> None:
    """The pipe is at its end before the command is reaped, and only then is it known that there is no restart."""
    task = pool.spawn(python(LEAVES_LATE), restart="always", restart_limit=1, restart_backoff=0.001)
    outputs = [event for event in task.events() if event.get("stream") == "stdout"]
    assert outputs[-1] == {"event": "output-available", "stream": "stdout", "limit": 2, "eof": True}


def test_timers_may_be_years_away(pool: TaskPool) -> None:
    task = pool.spawn(["false"], restart="always", restart_backoff=1e7, restart_backoff_max=1e7)
    info = wait_for_info(task, lambda info: info["restarts"]["next"])
    assert info["restarts"]["next"] > info["times"]["ended"] + 9e6
    assert task.restart()
    full = pool.spawn(SLEEP)
    connection = full.new_connection()
    connection.send({"op": "write", "stream": 0, "wait": 1e9}, bytes(1 << 18))  # more than a pipe takes
    assert full.info(fresh=True)["status"]["running"]
    full.stream(3).close(immediate=True)
    assert full.kill(0)


def test_a_sleep_longer_than_poll_can_count() -> None:
    loop = Loop()
    loop.after(1e9, lambda: None)
    loop.after(0.001, loop.stop)
    loop.run()
    loop.after(0.01, lambda: os.kill(os.getpid(), signal.SIGCHLD))
    loop.on_child(lambda: None)
    loop.turn()
    threading.Timer(0.05, os.kill, (os.getpid(), signal.SIGCHLD)).start()
    loop.turn()  # with the far timer alone
    loop.close()
    ours, theirs = os.pipe()
    threading.Timer(0.05, os.write, (theirs, b"x")).start()
    assert process.await_fd(ours, 1, 1e12)
    os.close(ours)
    os.close(theirs)


def test_a_restart_on_a_full_disk_waits_for_room(small_disk: Path) -> None:
    task = TaskPool(small_disk).spawn(["false"], restart="always", restart_backoff=0.5, restart_limit=1)
    wait_for_info(task, lambda info: info["restarts"]["next"])
    fill(small_disk)
    wanted = ["the command cannot be started again: No space left on device"]
    info = wait_for_info(task, lambda info: info["trouble"] == wanted)
    assert info["restarts"]["next"] > info["times"]["ended"] + 1
    os.unlink(small_disk / "ballast")
    assert task.wait(20)
    assert task.info(fresh=True)["restarts"]["count"] == 1
    assert task.info()["trouble"] == []
    task.delete()


def test_a_restart_that_is_due_can_be_had_at_once(pool: TaskPool, tmp_path: Path) -> None:
    """Its lock is held all the time."""
    lock = tmp_path / "lock"
    task = pool.spawn(shell("read x; false"), lockfile=lock, restart="always", restart_backoff=1e4)
    for _ in range(3):
        task.stream(0).write(b"\n")
        wait_for_info(task, lambda info: info["restarts"]["next"])
        assert task.restart()
        with pytest.raises(TaskLocked):
            pool.spawn(SLEEP, lockfile=lock)


def test_a_restart_without_room_changes_nothing(small_disk: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    pool = TaskPool(small_disk)
    task = pool.spawn(["true"], lockfile=lock)
    task.wait(20)
    fill(small_disk)
    held = len(os.listdir(f"/proc/{task.pid}/fd"))
    for _ in range(3):
        with pytest.raises(TaskRefused, match="No space left"):
            task.restart()
    assert len(os.listdir(f"/proc/{task.pid}/fd")) <= held
    assert task.stream(1).ended
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    os.unlink(small_disk / "ballast")
    assert task.restart()
    assert task.wait(20)
    task.delete()

"""Things that happen to few, each at its worst moment."""

from __future__ import annotations

import fcntl
import os
import pickle
import signal
import socket
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from bossworker import process
from bossworker.commands.loop import Loop
from bossworker.tasks import Task, TaskGone, TaskLocked, TaskPool, TaskRefused
from bossworker.tasks.protocol import encode
from bossworker.tasks.service import MOST_CLIENTS
from tests.commands.disk import fill, small_disk
from tests.tasks.programs import CAT, SLEEP, python, shell, wait_for_info

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


def test_one_task_object_for_several_threads_and_forks(pool: TaskPool) -> None:
    task = pool.spawn(CAT)
    wrong: list[object] = []

    def ask(key: str) -> None:
        for n in range(150):
            try:
                task.apply_meta(**{key: n})
                if task.ask({"op": "info"})[0]["info"]["meta"][key] != n or not task.kill(0):
                    wrong.append(key)
            except Exception as error:
                wrong.append(error)

    def ask_in_child() -> None:
        child = os.fork()
        if not child:
            ask("child")
            os._exit(bool(wrong))
        ask("parent")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    threads = [threading.Thread(target=ask, args=[f"t{n}"]) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    ask_in_child()
    assert wrong == []
    copy = pickle.loads(pickle.dumps(task))
    assert copy.info(fresh=True)["id"] == task.id


def hang_up_on_watchers(pool: TaskPool, pid: int) -> None:
    """By more connections than a supervisor keeps that watch, too."""
    with ExitStack() as stack:
        for _ in range(MOST_CLIENTS + 20):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(pool.socket_path(pid))
            client.sendall(encode({"op": "watch"}))
            client.recv(1)


def test_who_is_hung_up_on_connects_again_and_misses_nothing(pool: TaskPool) -> None:
    task = pool.spawn(CAT, meta={"a": 1})
    follower, events = task.stream(1).follow(), task.events()
    task.stream(0).write(b"one")
    assert next(follower) == b"one"
    assert next(events)["limit"] == 3
    hang_up_on_watchers(pool, task.pid)
    task.apply_meta(b=2)
    task.stream(0).write(b"two")
    assert next(follower) == b"two"
    assert {"event": "metadata-changed", "meta": {"a": 1, "b": 2}} in events
    hang_up_on_watchers(pool, task.pid)
    task.stream(0).close()
    assert list(follower) == []
    assert list(events)[-1]["final"]


def test_events_end_with_the_supervisor_and_not_before(pool: TaskPool) -> None:
    task = pool.spawn(CAT)
    events, follower = task.events(), task.stream(1).follow()
    task.stream(0).write(b"x")
    assert next(events)["event"] == "output-available"
    assert next(follower) == b"x"
    hang_up_on_watchers(pool, task.pid)
    hidden = pool.socket_path(task.pid) + ".hidden"
    os.rename(pool.socket_path(task.pid), hidden)
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("bossworker.tasks.watch.END_SECONDS", 0.1)
            with pytest.raises(TaskGone):
                list(events)
            with pytest.raises(TaskGone):
                list(follower)
    finally:
        os.rename(hidden, pool.socket_path(task.pid))
    follower = task.stream(1).follow()
    assert next(follower) == b"x"
    os.kill(task.pid, signal.SIGKILL)
    assert list(follower) == []


def test_the_status_of_what_has_ended_takes_no_wait(pool: TaskPool) -> None:
    task = pool.spawn(["true"])
    task.wait(20)
    for _ in range(20):
        assert task.wait(0) is not None
    due = pool.spawn(["false"], restart="always", restart_backoff=1e5, restart_backoff_max=1e5)
    wait_for_info(due, lambda info: info["restarts"]["next"])
    assert due.wait(0) is None


def test_a_living_task_that_cannot_be_reached_is_not_deleted(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    folder, socket_path = task.record.folder, pool.socket_path(task.pid)
    os.rename(folder, pool.path + "/elsewhere")
    os.rename(socket_path, socket_path + ".hidden")
    Path(socket_path).touch()  # what is not for us to talk to, for who may do everything
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(TaskPool, "connect", refuse)
            with pytest.raises(TaskGone):
                Task(pool, task.pid).delete()
    finally:
        os.rename(socket_path + ".hidden", socket_path)
        os.rename(pool.path + "/elsewhere", folder)
    assert task.kill(0)


def refuse(pool: TaskPool, pid: int) -> NoReturn:
    raise TaskGone("not for us") from PermissionError(1, "not permitted")

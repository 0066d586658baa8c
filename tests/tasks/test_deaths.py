"""Whoever is killed: status and output are still told, and nothing runs on unseen."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bossworker.commands.supervision.launching import ask
from bossworker.system import identity, processes
from bossworker.tasks import Task, TaskGone, TaskPool
from bossworker.tasks.client import spawning
from bossworker.tasks.errors import TaskError
from tests.commands.disk import fill, small_disk
from tests.conftest import alive, wait_for
from tests.tasks.programs import CAT, SLEEP, python, shell, wait_for_info, wait_for_output

__all__ = ["small_disk"]

PROJECT = str(Path(__file__).parents[2])


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: processes.reap_all() or not alive(pid))
    wait_for(lambda: not alive(pid))


def test_a_killed_supervisor_takes_its_command_with_it(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo before; exec sleep 3600"), meta={"name": "x"})
    wait_for_output(task, b"before")
    command = task.info()["pid"]
    kill(task.pid)
    wait_for(lambda: not alive(command))  # by itself, before anybody looks
    info = task.info(fresh=True)
    assert not info["status"]["running"]
    assert (info["status"]["state"], info["status"]["reason"]) == ("terminated by error", "its supervisor died")
    assert (info["pid"], info["supervisor"]) == (None, {"pid": task.pid, "running": False})
    assert info["meta"] == {"name": "x"}
    assert info["streams"]["stdout"] == {"start": 0, "limit": 7, "eof": True}
    assert task.stream(1).read() == b"before\n"
    assert list(Task(pool, task.pid).stream(1).follow()) == [b"before\n"]
    assert task.wait(5) == info["status"]
    assert pool.search({"status": {"running": True}}) == []
    assert not os.path.lexists(pool.socket_path(task.pid))
    for call in (
        task.kill,
        task.resume,
        task.restart,
        lambda: task.apply_meta(a=1),
        lambda: task.stream(0).write(b"x"),
    ):
        with pytest.raises(TaskGone):
            call()


def test_what_the_command_had_started_is_ended_by_whoever_looks(pool: TaskPool) -> None:
    """One is of its session, one has left it, and one has thrown its environment away, too."""
    task = pool.spawn(
        shell("sleep 3600 & echo $!; setsid sleep 3600 & echo $!; env -i sleep 3600 & echo $!; echo; wait")
    )
    wait_for_output(task, b"\n\n")
    family = [task.info()["pid"], *map(int, task.stream(1).read().split())]
    kill(task.pid)
    assert pool.search({"status": {"running": False}}) == [task]
    for pid in family:
        wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_whoever_waits_hears_of_the_supervisors_death(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    text = "import sys; from bossworker.tasks import *; print(Task(TaskPool(sys.argv[1]), int(sys.argv[2])).wait())"
    waiter = python(text, pool.path, task.pid)
    environment = {**os.environ, "PYTHONPATH": PROJECT}
    with subprocess.Popen(waiter, stdout=subprocess.PIPE, text=True, env=environment) as waiting:
        wait_for_info(task, lambda info: info["clients"] >= 2)
        kill(task.pid)
        told, _ = waiting.communicate(timeout=20)
    assert "its supervisor died" in told


def test_the_last_status_survives_the_supervisor(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo out; exit 7"))
    task.apply_meta(a=1)
    status = task.wait(20)
    kill(task.pid)
    info = Task(pool, task.pid).info()
    assert info["status"] == status
    assert info["meta"] == {"a": 1}
    assert info["usage"]["max_rss"] > 0
    assert Task(pool, task.pid).stream(1).read() == b"out\n"


SPAWNER = """
import sys
from bossworker.tasks import TaskPool
task = TaskPool(sys.argv[1]).spawn(sys.argv[3:], behavior=sys.argv[2])
print(task.pid, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("behavior", ["background", "daemon"])
def test_the_spawners_death_changes_nothing(pool: TaskPool, behavior: str) -> None:
    program = python(SPAWNER, pool.path, behavior, *CAT)
    environment = {**os.environ, "PYTHONPATH": PROJECT}
    with subprocess.Popen(program, stdin=-1, stdout=-1, env=environment) as spawner:
        assert spawner.stdout is not None
        task = Task(pool, int(spawner.stdout.readline()))
        spawner.kill()
    assert task.stream(0).write(b"alive") == 5
    task.stream(0).close()
    status = task.wait(20)
    assert status is not None
    assert status["exit_code"] == 0
    assert task.stream(1).read() == b"alive"


def test_a_supervisor_that_is_stopped_holds_up_nobody(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bossworker.tasks.client.survey.ANSWER_SECONDS", 0.2)
    monkeypatch.setattr("bossworker.tasks.wire.control_connection.ANSWER_SECONDS", 0.2)
    stopped, other = pool.spawn(SLEEP), pool.spawn(SLEEP)
    os.kill(stopped.pid, signal.SIGSTOP)
    try:
        assert pool.search({"status": {"running": True}}) == [stopped, other]  # told by its files
        with pytest.raises(TaskGone, match="no answer in time"):
            stopped.kill()
        with pytest.raises(TimeoutError):
            stopped.kill()
        assert stopped.info(fresh=True)["supervisor"]["running"]
        assert os.path.exists(pool.socket_path(stopped.pid))
        monkeypatch.undo()
        before = time.monotonic()
        assert stopped.wait(0.1) is None
        assert time.monotonic() - before < 5  # however long it may take to answer
    finally:
        os.kill(stopped.pid, signal.SIGCONT)


def files(pool: TaskPool, *tasks: Task) -> set[str]:
    """Of what the pool should hold for living tasks."""
    return {name for task in tasks for name in (task.id, f"{task.id[-12:]}.sock", f"{task.id[-12:]}.out")}


def test_a_dead_supervisors_socket_is_cleared_away_and_no_other(pool: TaskPool) -> None:
    living, dead, said = pool.spawn(SLEEP), pool.spawn(SLEEP), pool.spawn(SLEEP)
    assert set(os.listdir(pool.path)) == files(pool, living, dead, said)
    for task in (dead, said):
        kill(task.pid)
    Path(pool.output_path(said.pid)).write_text("why it died")
    assert pool.task_by_pid(dead.pid) is None
    assert pool.search() == [living, dead, said]
    assert set(os.listdir(pool.path)) == {*files(pool, living), dead.id, said.id, f"{said.id[-12:]}.out"}


def test_a_supervisor_that_was_killed_before_its_command_ran(pool: TaskPool) -> None:
    """What it has made is found, told about, and deleted."""
    task = pool.spawn(SLEEP)
    kill(task.pid)
    os.unlink(f"{pool.path}/{task.id}/status.json")
    assert pool.search({"status": {"state": "terminated by error"}, "pid": None}) == [task]
    assert Task(pool, task.pid).info()["status"]["reason"] == "its supervisor died"
    task.delete()
    assert os.listdir(pool.path) == []


def test_a_strangers_socket_is_no_supervisor(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    path = pool.socket_path(task.pid)
    os.rename(path, f"{path}.hidden")
    with socket.socket(socket.AF_UNIX) as stranger:
        stranger.bind(path)
        stranger.listen()
        assert pool.task_by_pid(task.pid) is None
        reason: dict[str, object] = {}
        assert not Task(pool, task.pid).connect(reason)
        assert f"of process {os.getpid()}" in str(reason["error"])
        assert pool.search({"status": {"running": True}}) == [task]  # by its files
    os.rename(f"{path}.hidden", path)


def test_searchers_and_spawners_at_once(pool: TaskPool) -> None:
    """Several search, and meanwhile tasks come: no socket of a supervisor that is about to listen is taken for dead."""
    search = python(
        "import sys\nfrom bossworker.tasks import *\np = TaskPool(sys.argv[1])\nwhile p.search(): pass", pool.path
    )
    first = pool.spawn(SLEEP)
    searchers = [subprocess.Popen(search, env={**os.environ, "PYTHONPATH": PROJECT}) for _ in range(2)]
    made = [first]
    for _ in range(10):
        made.append(pool.spawn(SLEEP))
        assert made[-1].connect()
    assert all(task.connect() for task in made)
    assert pool.search() == made
    for task in made:
        task.delete()
    assert [searcher.wait(20) for searcher in searchers] == [0, 0]


def test_a_pid_that_is_another_tasks_by_now(pool: TaskPool) -> None:
    """What was found by its id never means the next task whose supervisor has the same pid."""
    old = pool.spawn(shell("echo old"))
    old.wait(20)
    old.terminate_supervisor()
    new = pool.spawn(SLEEP)
    old.pid = new.pid
    status = Path(old._contact.record.folder) / "status.json"
    told = json.loads(status.read_text())
    told["supervisor"][0] = new.pid
    status.write_text(json.dumps(told))
    assert old.info(fresh=True)["id"] == old.id
    for call in (old.kill, old.restart, lambda: old.apply_meta(a=1), lambda: next(old.events())):
        with pytest.raises(TaskError):
            call()
    old.delete()
    assert new.info(fresh=True)["status"]["running"]
    assert pool.search() == [new]


def test_a_supervisor_that_is_told_to_end_ends_its_command(pool: TaskPool) -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        task = pool.spawn(SLEEP)
        command = task.info()["pid"]
        os.kill(task.pid, number)
        wait_for(lambda pid=task.pid: not alive(pid))  # type: ignore[misc]
        assert not alive(command)
        assert task.info(fresh=True)["status"]["state"] == "terminated by request"
        assert not os.path.lexists(pool.socket_path(task.pid))
        assert os.listdir(pool.path) == [task.id]
        task.delete()


def test_a_full_disk_makes_the_command_wait_and_loses_nothing(small_disk: Path) -> None:
    pool = TaskPool(small_disk)
    task = pool.spawn(python("import os\nos.read(0, 1)\nfor n in range(150): os.write(1, b'%04d' % n * 256)"))
    fill(small_disk, leave=8192)
    task.stream(0).write(b"x")
    wait_for_info(task, lambda info: info["trouble"] == ["stdout cannot be written: No space left on device"])
    assert 0 < task.stream(1).limit < 150 * 1024
    with pytest.raises(TaskError, match="No space left"):
        task.apply_meta(a="x" * 10_000)
    assert task.info(fresh=True)["meta"] == {}
    with pytest.raises(OSError, match="No space left"):
        pool.spawn(SLEEP)
    os.unlink(small_disk / "ballast")
    assert task.wait(20)
    assert task.stream(1).read() == b"".join(b"%04d" % n * 256 for n in range(150))
    assert task.info(fresh=True)["trouble"] == []
    task.delete()
    assert os.listdir(small_disk) == []


def test_the_end_is_told_on_a_full_disk(small_disk: Path) -> None:
    pool = TaskPool(small_disk)
    task = pool.spawn(shell("read x; exit 3"))
    fill(small_disk)
    task.stream(0).write(b"\n")
    assert task.wait(20)
    kill(task.pid)
    assert Task(pool, task.pid).info()["status"]["exit_code"] == 3
    task.delete()


def test_damaged_files_are_no_error(pool: TaskPool) -> None:
    task = pool.spawn(["true"])
    task.wait(20)
    task.terminate_supervisor()
    folder = Path(task._contact.record.folder)
    for name in ("job.json", "meta.json"):
        (folder / name).write_bytes(b"\xff{")
    assert [found.info()["command"] for found in pool.search()] == [[None]]
    supervisor = json.loads((folder / "status.json").read_text())["supervisor"]
    (folder / "status.json").write_text(json.dumps({"supervisor": supervisor, "command": "x", "task": [], "state": 7}))
    assert len(pool.search()) == 1
    (folder / "status.json").write_text("[]")
    assert pool.search() == []
    (folder / "status.json").write_text(json.dumps({"supervisor": supervisor}))
    task.delete()


@pytest.mark.parametrize("name", ["job.json", "status.json"])
def test_one_damaged_task_hides_no_other(pool: TaskPool, name: str) -> None:
    """In a pool that users share, anybody may write anything into tasks of their own."""
    other, task = pool.spawn(SLEEP), pool.spawn(shell("echo hi"))
    assert task.wait(20)
    task.terminate_supervisor()
    file = Path(task._contact.record.folder, name)
    sound = json.loads(file.read_text())
    values: list[Any] = [None, 5, True, "x", 1e400, [], ["x"], [[]], {}, {"a": 1}, [10**30, 1, "x"], [task.pid]]
    for key in sound:
        for value in values:
            file.write_text(json.dumps({**sound, key: value}))
            assert other in pool.search()
            assert pool.search({"status": {"running": True}}) == [other]
            assert task.wait(0)
            assert task.info(fresh=True)["status"]["running"] is False
            assert task.stream(1).read(0) == b"hi\n"
    task.delete()
    assert pool.search() == [other]


@pytest.mark.skipif(os.geteuid() != 0, reason="gives a directory to another user")
def test_nobody_can_have_others_end_their_own_processes(pool: TaskPool) -> None:
    """By a task that says that it died, and that its command was one of theirs."""
    task = pool.spawn(SLEEP)
    kill(task.pid)
    wait_for(lambda: not alive(task.pid))
    with subprocess.Popen(SLEEP, start_new_session=True) as ours:
        status = Path(task._contact.record.folder, "status.json")
        status.write_text(json.dumps(json.loads(status.read_text()) | {"command": identity.of(ours.pid)}))
        os.chown(task._contact.record.folder, 65534, 65534)
        assert not task.info(fresh=True)["status"]["running"]
        task.terminate_supervisor()
        assert pool.search() == [task]
        task.delete()
        assert ours.poll() is None
        ours.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_killed_launcher_is_replaced(pool: TaskPool) -> None:
    first = pool.spawn(SLEEP)
    (launcher,) = (
        pid for pid in processes.children(os.getpid()) if b"launcher" in command_line(pid) and pid != first.pid
    )
    kill(launcher)
    second = pool.spawn(SLEEP)
    assert pool.search({"status": {"running": True}}) == [first, second]


def test_a_command_that_was_started_without_a_word_is_found(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The launcher may be killed when it has forked the supervisor, and the answer may come too late."""

    def asked(*arguments: Any) -> bytes:
        ask(*arguments)
        return b""

    monkeypatch.setattr(spawning, "ask", asked)
    task = pool.spawn(SLEEP)
    assert pool.search({"status": {"running": True}}) == [task]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()

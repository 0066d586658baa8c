"""A task's life: spawned, found, told about, signalled, restarted, ended and deleted."""

from __future__ import annotations

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorkerError, tasks
from bossworker.tasks import Task, TaskGone, TaskLocked, TaskNotStarted, TaskPool, TaskRefused
from tests.conftest import alive, wait_for
from tests.tasks.programs import CAT, SLEEP, in_itself, nested, python, shell, state, wait_for_info, wait_for_output


def test_a_task_tells_all_about_itself(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo out; echo err >&2; exit 5"), meta={"name": "x"}, env={"A": "b"}, cwd="/")
    status = task.wait(20)
    assert status is not None
    assert (status["exit_code"], status["signal"], status["core"], status["running"]) == (5, None, False, False)
    info = task.info(fresh=True)
    assert json.loads(json.dumps(info)) == info
    assert info["status"] == status
    assert (info["command"], info["shell"], info["cwd"]) == (shell("echo out; echo err >&2; exit 5"), False, "/")
    assert (info["pid"], info["supervisor"]) == (None, {"pid": task.pid, "running": True})
    assert info["meta"] == {"name": "x"}
    assert info["streams"]["stdout"] == {"start": 0, "limit": 4, "eof": True}
    assert info["times"]["created"] <= info["times"]["started"] <= info["times"]["ended"] <= time.time()
    assert info["usage"]["max_rss"] > 0
    assert info["restarts"] == {"policy": "never", "limit": None, "count": 0, "next": None}
    assert info["behavior"] == "background"
    assert info["clients"] >= 1
    assert task.info() is info  # fetched once
    assert task.task_pool is pool


def test_the_command_runs_when_spawn_returns(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    info = task.info()
    assert info["status"]["running"]
    assert alive(info["pid"])
    assert info["pid"] != task.pid
    assert Path(f"/proc/{info['pid']}/cmdline").read_bytes() == b"sleep\x003600\0"


def test_a_line_for_the_shell(pool: TaskPool) -> None:
    task = pool.spawn(cmd="echo $((6 * 7)); kill -9 $$")
    status = task.wait(20)
    assert status is not None
    assert (status["signal"], status["exit_code"], status["state"]) == (9, None, "terminated by error")
    assert task.stream(1).read() == b"42\n"
    assert task.info()["command"] == "echo $((6 * 7)); kill -9 $$"


@pytest.mark.parametrize(
    ("command", "exit_code", "reason"),
    [
        (["no-such-program"], 127, "no-such-program.*No such file"),
        (["/etc"], 126, "/etc.*Permission denied"),
        (["/etc/passwd"], 126, "/etc/passwd.*Permission denied"),
        (["x" * 5000], 126, "xxx.*File name too long"),
        (["true", "x" * 200_000], 126, "true.*Argument list too long"),
    ],
)
def test_a_program_that_cannot_run(pool: TaskPool, command: list[str], exit_code: int, reason: str) -> None:
    with pytest.raises(TaskNotStarted, match=reason) as caught:
        pool.spawn(command, restart="always")
    assert caught.value.exit_code == exit_code
    assert os.listdir(pool.path) == []


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, TypeError, "either args"),
        ({"args": ["a"], "cmd": "a"}, TypeError, "either args"),
        ({"args": "sleep 1"}, ValueError, "args must be a list of str"),
        ({"args": []}, ValueError, "args must name a program"),
        ({"args": ["a", 1]}, TypeError, r"args\[1\] must be a str"),
        ({"args": ["a\0b"]}, ValueError, r"args\[0\] must not hold a NUL"),
        ({"cmd": ["a"]}, TypeError, "cmd must be a str"),
        ({"args": ["a"], "behavior": "zombie"}, ValueError, "behavior must be one of 'foreground'.*not 'zombie'"),
        ({"args": ["a"], "restart": "sometimes"}, ValueError, "restart must be one of 'never'.*not 'sometimes'"),
        ({"args": ["a"], "restart_limit": -1}, ValueError, "restart_limit must be an int from 0"),
        ({"args": ["a"], "restart_backoff": -1}, ValueError, "restart_backoff must be between 0"),
        ({"args": ["a"], "linger": -1}, ValueError, "linger must be between 0"),
        ({"args": ["a"], "linger": "long"}, TypeError, "linger must be a number of seconds"),
        ({"args": ["a"], "retain_output": "all"}, TypeError, "retain_output must be an int"),
        ({"args": ["a"], "max_read_buf_size": -1}, ValueError, "max_read_buf_size must be an int"),
        ({"args": ["a"], "meta": {"f": print}}, TypeError, r"meta\['f'\] must be what JSON can hold, not <built-in"),
        ({"args": ["a"], "meta": 5}, TypeError, "meta must be a dict"),
        ({"args": ["a"], "meta": nested(101)}, ValueError, "meta must be nested at most 100 deep"),
        ({"args": ["a"], "meta": {"x": in_itself()}}, ValueError, "meta must be nested at most 100 deep"),
        ({"args": ["a"], "env": {"A=": "b"}}, ValueError, "env"),
        ({"args": ["a"], "cwd": "/nowhere/at/all"}, ValueError, "cwd must be a folder that exists"),
        ({"args": ["a"], "lockfile": 7}, TypeError, "lockfile"),
        ({"args": ["a"], "lockfile": ""}, ValueError, "lockfile must not be empty"),
    ],
)
def test_bad_arguments_start_nothing(
    pool: TaskPool, arguments: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        pool.spawn(**arguments)
    assert os.listdir(pool.path) == []


def test_metadata_may_be_given_by_name(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    task.apply_meta(mapping={"a": 1}, b=2)
    assert task.info(fresh=True)["meta"] == {"a": 1, "b": 2}


def test_metadata_is_merged_and_told(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP, meta={"a": 1})
    events = task.events()
    other = Task(pool, task.pid)
    other.apply_meta({"b": {"c": [1, None]}}, d="ü")
    other.apply_meta({"a": 2})
    changes = [event for event in (next(events), next(events)) if event["event"] == "metadata-changed"]
    assert [change["meta"] for change in changes] == [{"b": {"c": [1, None]}, "d": "ü"}, {"a": 2}]
    assert task.info(fresh=True)["meta"] == {"a": 2, "b": {"c": [1, None]}, "d": "ü"}
    events.close()
    with pytest.raises(TypeError, match="must be what JSON can hold"):
        task.apply_meta(x=object())
    with pytest.raises(ValueError, match="must have at most 262144 bytes in JSON"):
        task.apply_meta(x="y" * 300_000)
    task.apply_meta(x="y" * 200_000)
    with pytest.raises(TaskRefused, match="all of it would have"):
        task.apply_meta(z="y" * 200_000)
    assert set(task.info(fresh=True)["meta"]) == {"a", "b", "d", "x"}


def test_mappings_in_metadata_are_merged_at_every_depth(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP, meta={"n": {"a": 1, "list": [1, 2], "deep": {"x": {"y": 1}}}, "kept": True})
    task.apply_meta(n={"b": 2})
    task.apply_meta({"n": {"list": [3], "deep": {"x": {"z": 2}}}})
    merged = {"a": 1, "b": 2, "list": [3], "deep": {"x": {"y": 1, "z": 2}}}
    assert task.info(fresh=True)["meta"] == {"n": merged, "kept": True}
    task.apply_meta(n={"deep": "flat"}, kept={"a": None})
    assert task.info(fresh=True)["meta"] == {"n": {**merged, "deep": "flat"}, "kept": {"a": None}}
    task.apply_meta(n={"deep": {"again": 1}})
    assert task.info(fresh=True)["meta"]["n"]["deep"] == {"again": 1}
    deep = nested(99)
    task.apply_meta(deep)
    task.apply_meta(nested(99))
    assert task.info(fresh=True)["meta"]["in"] == deep["in"]


def test_what_users_complete_is_what_is_promised() -> None:
    """Methods that the package needs for itself do not show."""
    assert {name for name in dir(TaskPool) if name[0] != "_"} == {
        "apply_supervisor_env", "output_path", "search", "socket_dir", "socket_path", "spawn", "supervisor_cmd",
        "supervisor_env", "task_by_pid",
    }  # fmt: skip
    assert {name for name in dir(Task) if name[0] != "_"} == {
        "apply_meta", "connect", "delete", "disconnect", "events", "id", "info", "kill", "pause", "restart", "resume",
        "stream", "terminate_supervisor", "wait",
    }  # fmt: skip


def test_events_tell_a_life(pool: TaskPool) -> None:
    task = pool.spawn(shell("read a; echo x; read a; exit 3"))
    events = task.events()
    stdin = task.stream("stdin")
    stdin.write(b"\n")
    assert next(events) == {"event": "output-available", "stream": "stdout", "limit": 2, "eof": False}
    task.apply_meta(seen=True)
    assert next(events) == {"event": "metadata-changed", "meta": {"seen": True}}
    stdin.write(b"\n")
    *output, end = events
    assert {event["event"] for event in output} <= {"output-available"}
    assert (end["event"], end["exit_code"], end["final"]) == ("exit", 3, True)
    *output, end = task.events()  # who comes late is told what has happened
    assert (end["event"], end["exit_code"]) == ("exit", 3)
    assert {"event": "output-available", "stream": "stdout", "limit": 2, "eof": True} in output


WAITER = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGTERM])
print("ready", flush=True)
while True:
    print(signal.sigwait([signal.SIGUSR1, signal.SIGTERM]).name, flush=True)
"""


def test_signals_reach_the_command(pool: TaskPool) -> None:
    task = pool.spawn(python(WAITER))
    wait_for_output(task, b"ready")
    names: list[str | int] = ["USR1", "sigterm", "SIGUSR1", int(signal.SIGTERM), signal.SIGUSR1]
    for count, name in enumerate(names, 1):
        assert task.kill(name)
        wait_for(lambda count=count: task.stream(1).peek().count(b"SIG") == count)  # type: ignore[misc]
    assert task.kill(0)
    assert task.kill()
    status = task.wait(20)
    assert status is not None
    assert (status["signal"], status["state"]) == (9, "terminated by request")
    assert not task.kill("TERM")
    assert not task.kill(0)
    for bad in ("NONSENSE", 999, -1, True, None, 2.5):
        with pytest.raises((TypeError, ValueError), match="signal must be"):
            task.kill(bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["TERM", "INT", "KILL"])
def test_the_supervisor_outlives_the_signal(pool: TaskPool, name: str) -> None:
    """It has said all there is to say of the command's end, and stays to be asked."""
    task = pool.spawn(SLEEP)
    for _ in range(2):
        assert task.kill(name)
        assert task.wait(20)
        assert task.restart()
    assert alive(task.pid)


def test_pause_stops_all_that_the_command_has_started(pool: TaskPool) -> None:
    task = pool.spawn(shell("setsid sleep 3600 & sleep 3600 & echo $!; wait"))
    wait_for_output(task, b"\n")
    family = [task.info()["pid"], int(task.stream(1).read())]
    wait_for(lambda: len(Path(f"/proc/{family[0]}/task/{family[0]}/children").read_text().split()) == 2)
    family += map(int, Path(f"/proc/{family[0]}/task/{family[0]}/children").read_text().split())
    assert task.pause()
    wait_for(lambda: {state(pid) for pid in family} == {"T"})
    assert task.info(fresh=True)["status"]["paused"]
    assert task.resume()
    wait_for(lambda: {state(pid) for pid in family} == {"S"})
    assert not task.info(fresh=True)["status"]["paused"]
    task.pause()
    task.pause(False)
    wait_for(lambda: {state(pid) for pid in family} == {"S"})
    task.kill()
    for pid in family:  # also the one that had left the process group
        wait_for(lambda pid=pid: not alive(pid))  # type: ignore[misc]


def test_restart_executes_an_ended_command_again(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo run; read line; echo $line"))
    assert not task.restart()  # it is running
    first = task.info()["pid"]
    task.stream(0).write("one\n")
    task.wait(20)
    assert {event["event"] for event in task.events()} == {"output-available", "exit"}  # it has ended, and so do these
    events = task.events(forever=True)
    assert task.restart()
    second = wait_for_info(task, lambda info: info["status"]["running"])["pid"]
    assert second != first
    assert {"event": "restart", "pid": second, "count": 1} in events
    events.close()
    task.stream(0).write("two\n")
    status = task.wait(20)
    assert status is not None
    assert status["exit_code"] == 0
    assert task.stream("stdout").read() == b"run\none\nrun\ntwo\n"
    assert task.info(fresh=True)["restarts"]["count"] == 1
    assert task.stream("stdout").ended


def test_a_restart_that_cannot_be(pool: TaskPool, tmp_path: Path) -> None:
    program = tmp_path / "program"
    program.write_text("#!/bin/sh\nexit 0\n")
    program.chmod(0o755)
    task = pool.spawn([program])
    task.wait(20)
    program.unlink()
    with pytest.raises(TaskNotStarted, match=r"cannot run.*No such file") as caught:
        task.restart()
    assert caught.value.exit_code == 127
    status = task.wait(20)
    assert status is not None
    assert (status["exit_code"], status["state"]) == (127, "terminated by error")


def test_who_has_waited_knows_how_it_stands(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    assert not task.info()["status"]["paused"]
    task.pause()
    wait_for_info(Task(pool, task.pid), lambda info: info["status"]["paused"])
    assert task.wait(0) is None
    assert task.info()["status"]["paused"]


def test_wait_gives_up_after_its_time(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    assert task.wait(0) is None
    assert task.wait(0.05) is None
    with pytest.raises(ValueError, match="timeout must be"):
        task.wait(-1)


def test_the_supervisor_is_ended_and_its_command_with_it(pool: TaskPool) -> None:
    task = pool.spawn(shell("trap 'echo bye; exit 4' TERM; echo ready; sleep 3600 & wait"))
    wait_for_output(task, b"ready")
    command = task.info()["pid"]
    task.terminate_supervisor()
    assert not alive(task.pid)
    assert not alive(command)
    assert not os.path.lexists(pool.socket_path(task.pid))
    assert not os.path.lexists(pool.output_path(task.pid))
    info = task.info(fresh=True)
    assert (info["status"]["exit_code"], info["status"]["state"]) == (4, "terminated by request")
    assert info["status"]["reason"] == "its supervisor was ended"
    assert info["supervisor"] == {"pid": task.pid, "running": False}
    assert task.stream(1).read() == b"ready\nbye\n"
    assert task.wait(0) == info["status"]
    assert pool.search() == [task]
    assert pool.task_by_pid(task.pid) is None
    for call in (task.kill, task.restart, lambda: task.apply_meta(a=1), task.connect, lambda: next(task.events())):
        with pytest.raises(TaskGone):
            call()
    task.terminate_supervisor()  # nothing is left to be done


def test_delete_ends_all_and_leaves_no_file(pool: TaskPool) -> None:
    task = pool.spawn(shell("trap '' TERM; setsid sleep 3600 & echo ready; sleep 3600"), max_read_buf_size=1000)
    wait_for_output(task, b"ready")
    command = task.info()["pid"]
    task.delete()
    assert os.listdir(pool.path) == []
    assert not alive(command)
    assert not alive(task.pid)
    task.delete()
    task.terminate_supervisor()
    for call in (lambda: task.info(fresh=True), task.stream(1).read, lambda: task.stream(1).limit, task.kill):
        with pytest.raises(TaskGone):
            call()


def test_search_by_pattern_and_by_predicate(pool: TaskPool) -> None:
    first = pool.spawn(SLEEP, meta={"name": "foo", "n": 1})
    second = pool.spawn(["true"], meta={"name": "foo", "n": 2})
    second.wait(20)
    third = pool.spawn(SLEEP, meta={"name": "bar"})
    assert pool.search() == [first, second, third]
    assert pool.search({"meta": {"name": "foo"}}) == [first, second]
    assert pool.search({"status": {"running": 1}}) == [first, third]
    assert pool.search(lambda info: info["meta"]["n"] > 1) == [second]
    assert pool.search({"meta": {"name": "nothing"}}) == []
    assert TaskPool(pool.path).search({"meta": {"name": "bar"}})[0].info()["pid"] == third.info()["pid"]
    with pytest.raises(TypeError, match="pattern must be"):
        pool.search(7)  # type: ignore[arg-type]


def test_a_task_by_its_pid(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    found = pool.task_by_pid(task.pid)
    assert found == task
    assert found is not None
    assert found.id == task.id
    assert pool.task_by_pid(os.getpid()) is None
    assert Task(pool, task.pid).info()["pid"] == task.info()["pid"]
    task.kill()
    task.wait(20)
    task.terminate_supervisor()
    assert Task(pool, task.pid).info()["status"]["signal"] == 9  # from what is on the disk
    with pytest.raises(TaskGone, match="no task 1 in"):
        Task(pool, 1).info()
    with pytest.raises(TypeError, match="pid must be an int"):
        Task(pool, "1")  # type: ignore[arg-type]


def test_connect_tells_why_not(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    assert task.connect()
    reason: dict[str, Any] = {}
    assert task.connect(reason)
    assert reason == {}
    task.disconnect()
    assert not Task(pool, 1).connect(reason)
    assert reason["errno"] == 2
    assert "no supervisor 1" in reason["error"]
    with pytest.raises(TaskGone, match="no supervisor 1"):
        Task(pool, 1).connect()


def test_a_lock_file_is_for_one_at_a_time(pool: TaskPool, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    first = pool.spawn(CAT, lockfile=lock)
    with pytest.raises(TaskLocked, match=f"is locked by process {first.pid}") as caught:
        pool.spawn(CAT, lockfile=str(lock))
    assert caught.value.pid == first.pid
    assert pool.search() == [first]
    assert len(os.listdir(pool.path)) == 3  # its directory, socket and output, and nothing of the other
    first.stream(0).close()
    first.wait(20)
    second = pool.spawn(CAT, lockfile=lock)  # the command has ended, though its supervisor has not
    with pytest.raises(TaskLocked, match=f"is locked by process {second.pid}"):
        first.restart()
    second.kill()
    second.wait(20)
    assert first.restart()
    with pytest.raises(FileNotFoundError, match="No such file") as lost:
        pool.spawn(CAT, lockfile=tmp_path / "nowhere" / "lock")
    assert lost.value.filename == str(tmp_path / "nowhere" / "lock")
    with pytest.raises(IsADirectoryError):
        pool.spawn(CAT, lockfile=tmp_path)


def test_restarts_by_themselves(pool: TaskPool, tmp_path: Path) -> None:
    task = pool.spawn(
        shell(f"echo x >> {tmp_path}/count; test $(wc -l < {tmp_path}/count) -ge 3"),
        restart="on-failure",
        restart_backoff=0.01,
    )
    exits = [event for event in task.events() if event["event"] == "exit"]
    assert [event["final"] for event in exits[-1:]] == [True]
    status = task.wait(20)
    assert status is not None
    assert status["exit_code"] == 0
    assert task.info(fresh=True)["restarts"]["count"] == 2
    assert (tmp_path / "count").read_text() == "x\n" * 3


def test_restarts_have_a_limit(pool: TaskPool) -> None:
    task = pool.spawn(shell("echo x"), restart="always", restart_limit=3, restart_backoff=0.001)
    assert b"".join(task.stream(1).follow()) == b"x\n" * 4  # the stream ends with the last of them
    assert task.info(fresh=True)["restarts"] == {"policy": "always", "limit": 3, "count": 3, "next": None}


def test_what_somebody_ended_is_not_restarted(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP, restart="always", restart_backoff=0.001)
    task.kill("TERM")
    status = task.wait(20)
    assert status is not None
    assert (status["signal"], status["state"]) == (15, "terminated by request")
    waiting = pool.spawn(["false"], restart="on-failure", restart_backoff=1e6, restart_backoff_max=1e6)
    wait_for_info(waiting, lambda info: info["restarts"]["next"])
    assert waiting.wait(0.01) is None  # it may still be started again
    waiting.kill("TERM")  # nothing runs, but a restart is due
    assert waiting.wait(20)
    assert waiting.info(fresh=True)["restarts"]["next"] is None


def test_hundred_tasks_at_once(pool: TaskPool) -> None:
    made = [pool.spawn(shell(f"read x; echo {n}"), meta={"n": n}) for n in range(100)]
    assert len(pool.search({"status": {"running": True}})) == 100
    for task in made:
        task.stream(0).write(b"go\n")
    assert all(task.wait(60) for task in made)
    assert [task.stream(1).read() for task in made] == [b"%d\n" % n for n in range(100)]
    assert pool.search(lambda info: info["meta"]["n"] == 77) == [made[77]]
    for task in made:
        task.delete()
    assert os.listdir(pool.path) == []


def test_the_default_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, path in (
        ("BOSSWORKER_TASKS", tmp_path / "named", tmp_path / "named"),
        ("XDG_STATE_HOME", tmp_path / "state", tmp_path / "state" / "bossworker-tasks"),
        ("HOME", tmp_path, tmp_path / ".local" / "state" / "bossworker-tasks"),
    ):
        monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))  # goes when the user logs out
        for other in ("BOSSWORKER_TASKS", "XDG_STATE_HOME"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, str(value))
        pool = tasks.default_task_pool()
        assert pool.path == str(path)
        assert os.stat(path).st_mode & 0o777 == 0o700
    assert tasks.default_task_pool() is pool
    pool.apply_supervisor_env(GREETING="hello")
    task = tasks.spawn(shell("echo $GREETING; exec sleep 3600"), meta={"name": "default"})
    wait_for_output(task, b"hello\n")
    assert tasks.search({"meta": {"name": "default"}}) == [task]
    assert Task(task.pid).info()["id"] == task.id
    task.delete()


def test_the_directory_of_a_pool(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="mkdir_if_missing"):
        TaskPool(tmp_path / "a")
    TaskPool(tmp_path / "b", mkdir_if_missing=0o2770)
    assert os.stat(tmp_path / "b").st_mode & 0o7777 == 0o2770
    for wanted in ("yes", (1, 2, 3, 4), (-1,), (0o700, "root")):
        for name in ("b", "c"):  # there is something to be made or not
            with pytest.raises((TypeError, ValueError), match="mkdir_if_missing"):
                TaskPool(tmp_path / name, mkdir_if_missing=wanted)  # type: ignore[arg-type]
    if os.geteuid() == 0:
        TaskPool(tmp_path / "d", mkdir_if_missing=(0o755, 65534, 65533))
        made = os.stat(tmp_path / "d")
        assert (made.st_mode & 0o7777, made.st_uid, made.st_gid) == (0o755, 65534, 65533)


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("path", 5, TypeError),
        ("path", b"/tmp", TypeError),
        ("path", "", ValueError),
        ("path", "a\0b", ValueError),
        ("supervisor_cmd", "python", ValueError),
        ("supervisor_cmd", [], ValueError),
        ("supervisor_cmd", [5], TypeError),
        ("supervisor_env", 5, TypeError),
        ("supervisor_env", {"A": 5}, TypeError),
        ("supervisor_env", {"A=": "5"}, ValueError),
        ("task_class", 5, TypeError),
    ],
)
def test_bad_settings_of_a_pool(tmp_path: Path, name: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=name):
        TaskPool(**{"path": tmp_path / "a", name: value}, mkdir_if_missing=True)
    assert not (tmp_path / "a").exists()


def test_everything_public_is_there() -> None:
    for name in tasks.__all__:
        assert getattr(tasks, name)
    with pytest.raises(AttributeError):
        _ = tasks.nothing  # type: ignore[attr-defined]
    assert issubclass(TaskLocked, TaskNotStarted)
    assert issubclass(TaskNotStarted, tasks.TaskError)
    assert issubclass(tasks.TaskError, BossWorkerError)

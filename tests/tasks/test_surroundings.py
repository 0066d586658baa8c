"""Where a task lives: sessions and process groups, environment, long paths, other users."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from bossworker.tasks import Task, TaskError, TaskPool, current
from bossworker.tasks.client import spawning
from bossworker.tasks.supervisor.startup import accesses
from tests.conftest import alive, signals_in, wait_for
from tests.tasks.programs import CAT, SLEEP, python, shell, wait_for_output

PROJECT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROJECT}


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def test_behaviors_differ_in_parent_group_and_session(pool: TaskPool) -> None:
    foreground, background, daemon = (
        pool.spawn(CAT, behavior=behavior) for behavior in ("foreground", "background", "daemon")
    )
    ours = os.getsid(0), os.getpgrp()
    assert (os.getsid(foreground.pid), os.getpgid(foreground.pid)) == ours
    assert (os.getsid(background.pid), os.getpgid(background.pid)) == ours
    assert (os.getsid(daemon.pid), os.getpgid(daemon.pid)) == (daemon.pid, daemon.pid)
    assert parent(foreground.pid) == os.getpid()
    assert os.readlink(f"/proc/{foreground.pid}/fd/1") == os.readlink("/proc/self/fd/1")
    assert os.readlink(f"/proc/{background.pid}/fd/1") == pool.output_path(background.pid)
    assert not os.path.exists(pool.output_path(foreground.pid))
    for task in (foreground, background, daemon):
        command = task.info()["pid"]
        assert os.getsid(command) == command
        assert task.stream(0).write(b"x\n") == 2
        task.stream(0).close()
        assert task.wait(20)
        assert task.stream(1).read() == b"x\n"
    os.kill(foreground.pid, signal.SIGTERM)
    assert os.waitpid(foreground.pid, 0)[1] == 0


@pytest.mark.parametrize("end", [Task.terminate_supervisor, Task.delete])
def test_a_supervisor_in_the_foreground_is_reaped_by_who_ends_it(pool: TaskPool, end: Callable[[Task], None]) -> None:
    task = pool.spawn(CAT, behavior="foreground")
    end(task)
    assert not os.path.exists(f"/proc/{task.pid}")


def test_the_spawner_may_block_every_signal(pool: TaskPool) -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        for behavior in ("foreground", "background"):
            task = pool.spawn(shell("grep SigBlk: /proc/self/status"), behavior=behavior)
            assert task.wait(20)
            assert task.stream(1).read().split() == [b"SigBlk:", b"0" * 16]
            task.delete()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


CTRL_C = """
import os, sys, time
from bossworker.tasks import TaskPool
pool = TaskPool(sys.argv[1])
for behavior in ("foreground", "background", "daemon"):
    print(pool.spawn(["sleep", "3600"], behavior=behavior).pid, flush=True)
time.sleep(3600)
"""


def test_a_signal_to_the_spawners_group_ends_what_is_in_it(pool: TaskPool) -> None:
    with subprocess.Popen(python(CTRL_C, pool.path), stdout=-1, stderr=-1, env=ENVIRONMENT, process_group=0) as spawner:
        assert spawner.stdout is not None
        tasks = [Task(pool, int(spawner.stdout.readline())) for _ in range(3)]
        commands = [task.info()["pid"] for task in tasks]
        os.killpg(spawner.pid, signal.SIGINT)
    for task, command, stays in zip(tasks, commands, (False, False, True), strict=True):
        if not stays:
            wait_for(lambda pid=task.pid: not alive(pid))  # type: ignore[misc]
            assert task.info(fresh=True)["status"]["state"] == "terminated by request"
        assert alive(command) is stays


def test_the_commands_surroundings(pool: TaskPool, tmp_path: Path) -> None:
    """Only 0, 1, 2 and the descriptor for messages are open, signals are as usual, the umask is ours."""
    program = """
import json, os, signal
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd") if os.path.exists(f"/proc/self/fd/{fd}"))
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status"))
print(json.dumps([fds, status["SigIgn"].strip(), status["SigBlk"].strip(), os.umask(0), os.getcwd(), dict(os.environ)]))
"""
    for behavior in ("background", "foreground"):
        before = os.umask(0o027)
        try:
            task = pool.spawn(python(program), env={"A": "ü", "HOME": None}, cwd=tmp_path, behavior=behavior)
        finally:
            os.umask(before)
        task.wait(20)
        fds, ignored, blocked, umask, cwd, environment = json.loads(task.stream(1).read())
        assert [fd for fd in fds if os.path.basename(str(fd)) != "4"][:4] == [0, 1, 2, 3]
        assert signals_in(ignored) <= {signal.SIGPIPE, signal.SIGXFSZ}  # Python's own
        assert (int(blocked, 16), umask, cwd) == (0, 0o027, str(tmp_path))
        assert environment["A"] == "ü"
        assert "HOME" not in environment
        assert environment["BOSSWORKER_TASKS"] == pool.path
        assert (environment["BOSSWORKER_TASK_PID"], environment["BOSSWORKER_TASK_FD"]) == (str(task.pid), "3")
        assert environment["BOSSWORKER_TASK_ID"] == task.id


def test_a_supervisor_of_ones_own_making(pool: TaskPool, tmp_path: Path) -> None:
    """A program in front of the default one; variables for it and its commands; another class of tasks."""

    class OwnTask(Task):
        pass

    script = tmp_path / "wrapper"
    script.write_text('#!/bin/sh\necho "$EXTRA" > "$1"\nshift\nexec "$@"\n')
    script.chmod(0o755)
    own = TaskPool(pool.path, supervisor_env={"EXTRA": "one"}, task_class=OwnTask)
    assert own.supervisor_env == {"EXTRA": "one"}
    assert pool.supervisor_env == {"BOSSWORKER_TASKS": pool.path}
    assert own.apply_supervisor_env(MORE="two") == {"EXTRA": "one", "MORE": "two"}
    own.supervisor_cmd = [str(script), str(tmp_path / "seen"), *own.supervisor_cmd]
    task = own.spawn(shell("echo $EXTRA $MORE"))
    assert type(task) is OwnTask
    assert task.wait(20)
    assert task.stream(1).read() == b"one two\n"
    assert (tmp_path / "seen").read_text() == "one\n"
    assert [type(found) for found in own.search()] == [OwnTask]
    own.supervisor_cmd = ["false"]
    with pytest.raises(Exception, match="the supervisor ended before it had started the command"):
        own.spawn(SLEEP)
    with pytest.raises(ValueError, match="supervisor_cmd must name a program"):
        own.supervisor_cmd = []
    own.supervisor_cmd = None
    assert own.supervisor_cmd == pool.supervisor_cmd


@pytest.mark.parametrize("made", ["os.mkfifo(path)", "os.link(sys.argv[2], path)", "os.symlink(sys.argv[2], path)"])
def test_what_a_supervisor_says_goes_to_a_file_of_its_own(tmp_path: Path, made: str) -> None:
    """Whatever somebody who saw its task come has put in its place."""
    program = f"""
import os, sys
from bossworker.tasks.supervisor.startup import shed, speak_to
path = sys.argv[1]
{made}
shed()
speak_to(path)
os.write(1, b"said")
"""
    told, precious = tmp_path / "1.out", tmp_path / "precious"
    precious.write_bytes(b"precious")
    subprocess.run(python(program, told, precious), env=ENVIRONMENT, check=True, timeout=60)
    assert (told.read_bytes(), precious.read_bytes()) == (b"said", b"precious")


def test_a_program_that_never_becomes_a_supervisor(pool: TaskPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spawning, "ANSWER_SECONDS", 0.1)
    own = TaskPool(pool.path, supervisor_cmd=SLEEP)
    for behavior in ("foreground", "background"):
        for arguments in ([], ["x" * 100_000] * 10):  # more than a socket holds
            with pytest.raises(TaskError, match="ended before it had started the command"):
                own.spawn([*CAT, *arguments], behavior=behavior)


def test_a_path_longer_than_a_sockets_address(tmp_path: Path) -> None:
    pool = TaskPool(tmp_path / ("x" * 200) / ("y" * 200), mkdir_if_missing=True)
    task = pool.spawn(CAT, meta={"n": 1})
    assert pool.search({"meta": {"n": 1}}) == [task]
    task.stream(0).write(b"fine")
    task.stream(0).close()
    task.wait(20)
    assert b"".join(task.stream(1).follow()) == b"fine"
    task.delete()
    assert os.listdir(pool.path) == []


def test_a_task_finds_its_own_pool_by_default(pool: TaskPool) -> None:
    text = (
        "from bossworker.tasks import *; s = spawn(['true']); s.wait(); print(len(search()), current().pid); s.delete()"
    )
    task = pool.spawn(python(text), env={"PYTHONPATH": PROJECT})
    task.wait(20)
    assert task.stream(1).read() == b"2 %d\n" % task.pid
    assert current() is None


# -- other users ------------------------------------------------------------------------------------------

NOBODY = 65534
AS_NOBODY = f"""
import json, os, sys
os.setgroups([]); os.setgid({NOBODY}); os.setuid({NOBODY})
from bossworker.tasks import *
pool = TaskPool(sys.argv[1])
told = {{}}
def attempt(name, call):
    try:
        told[name] = call()
    except Exception as error:
        told[name] = type(error).__name__
"""

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs another user")


def as_nobody(pool: TaskPool, *attempts: str) -> dict[str, Any]:
    """What another user is told; each attempt is an expression."""
    calls = "\n".join(f"attempt({each!r}, lambda: {each})" for each in attempts)
    command = [interpreter(), "-c", f"{AS_NOBODY}{calls}\nprint(json.dumps(told))", pool.path]
    ended = subprocess.run(command, capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert ended.returncode == 0, ended.stderr
    return dict(zip(attempts, json.loads(ended.stdout).values(), strict=True))


@cache
def interpreter() -> str:
    """A Python that another user may run, with the package."""
    for program in (sys.executable, "/usr/bin/python3"):
        text = AS_NOBODY.partition("pool =")[0] + "TaskPool"
        if not subprocess.run([program, "-c", text], env=ENVIRONMENT, capture_output=True, check=False).returncode:
            return program
    pytest.skip("another user can run no Python with the package")


@pytest.fixture
def open_to_all(tmp_path: Path) -> Path:
    """Whoever is another user can get to the test's directory."""
    for folder in (tmp_path, *tmp_path.parents):
        if str(folder).startswith(f"{os.path.realpath('/tmp')}/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    return tmp_path


@as_root
@pytest.mark.parametrize(
    ("mode", "umask", "seen", "controlled"),
    [(0o700, 0, False, False), (0o755, 0o022, True, False), (0o777, 0o022, True, False), (0o777, 0, True, True),
     (0o1777, 0, True, False)],
)  # fmt: skip
def test_others_see_and_do_what_permissions_allow(
    open_to_all: Path, mode: int, umask: int, seen: bool, controlled: bool
) -> None:
    pool = TaskPool(open_to_all / "shared", mkdir_if_missing=mode)
    before = os.umask(umask)
    try:
        task = pool.spawn(shell("echo secret; exec cat"), meta={"name": "roots"})
    finally:
        os.umask(before)
    wait_for_output(task, b"secret\n")
    if mode == 0o700:
        assert set(as_nobody(pool, "pool.search()", f"Task(pool, {task.pid}).kill()").values()) <= {
            "PermissionError", "TaskGone",
        }  # fmt: skip
    else:
        it = f"Task(pool, {task.pid})" if controlled else "pool.search()[0]"
        search, output, kill, write = as_nobody(
            pool,
            "len(pool.search({'meta': {'name': 'roots'}, 'status': {'running': True}}))",
            f"{it}.stream(1).read().decode()",
            f"{it}.kill(0)",
            f"{it}.stream(0).write('hello')",
        ).values()
        assert (search, output) == (1, "secret\n")
        assert (kill, write) == ((True, 5) if controlled else ("TaskGone", "TaskGone"))
    assert seen is (mode != 0o700)
    assert task.kill()
    task.delete()
    assert os.listdir(pool.path) == []


@as_root
def test_a_directory_for_all_keeps_everybodys_tasks_apart(open_to_all: Path) -> None:
    pool = TaskPool(open_to_all / "shared", mkdir_if_missing=0o1777)
    ours = pool.spawn(SLEEP, meta={"name": "ours"})
    theirs = as_nobody(pool, "pool.spawn(['sleep', '3600'], meta={'name': 'theirs'}, behavior='daemon').pid")
    (pid,) = theirs.values()
    assert {found.pid for found in pool.search()} == {ours.pid, pid}
    assert as_nobody(pool, "[t.kill() for t in pool.search({'meta': {'name': 'theirs'}})]").popitem()[1] == [True]
    assert as_nobody(pool, "[t.info()['meta']['name'] for t in pool.search()][-1]").popitem()[1] == "theirs"
    assert as_nobody(pool, "pool.search()[0].delete()", "pool.search()[0].kill()") == {
        "pool.search()[0].delete()": "TaskGone",
        "pool.search()[0].kill()": "TaskGone",
    }
    ended = pool.spawn(["true"])
    ended.wait(20)
    ended.terminate_supervisor()
    assert as_nobody(pool, f"Task(pool, {ended.pid}).delete()").popitem()[1] == "TaskError"
    assert ours.info(fresh=True)["status"]["running"]
    for task in pool.search():
        task.delete()
    assert os.listdir(pool.path) == []


@pytest.mark.parametrize(
    ("pool_mode", "umask", "directory", "control"),
    [
        (0o700, 0o000, 0o700, 0o600),
        (0o755, 0o022, 0o755, 0o600),
        (0o2770, 0o007, 0o750, 0o660),
        (0o770, 0o022, 0o750, 0o600),
        (0o777, 0o000, 0o755, 0o666),
        (0o1777, 0o000, 0o755, 0o600),
        (0o733, 0o000, 0o700, 0o600),
        (0o777, 0o077, 0o700, 0o600),
    ],
)
def test_a_task_is_as_open_as_its_pool_and_the_umask(pool_mode: int, umask: int, directory: int, control: int) -> None:
    assert accesses(0o40000 | pool_mode, umask) == (directory, control)

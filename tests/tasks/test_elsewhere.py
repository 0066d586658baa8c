"""A pool that containers and hosts share: whoever cannot see a supervisor asks it, and judges nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bossworker.system import identity
from bossworker.tasks import Task, TaskGone, TaskPool
from tests.commands.privileges import unshare
from tests.conftest import alive, wait_for
from tests.tasks.programs import CAT, SLEEP, shell, wait_for_output

PROJECT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROJECT}
CONTAINER = ("--pid", "--fork", "--mount-proc", "--kill-child")

INSIDE = """
import sys
from bossworker.tasks import TaskPool
task = TaskPool(sys.argv[1]).spawn(sys.argv[2:], behavior="daemon")
print(task.pid, task.id, flush=True)
for line in sys.stdin:
    print(repr(eval(line)), flush=True)
"""


class Container:
    """A program in a pid namespace of its own that has spawned a task, and evaluates what it is sent."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert process.stdout is not None
        pid, self.id = process.stdout.readline().split()
        self.pid = int(pid)

    def ask(self, expression: str) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{expression}\n")
        self.process.stdin.flush()
        return eval(self.process.stdout.readline())


@contextmanager
def container(pool: TaskPool, command: list[str], *options: str, setup: str = "true") -> Iterator[Container]:
    argv = [*unshare(*CONTAINER, *options, setup=setup), sys.executable, "-c", INSIDE, pool.path, *command]
    with subprocess.Popen(argv, stdin=-1, stdout=-1, text=True, env=ENVIRONMENT) as process:
        try:
            yield Container(process)
        finally:
            process.kill()


def test_to_look_from_outside_is_harmless_and_the_supervisor_is_asked(pool: TaskPool) -> None:
    with container(pool, CAT) as inside:
        (task,) = pool.search({"status": {"running": True}})
        assert (task.pid, task.id) == (inside.pid, inside.id)
        assert task.info(fresh=True)["status"]["running"]
        assert inside.ask("task.info(fresh=True)['status']['state']") == "running"
        assert task.stream(0).write(b"from outside\n") == 13
        wait_for_output(task, b"from outside\n")
        assert task.kill("TERM")
        status = task.wait(20)
        assert status is not None
        assert (status["signal"], inside.ask("task.wait(20)['signal']")) == (15, 15)
        task.delete()
        assert os.listdir(pool.path) == []


def test_two_containers_of_one_pool(pool: TaskPool) -> None:
    """Their supervisors have the same pid."""
    with container(pool, CAT) as one, container(pool, CAT) as other:
        assert one.pid == other.pid
        assert {task.id for task in pool.search()} == {one.id, other.id}
        for inside, name in ((one, "one"), (other, "other")):
            by_pid = f"TaskPool(task.task_pool.path).task_by_pid({inside.pid})"
            assert inside.ask(f"{by_pid}.id, {by_pid}.stream(0).write('{name}')") == (inside.id, len(name))
            assert inside.ask(f"task.task_pool.socket_path({inside.pid})").endswith(f"{inside.id[-12:]}.sock")
            wait_for(partial(inside.ask, f"task.stream(1).peek() == {name.encode()!r}"))
        assert pool.task_by_pid(one.pid) is None  # here, that is somebody else's number
        assert one.ask("task.kill()") is True
        assert other.ask("task.info(fresh=True)['status']['running']") is True
        for task in pool.search():
            task.delete()
    assert os.listdir(pool.path) == []


LOOKS = """
import json, sys
from bossworker.system import identity
from bossworker.tasks import Task, TaskError, TaskPool
from bossworker.tasks.client import events
events.END_SECONDS = 0.1
pool = TaskPool(sys.argv[1])
(task,) = pool.search()
told = {"held": identity.look(json.loads(sys.argv[2])), "waited": task.wait(0.2), "out": task.stream(1).read().decode(),
        "ended": task.stream(1).ended, "by pid": pool.task_by_pid(task.pid) is None, **task.info(fresh=True)}
for name, call in (("delete", task.delete), ("end", task.terminate_supervisor), ("kill", task.kill),
                   ("follow", lambda: list(task.stream(1).follow()))):
    try:
        told[name] = call()
    except TaskError as error:
        told[name] = type(error).__name__
print(json.dumps(told))
"""


def another_boot_id(path: Path) -> str:
    (path / "boot").write_text("11111111-2222-3333-4444-555555555555\n")
    return f"mount --bind {path}/boot /proc/sys/kernel/random/boot_id"


PLACES: dict[str, tuple[Callable[[Path], list[str]], str]] = {
    "container": (lambda path: unshare(*CONTAINER), "in another pid namespace"),
    "other boot id": (lambda path: unshare("--mount", setup=another_boot_id(path)), "under another boot id"),
    "other host": (
        lambda path: unshare("--mount", "--uts", setup=f"hostname another && {another_boot_id(path)}"),
        f"on host {os.uname().nodename}",
    ),
    "no proc": (lambda path: unshare("--mount", setup="mount -t tmpfs none /proc"), identity.NO_PROC),
}


@pytest.mark.parametrize("place", PLACES)
def test_what_can_neither_be_seen_nor_reached_is_unknown(pool: TaskPool, tmp_path: Path, place: str) -> None:
    make, where = PLACES[place]
    task = pool.spawn(shell("echo here; exec sleep 3600"))
    wait_for_output(task, b"here\n")
    command, path = task.info()["pid"], pool.socket_path(task.pid)
    supervisor = json.dumps(identity.of(task.pid))
    before = set(os.listdir(pool.path))
    os.rename(path, f"{path}.hidden")  # as from another host, where nobody listens on it
    Path(path).touch()
    argv = [*make(tmp_path), sys.executable, "-c", LOOKS, pool.path, supervisor]
    ended = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    os.rename(f"{path}.hidden", path)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(ended.stdout)
    assert (told["held"], told["supervisor"]) == (where, {"pid": task.pid, "running": None})
    status = {key: told["status"][key] for key in ("state", "running", "reason")}
    assert status == {"state": "unknown", "running": None, "reason": where}
    assert (told["waited"], told["out"], told["ended"], told["by pid"]) == (None, "here\n", False, True)
    assert (told["streams"]["stdout"]["eof"], told["pid"]) == (False, None)
    assert {told[name] for name in ("delete", "end", "kill", "follow")} == {"TaskGone"}
    assert alive(command)
    assert set(os.listdir(pool.path)) == before
    assert task.info(fresh=True)["status"]["running"]


def test_what_has_ended_elsewhere_is_known(pool: TaskPool, tmp_path: Path) -> None:
    """By its last word, though its supervisor cannot be seen."""
    task = pool.spawn(shell("echo here; exit 3"))
    assert task.wait(20)
    task.terminate_supervisor()
    code = """
import sys
from bossworker.tasks import TaskPool
(task,) = TaskPool(sys.argv[1]).search({"status": {"exit_code": 3, "running": False}})
print(task.wait()["exit_code"], list(task.stream(1).follow()), task.info()["supervisor"]["running"])
task.delete()
"""
    argv = [*PLACES["other host"][0](tmp_path), sys.executable, "-c", code, pool.path]
    told = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True).stdout
    assert told == "3 [b'here\\n'] False\n"
    assert os.listdir(pool.path) == []


def test_a_killed_container_leaves_a_task_that_is_unknown_outside(pool: TaskPool) -> None:
    with container(pool, SLEEP, "--uts", setup="hostname inside") as inside:
        (task,) = pool.search()
        assert task.id == inside.id
    wait_for(lambda: pool.search({"status": {"state": "unknown", "reason": "on host inside"}}) == [task])
    with pytest.raises(TaskGone):
        task.delete()
    assert os.path.isdir(f"{pool.path}/{task.id}")
    status = Path(pool.path, task.id, "status.json")  # now we say that it was one of ours
    found = json.loads(status.read_text())
    found["supervisor"][3:] = identity.own()[3:]
    status.write_text(json.dumps(found))
    Task(pool, task.pid).delete()

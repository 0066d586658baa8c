"""In a pool that others may write to, they may spoil tasks, but not lead us to files and processes elsewhere."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker.commands import safe_files
from bossworker.system import identity
from bossworker.tasks import TaskError, TaskPool
from bossworker.tasks.wire.protocol import encode
from tests.commands.privileges import NOBODY, as_nobody, make_sudo, need_root
from tests.conftest import alive
from tests.tasks.programs import SLEEP, python, shell, wait_for_output
from tests.tasks.test_clients import connected
from tests.tasks.test_deaths import kill

PROJECT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROJECT}


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """A file that is nobody's business."""
    path = tmp_path / "secret"
    path.touch(0o600)
    return path


@pytest.fixture
def open_pool(tmp_path: Path, no_launcher: None) -> Iterator[TaskPool]:
    """One that all may write to, at a path that all may reach."""
    for folder in (tmp_path, *tmp_path.parents):
        with suppress(PermissionError):
            folder.chmod(folder.stat().st_mode | 0o055)
    before = os.umask(0o002)
    yield TaskPool(tmp_path / "open", mkdir_if_missing=0o777)
    os.umask(before)


# -- paths ------------------------------------------------------------------------------------------------------

EXCHANGES = """
import os, sys
sys.path.insert(0, sys.argv[1])
from bossworker.tasks.wire import socket_paths
from bossworker.tasks.supervisor import startup
bind = socket_paths.bind
def bind_and_exchange(sock, folder, name):
    bind(sock, folder, name)
    os.rename(f"{folder}/{name}", f"{folder}/taken-{name}")
    os.symlink(sys.argv[2], f"{folder}/{name}")
socket_paths.bind = bind_and_exchange
startup.main()
"""


def test_a_link_in_the_place_of_the_socket_leads_nowhere(open_pool: TaskPool, secret: Path) -> None:
    """Whoever may write to the pool puts it there as soon as the socket has its name."""
    own = TaskPool(open_pool.path, supervisor_cmd=python(EXCHANGES, PROJECT, secret))
    task = own.spawn(["true"], linger=0)
    assert secret.stat().st_mode & 0o777 == 0o600
    assert task.wait(20)
    task.delete()


def test_a_socket_has_its_mode_from_its_first_moment_on(open_pool: TaskPool) -> None:
    task = open_pool.spawn(SLEEP)
    assert os.stat(open_pool.socket_path(task.pid)).st_mode & 0o777 == 0o660
    task.delete()


ATTACK = """
import os, sys
pool, secret = sys.argv[1:]
print("ready", flush=True)
while True:
    try:
        for name in os.listdir(pool):
            if name.endswith(".sock") and not os.path.islink(f"{pool}/{name}"):
                os.rename(f"{pool}/{name}", f"{pool}/x{name}")
                os.symlink(secret, f"{pool}/{name}")
    except OSError:
        pass
"""


def test_an_attacker_who_races_us_changes_no_mode(
    open_pool: TaskPool, secret: Path, request: pytest.FixtureRequest
) -> None:
    argv = [*as_nobody(), sys.executable, "-c", ATTACK, open_pool.path, str(secret)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as attacker:
        assert attacker.stdout is not None
        attacker.stdout.readline()
        for _ in range(2000 if request.config.getoption("--long") else 20):
            with suppress(TaskError, OSError):
                open_pool.spawn(["true"], behavior="daemon", linger=0)
            assert secret.stat().st_mode & 0o777 == 0o600
        attacker.kill()
    for task in open_pool.search():
        task.delete()


def test_a_new_pool_that_is_exchanged_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By whoever may write to the folder above: for a link, or for another directory of ours."""
    (tmp_path / "precious").mkdir(mode=0o700)
    (tmp_path / "precious" / "file").touch()
    make = os.mkdir

    def make_and_exchange(path: Any, mode: int = 0o777, **more: Any) -> None:
        make(path, mode, **more)
        os.rmdir(path)
        exchange(path)

    def link(path: str) -> None:
        os.symlink(tmp_path / "precious", path)

    def move(path: str) -> None:
        os.rename(tmp_path / "precious", path)

    monkeypatch.setattr(os, "mkdir", make_and_exchange)
    for exchange, name in ((link, "precious"), (move, "moved")):
        with pytest.raises(OSError, match=f"{tmp_path}"):
            TaskPool(tmp_path / ("pool" if exchange is link else "moved"), mkdir_if_missing=0o777)
        assert os.stat(tmp_path / name).st_mode & 0o777 == 0o700


# -- whose it is ------------------------------------------------------------------------------------------------


def test_nobody_can_have_us_end_our_own_by_exchanging_directories(
    open_pool: TaskPool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forged task is there when its status is read, and ours when its owner is looked at."""
    need_root()
    task = open_pool.spawn(SLEEP)
    ours, forged = f"{open_pool.path}/{task.id}", f"{open_pool.path}/forged"
    kill(task.pid)
    with subprocess.Popen(SLEEP, start_new_session=True) as precious:
        os.mkdir(forged)
        status = json.loads(Path(ours, "status.json").read_text()) | {"command": identity.of(precious.pid)}
        Path(forged, "status.json").write_text(json.dumps(status))
        os.chown(forged, NOBODY, NOBODY)
        os.rename(ours, f"{ours}.away")
        os.rename(forged, ours)
        read = safe_files.read_json

        def read_and_exchange(folder: int, name: str) -> dict[str, Any]:
            found = read(folder, name)
            if name == "status.json" and os.path.exists(f"{ours}.away"):
                os.rename(ours, forged)
                os.rename(f"{ours}.away", ours)
            return found

        monkeypatch.setattr(safe_files, "read_json", read_and_exchange)
        task.info(fresh=True)
        assert precious.poll() is None
        precious.kill()
    task.delete()


# -- what is not ours to end, or to delete ----------------------------------------------------------------------

AS_NOBODY = """
import sys, time
from bossworker.tasks import TaskError, TaskPool
task = TaskPool(sys.argv[1]).spawn(sys.argv[2:], behavior="daemon", grace=0.1)
while not task.stream(1).limit:
    time.sleep(0.01)
for call in (task.delete, task.terminate_supervisor):
    try:
        call()
    except TaskError as error:
        print(type(error).__name__, error)
print(task.info(fresh=True)["status"]["reason"])
"""


def test_a_command_that_cannot_be_ended_keeps_nobody_waiting(open_pool: TaskPool, tmp_path: Path) -> None:
    """The supervisor says who it is, and stays with it."""
    sudo = make_sudo(tmp_path / "sudo")
    argv = [*as_nobody(), sys.executable, "-c", AS_NOBODY, open_pool.path]
    command = [*sudo, "sh", "-c", "echo $$; exec sleep 3600"]
    told = subprocess.run([*argv, *command], capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True)
    (task,) = open_pool.search({"status": {"running": True}})
    pid = int(task.stream(1).read())
    why = f"process {pid} cannot be ended: Operation not permitted"
    assert told.stdout.splitlines()[:2] == [f"TaskRefused {why}"] * 2
    assert why in told.stdout.splitlines()[2]
    assert alive(pid)
    os.kill(pid, 9)
    status = task.wait(20)
    assert status is not None
    assert status["signal"] == 9
    task.delete()


def test_all_who_ask_for_the_end_hear_that_it_cannot_be(open_pool: TaskPool, tmp_path: Path) -> None:
    """Those, too, who ask while it is tried."""
    sudo = make_sudo(tmp_path / "sudo")
    code = "import sys; from bossworker.tasks import TaskPool; TaskPool(sys.argv[1]).spawn(sys.argv[2:], grace=0.5)"
    command = [*sudo, "sh", "-c", "echo $$; exec sleep 3600"]
    argv = [*as_nobody(), sys.executable, "-c", code, open_pool.path, *command]
    subprocess.run(argv, env=ENVIRONMENT, timeout=60, check=True)
    (task,) = open_pool.search()
    wait_for_output(task, b"\n")
    pid = int(task.stream(1).read())
    with ExitStack() as stack:
        clients = [stack.enter_context(connected(open_pool, task.pid)) for _ in range(3)]
        for client in clients:
            client.sendall(encode({"op": "terminate"}))
        for client in clients:
            assert f"process {pid} cannot be ended" in client.recv(1000).decode()
    kill(pid)
    assert task.wait(20)
    task.delete()


def test_a_task_with_a_file_that_is_not_ours_to_delete_stays(open_pool: TaskPool, tmp_path: Path) -> None:
    need_root()
    code = "import sys; from bossworker.tasks import TaskPool; print(TaskPool(sys.argv[1]).spawn(['true']).wait(20))"
    argv = [*as_nobody(), sys.executable, "-c", code, open_pool.path]
    subprocess.run(argv, env=ENVIRONMENT, timeout=60, check=True, stdout=subprocess.DEVNULL)
    (task,) = open_pool.search()
    left = Path(open_pool.path, task.id, "files", "roots")
    left.mkdir(mode=0o755)
    (left / "file").touch()
    code = """
import sys
from bossworker.tasks import TaskError, TaskPool
(task,) = TaskPool(sys.argv[1]).search()
for _ in range(2):
    try:
        task.delete()
    except TaskError as error:
        print(error)
"""
    argv = [*as_nobody(), sys.executable, "-c", code, open_pool.path]
    told = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=True).stdout
    assert told.count("cannot be deleted: ") == 2
    assert told.count("Permission denied") == 2
    assert open_pool.search({"status": {"state": "completed"}}) == [task]
    task.delete()
    assert os.listdir(open_pool.path) == []


def test_a_detached_job_of_a_tasks_program_is_no_part_of_the_task(pool: TaskPool, tmp_path: Path) -> None:
    """When the task's supervisor is killed, whoever looks ends what the task has left, but not the job."""
    code = """
import sys, time
from bossworker import jobs
from bossworker.tasks import TaskPool, current
print(jobs.start(["sh", "-c", "env | grep BOSSWORKER_TASK_ >&2; exec sleep 3600"]), flush=True)
print(TaskPool(current().task_pool.path).spawn(["sleep", "3600"], behavior="daemon").id, flush=True)
time.sleep(3600)
"""
    environment = {"PYTHONPATH": PROJECT, "BOSSWORKER_ROOT": str(tmp_path / "jobs")}
    from bossworker import jobs

    task = pool.spawn(python(code), env=environment)
    wait_for_output(task, b"\n")
    job = task.stream(1).read().split()[0].decode()
    kill(task.pid)
    assert jobs.status(job, root=tmp_path / "jobs") == "running"
    for _ in range(2):
        assert task in pool.search()
        assert jobs.status(job, root=tmp_path / "jobs") == "running"
    assert jobs.stderr(job, root=tmp_path / "jobs") == ""
    task.delete()
    assert jobs.clean(job, root=tmp_path / "jobs")


def test_a_lock_file_is_not_made_through_a_link(pool: TaskPool, tmp_path: Path) -> None:
    """That somebody else may have put there; but a link to a file that is there will do."""
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="Too many levels"):
        pool.spawn(SLEEP, lockfile=tmp_path / "lock")
    assert not (tmp_path / "elsewhere").exists()
    (tmp_path / "elsewhere").touch()
    pool.spawn(shell("exec sleep 3600"), lockfile=tmp_path / "lock")
    with pytest.raises(TaskError, match="is locked"):
        pool.spawn(SLEEP, lockfile=tmp_path / "elsewhere")

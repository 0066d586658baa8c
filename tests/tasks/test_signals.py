"""Signals from outside: to all processes of a service at once, amid a spawn, and to programs that ask supervisors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bossworker.tasks import Task, TaskPool
from tests.conftest import alive, wait_for
from tests.tasks.programs import CAT, python, shell, wait_for_info, wait_for_output

PROJECT = str(Path(__file__).parents[2])
ENVIRONMENT = {**os.environ, "PYTHONPATH": PROJECT}

ENDING = ("TERM", "HUP", "INT", "QUIT")
SURVIVED = ("USR1", "USR2")
TRAP = "trap 'sleep 0.3; exit 7' {}; echo ready; while :; do sleep 0.05; done"


@pytest.mark.parametrize("name", [*ENDING, *SURVIVED])
@pytest.mark.parametrize("behavior", ["foreground", "background", "daemon"])
def test_a_signal_to_all_leaves_the_true_exit_code(pool: TaskPool, name: str, behavior: str) -> None:
    """A service manager signals every process of a service alike."""
    task = pool.spawn(["bash", "-c", TRAP.format(name)], behavior=behavior)
    wait_for_output(task, b"ready")
    for pid in (task.pid, task.info()["pid"]):
        os.kill(pid, getattr(signal, f"SIG{name}"))
    status = task.wait(20)
    assert status is not None
    assert status["exit_code"] == 7
    if name in ENDING:
        wait_for(lambda: not alive(task.pid))
    else:
        assert status["state"] == "terminated by error"
        assert task.kill(0) is False  # the supervisor is there to say so
    assert Task(pool, task.pid).info()["status"]["exit_code"] == 7
    task.terminate_supervisor()  # one in the foreground is ours to reap


@pytest.mark.parametrize("end", ["task.terminate_supervisor()", "os.kill(task.pid, signal.SIGTERM)"])
def test_what_the_command_starts_to_tidy_up_is_not_told_to_end(pool: TaskPool, tmp_path: Path, end: str) -> None:
    """TERM is for those that are there when the end begins."""
    trap = f"trap 'sleep 0.3 && touch {tmp_path}/tidied; exit 0' TERM; echo ready; while :; do sleep 0.05; done"
    task = pool.spawn(shell(trap), grace=20)
    wait_for_output(task, b"ready")
    eval(end)
    wait_for(lambda: not alive(task.pid))
    assert (tmp_path / "tidied").exists()
    assert task.info(fresh=True)["status"]["exit_code"] == 0


def test_the_grace_is_what_was_asked_for(pool: TaskPool) -> None:
    task = pool.spawn(shell("trap '' TERM; echo ready; while :; do sleep 0.05; done"), grace=0.05)
    wait_for_output(task, b"ready")
    before = time.monotonic()
    task.terminate_supervisor()
    assert task.info(fresh=True)["status"]["signal"] == 9
    assert time.monotonic() - before < 2.0 * 10
    with pytest.raises(ValueError, match="grace must be between 0"):
        pool.spawn(CAT, grace=-1)


TOLD_AMID_SPAWN = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from bossworker.commands import jobdir
from bossworker.tasks.supervisor import startup
create = jobdir.create_at
def create_and_signal(*arguments):
    for name in sys.argv[2:]:
        os.kill(os.getpid(), getattr(signal, name))
    return create(*arguments)
jobdir.create_at = create_and_signal
startup.main()
"""


def test_a_supervisor_that_is_told_to_end_amid_a_spawn_does_both(pool: TaskPool) -> None:
    own = TaskPool(pool.path, supervisor_cmd=python(TOLD_AMID_SPAWN, PROJECT, "SIGUSR1", "SIGTERM"))
    task = own.spawn(CAT)
    wait_for(lambda: not alive(task.pid))
    status = task.info()["status"]
    assert (status["state"], status["reason"]) == ("terminated by request", "its supervisor was ended")


# -- programs that ask ------------------------------------------------------------------------------------------

ASKS_IN_HANDLER = """
import signal, sys
from bossworker.tasks import TaskPool
task = TaskPool(sys.argv[1]).search()[0]
asked = 0
def handle(*_):
    global asked
    asked += 1
    assert task.info(fresh=True)["status"]["running"] is True
    assert task.kill(0) is True
    signal.setitimer(signal.ITIMER_REAL, 0.0001 + asked % 13 * 0.0001)
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.001)
for n in range(150):
    task.apply_meta(n=n)
    assert task.info(fresh=True)["meta"]["n"] == n
    if n % 20 == 0:
        task.disconnect()
signal.setitimer(signal.ITIMER_REAL, 0)
print(asked > 5)
"""


def test_a_signal_handler_may_ask_while_its_program_asks(pool: TaskPool) -> None:
    """Each gets its own answer."""
    pool.spawn(CAT)
    argv = python(ASKS_IN_HANDLER, pool.path)
    ended = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("True\n", "")


WITHOUT_SIGPIPE = """
import os, signal, sys
from bossworker.tasks import TaskError, TaskPool
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
pool = TaskPool(sys.argv[1])
(task,) = pool.search()
task.connect()
os.kill(task.pid, signal.SIGKILL)
told = []
for call in (lambda: task.apply_meta(a="x" * 200_000), task.kill, lambda: task.stream(0).write(b"x")):
    try:
        call()
    except TaskError as error:
        told.append("TaskGone")
pool.supervisor_cmd = ["false"]
try:
    pool.spawn(["x" * 100_000] * 10)
except TaskError as error:
    told.append("TaskError")
print(told)
"""


def test_a_supervisors_death_is_an_error_and_not_ours(pool: TaskPool) -> None:
    """Though SIGPIPE is at its default, as in many command-line tools."""
    pool.spawn(CAT)
    argv = python(WITHOUT_SIGPIPE, pool.path)
    ended = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "['TaskGone', 'TaskGone', 'TaskGone', 'TaskError']\n"), ended.stderr


SENDS_TO_THE_DEAD = """
import os, signal, socket, sys
from bossworker.tasks import StreamClosed, TaskPool
from bossworker.tasks.client.current import CurrentTask
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
task = CurrentTask(TaskPool(sys.argv[1]), 1, "20200101-000000-000000-" + "0" * 20, ours.fileno())
assert task.stream("data") is task.messages
theirs.send(b"to the task")
assert task.messages.read() == [b"to the task"]
full = 0
while task.messages.write(b"x" * 100_000, timeout=0):
    full += 1
assert full and task.messages.write(b"x" * 100_000, timeout=0.05) == 0
theirs.close()
try:
    task.send(b"x")
except StreamClosed as error:
    print(error)
"""


def test_a_message_to_a_supervisor_that_is_gone(pool: TaskPool) -> None:
    argv = python(SENDS_TO_THE_DEAD, pool.path)
    ended = subprocess.run(argv, capture_output=True, text=True, env=ENVIRONMENT, timeout=60, check=False)
    assert ended.stdout == "the supervisor is gone\n", (ended.returncode, ended.stderr)


STOPPABLE = """
import signal, sys
signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
print("ready", flush=True)
while True:
    signal.pause()
"""


IN_VFORK = """
import os, sys
opened = [(os.POSIX_SPAWN_OPEN, 0, sys.argv[1], os.O_RDONLY, 0)]
print("ready", flush=True)
pid = os.posix_spawn("/bin/true", ["true"], {}, file_actions=opened)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere nothing is known of it")
def test_a_command_that_waits_for_a_child_to_be_executed_is_paused(pool: TaskPool, tmp_path: Path) -> None:
    """It cannot be stopped itself until then, and goes on no sooner. (Here the child waits for somebody to write.)"""
    os.mkfifo(tmp_path / "fifo")
    task = pool.spawn(python(IN_VFORK, tmp_path / "fifo"))
    wait_for_output(task, b"ready")
    pid = task.info()["pid"]
    wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "D")
    assert not task.info(fresh=True)["status"]["paused"]
    task.pause()
    wait_for_info(task, lambda info: info["status"]["paused"])
    task.resume()
    wait_for_info(task, lambda info: not info["status"]["paused"])
    with open(tmp_path / "fifo", "w"):
        assert task.wait(20)["exit_code"] == 0  # type: ignore[index]


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_paused_command_hears_the_end(pool: TaskPool) -> None:
    task = pool.spawn(python(STOPPABLE), grace=20)
    wait_for_output(task, b"ready")
    task.pause()
    wait_for_info(task, lambda info: info["status"]["paused"])
    task.terminate_supervisor()
    assert task.info(fresh=True)["status"]["exit_code"] == 3

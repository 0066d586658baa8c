"""Things that happen to few, each at its worst moment."""

from __future__ import annotations

import fcntl
import os
import pickle
import resource
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import NoReturn

import pytest

from bossworker.system import processes
from bossworker.system.eventloop import Loop
from bossworker.tasks import StreamClosed, Task, TaskGone, TaskLocked, TaskPool, TaskRefused
from bossworker.tasks.client.shared_connection import MOST_KEPT
from bossworker.tasks.supervisor.clients import MOST_CLIENTS
from bossworker.tasks.wire.protocol import HEADER, MARK, encode
from tests.commands.disk import fill, small_disk
from tests.tasks.programs import CAT, SLEEP, nested, python, shell, wait_for_info, wait_for_output
from tests.tasks.test_clients import connected, cpu_seconds
from tests.tasks.test_deaths import PROJECT
from tests.tasks.test_streams import MB, uss

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
    connection = full._contact.connect()
    connection.send({"op": "write", "stream": 0, "wait": 1e9}, bytes(1 << 18))  # more than a pipe takes
    assert full.info(fresh=True)["status"]["running"]
    full.stream(3).close(immediate=True)
    assert full.kill(0)


@pytest.fixture
def handler_of_sigchld() -> Iterator[None]:
    """As it was: a supervisor ends with its loop, which leaves it."""
    before = signal.getsignal(signal.SIGCHLD)
    yield
    signal.signal(signal.SIGCHLD, before)


def test_a_sleep_longer_than_poll_can_count(handler_of_sigchld: None) -> None:
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
    assert processes.await_fd(ours, 1, 1e12)
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
                task.apply_meta({key: n})
                if task._contact.ask({"op": "info"})[0]["info"]["meta"][key] != n or not task.kill(0):
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


def test_a_program_may_hold_on_to_more_tasks_than_it_has_descriptors(pool: TaskPool) -> None:
    first = pool.spawn(SLEEP)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_KEPT + 100, hard))
    try:
        tasks = [Task(pool, first.pid) for _ in range(MOST_KEPT + 200)]
        for _ in range(2):
            assert all(task.info(fresh=True)["status"]["running"] for task in tasks)
        assert first.info(fresh=True)["clients"] <= MOST_KEPT + 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


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
            patch.setattr("bossworker.tasks.client.events.END_SECONDS", 0.1)
            with pytest.raises(TaskGone):
                list(events)
            with pytest.raises(TaskGone):
                list(follower)
    finally:
        os.rename(hidden, pool.socket_path(task.pid))
    follower = Task(pool, task.pid).stream(1).follow()
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


@pytest.mark.parametrize("name", ["commands.safe_files.open_folder", "tasks.wire.socket_paths.connect"])
def test_a_living_task_that_is_not_for_us_is_not_deleted(pool: TaskPool, name: str) -> None:
    """Neither where its files may not be read, nor where its supervisor may not be talked to."""
    task = pool.spawn(SLEEP)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(f"bossworker.{name}", refuse)
        with pytest.raises(TaskGone):
            Task(pool, task.pid).delete()
    assert task.kill(0)


def refuse(*_: object) -> NoReturn:
    raise PermissionError(1, "not permitted")


def test_who_watches_and_does_not_listen_costs_bounded_memory(pool: TaskPool) -> None:
    task = pool.spawn(SLEEP)
    task.info()
    before = uss(task.pid)
    with ExitStack() as stack:
        for _ in range(40):
            client = stack.enter_context(socket.socket(socket.AF_UNIX))
            client.connect(pool.socket_path(task.pid))
            client.sendall(encode({"op": "watch"}))
            client.recv(1)
        for n in range(12):
            task.apply_meta(text=f"{n}" + "y" * 200_000)
            assert uss(task.pid) - before < 40 * MB
        wait_for_info(task, lambda info: info["clients"] < 10)  # they were dropped


SENDS = """
import os, socket, errno
sock = socket.socket(fileno=int(os.environ["BOSSWORKER_TASK_FD"]))
for size in (131072, 250000, 262144, 400000):
    try:
        sock.send(b"a" * size)
    except OSError as error:
        print(size, errno.errorcode[error.errno], flush=True)
try:
    sock.setsockopt(socket.SOL_SOCKET, 32, 2 << 20)  # SO_SNDBUFFORCE
    sock.send(b"b" * 600_000)
except OSError:
    pass
sock.send(b"end")
"""


def test_a_message_is_whole_or_refused(pool: TaskPool) -> None:
    task = pool.spawn(python(SENDS))
    assert task.wait(20)
    assert task.stream(1).read() == b"262144 EMSGSIZE\n400000 EMSGSIZE\n"
    messages = task.stream("data").read()
    assert [len(message) for message in messages[:2]] == [131072, 250000]
    assert messages[-1] == b"end"
    assert messages[2:-1] in ([], [b"b" * 600_000])  # only root may have such a socket


def test_what_is_in_a_lock_file_stays(pool: TaskPool, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text("4711 precious\n")
    task = pool.spawn(CAT, lockfile=lock)
    with pytest.raises(TaskLocked, match=f"is locked by process {task.pid}") as caught:
        pool.spawn(CAT, lockfile=lock)
    assert caught.value.pid == task.pid
    task.kill()
    task.wait(20)
    with open(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(TaskLocked) as caught:
            task.restart()
        assert caught.value.pid == os.getpid()
    assert lock.read_text() == "4711 precious\n"


def test_a_message_that_waits_for_room_costs_no_time(small_disk: Path) -> None:
    """Though its command is gone, and the socket says so all the time."""
    task = TaskPool(small_disk).spawn(shell('read x; printf %20000s x >&"$BOSSWORKER_TASK_FD"'))
    fill(small_disk)
    task.stream(0).write(b"\n")
    wait_for_info(task, lambda info: any("data" in one for one in info["trouble"]) and not info["pid"])
    before = cpu_seconds(task.pid)
    time.sleep(0.5)
    assert cpu_seconds(task.pid) - before < 0.25
    with pytest.raises(StreamClosed):  # nor is it lost by one that comes too late
        task.stream(3).write(b"y")
    os.unlink(small_disk / "ballast")
    assert b"".join(task.stream(3).follow(timeout=20)).strip() == b"x"
    task.delete()


TAKES_ITS_TIME = """
import os, select, signal, sys
for one in (signal.SIGTERM, signal.SIGHUP):
    signal.signal(one, lambda number, frame: os.write(1, b"%d\\n" % number))  # print is not for handlers
os.write(1, b"ready\\n")
while not select.select([0], [], [], 0.05)[0]:  # Python says nothing of a signal that comes just before a long read
    pass
sys.exit(3)
"""


@pytest.mark.parametrize(("name", "state"), [("HUP", "terminated by error"), ("TERM", "terminated by request")])
def test_a_signal_that_was_survived_is_no_request(pool: TaskPool, name: str, state: str) -> None:
    task = pool.spawn(python(TAKES_ITS_TIME))
    wait_for_output(task, b"ready")
    task.kill(name)
    wait_for_output(task, b"ready\n1")
    task.stream(0).write(b"\n")
    status = task.wait(20)
    assert status is not None
    assert (status["exit_code"], status["state"]) == (3, state)


def test_a_pool_is_a_directory(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for make in (True, None):
        with pytest.raises(NotADirectoryError):
            TaskPool(tmp_path / "file", mkdir_if_missing=make)


def test_a_pool_may_be_a_link(tmp_path: Path) -> None:
    (tmp_path / "tasks").mkdir()
    (tmp_path / "link").symlink_to("tasks")
    (tmp_path / "broken").symlink_to("nowhere")
    pool = TaskPool(tmp_path / "link")
    task = pool.spawn(CAT)
    assert pool.search() == [task]
    task.terminate_supervisor()
    task.delete()
    assert os.listdir(pool.path) == []
    for make in (True, None):
        with pytest.raises(NotADirectoryError):
            TaskPool(tmp_path / "broken", mkdir_if_missing=make)


def test_metadata_of_any_depth_ends_no_supervisor(pool: TaskPool) -> None:
    """Whatever depth it is at which a supervisor that is deeper in calls than when it read the request gives up."""
    task = pool.spawn(CAT)
    task.apply_meta(nested(99))
    with pytest.raises(ValueError, match="meta must be nested at most 100 deep"):
        task.apply_meta(nested(101))
    for depth in range(900, 1000, 3):
        for head in (b'{"op": "meta", "meta": {"x": %s}}', b'{"op": %s}', b'{"op": "signal", "signal": %s}'):
            text = head % (b"[" * depth + b"]" * depth)
            with connected(pool, task.pid) as client:
                client.sendall(HEADER.pack(MARK, len(text), 0) + text)
                assert b'"ok": false' in client.recv(1000)
    assert task.info(fresh=True)["meta"] == nested(99)
    assert task.info()["status"]["running"]


def test_a_process_without_room_for_descriptors_is_told_so(pool: TaskPool) -> None:
    program = f"""
import resource
from bossworker.tasks import TaskPool
resource.setrlimit(resource.RLIMIT_NOFILE, (20, 20))
try:
    TaskPool({pool.path!r}).spawn(["true"])
except OSError as error:
    print(error)
"""
    environment = {**os.environ, "PYTHONPATH": PROJECT}
    ended = subprocess.run(python(program), env=environment, capture_output=True, text=True, check=True)
    assert "Too many open files" in ended.stdout, ended


def test_any_class_of_tasks_can_be_found_by_pid(pool: TaskPool) -> None:
    class Plain:
        def __init__(self, pool: TaskPool, pid: int) -> None:
            self.pid = pid

    task = pool.spawn(SLEEP)
    found = TaskPool(pool.path, task_class=Plain).task_by_pid(task.pid)  # type: ignore[arg-type]
    assert isinstance(found, Plain)
    assert found.pid == task.pid
    assert pool.task_by_pid(-1) is None
    assert pool.task_by_pid(0) is None

"""os.fork and its kin under the queue: for programs that know nothing of it, nothing else changes."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import pty
import runpy
import signal
import socketserver
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from os import waitpid as early_bound_waitpid
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.forkqueue import ForkQueue, admission, children, default_queue, install, installed, uninstall
from bossworker.system import processes
from tests.conftest import wait_for
from tests.forkqueue.conftest import Gate, Log, in_thread, interrupted, leaving, until_ended

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")

FORK = multiprocessing.get_context("fork")
NAMES = ("fork", "forkpty", "wait", "waitpid", "waitid", "wait3", "wait4")
UNAWARE = Path(__file__).with_name("unaware.py")


@pytest.fixture
def q(platform: str) -> Iterator[ForkQueue]:
    with installed(size=2) as queue:
        yield queue


def fork(fn: Callable[[], object]) -> int:
    """What a program does that knows nothing of the queue."""
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            fn()
            code = 0
        except SystemExit as leaving:
            code = int(leaving.code or 0)
        finally:
            os._exit(code)
    return pid


# -- programs that know nothing of it ---------------------------------------------------------------------------


@pytest.mark.parametrize("size", [None, 1, 3])
def test_a_program_is_limited_without_a_change(size: int | None, log: Log) -> None:
    program = [str(UNAWARE), str(log.path), "8", str(size or 8)]
    if size is not None:
        source = f"""
import runpy, sys
from bossworker.forkqueue import installed
sys.argv[:] = sys.argv[1:]
with installed(size={size}):
    runpy.run_path(sys.argv[0], run_name="__main__")
"""
        program = ["-c", source, *program]
    ended = subprocess.run(
        [sys.executable, "-W", "error", *program],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "all well\n", "")
    assert log.count() == 8
    assert log.most() == (size or 8)


def test_the_same_in_this_process(log: Log, platform: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(UNAWARE), str(log.path), "5", "2"])
    with installed(size=2):
        runpy.run_path(str(UNAWARE), run_name="__main__")
    assert (log.count(), log.most()) == (5, 2)


@pytest.mark.usefixtures("q")
def test_multiprocessing_is_limited_and_its_exit_codes_are_right(log: Log) -> None:
    def work(code: int) -> None:
        log.run(lambda: time.sleep(0.01))
        sys.exit(code)

    processes = [FORK.Process(target=work, args=(code,)) for code in range(6)]
    for one in processes:
        one.start()
    for one in processes:
        one.join()
    assert [one.exitcode for one in processes] == list(range(6))
    assert log.count() == 6
    assert log.most() <= 2


def test_a_process_of_multiprocessing_that_is_killed(q: ForkQueue) -> None:
    one = FORK.Process(target=time.sleep, args=(300,))
    one.start()
    assert one.exitcode is None
    one.kill()
    one.join()
    assert one.exitcode == -signal.SIGKILL
    assert q.running_now() == 0


@pytest.mark.usefixtures("q")
def test_pools_that_fit() -> None:
    with FORK.Pool(2) as pool:
        assert pool.map(abs, range(-5, 0)) == [5, 4, 3, 2, 1]
    with ProcessPoolExecutor(2, mp_context=FORK) as executor:
        assert list(executor.map(abs, range(-5, 0))) == [5, 4, 3, 2, 1]


def test_a_pool_that_does_not_fit_waits_and_says_so(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(admission, "STALL_SECONDS", 0.05)
    monkeypatch.setattr(default_queue._line, "_warned", set())
    with installed(size=2) as q:
        done: list[int] = []

        def run() -> None:
            with ProcessPoolExecutor(4, mp_context=FORK) as executor:
                done.extend(executor.map(abs, range(-3, 0)))

        thread = in_thread(run)
        wait_for(lambda: caplog.records)
        assert caplog.records[0].levelno == logging.WARNING
        assert "(the workers of a pool do not), raise size" in caplog.records[0].getMessage()
        assert q.running_now() == 2
        q.size = 4
        thread.join()
        assert done == [3, 2, 1]


def test_the_pools_of_this_package_are_not_counted(log: Log) -> None:
    def handle(job: dict[str, Any]) -> dict[str, Any]:
        pids = [fork(lambda: log.run(lambda: time.sleep(0.01))) for _ in range(3)]
        return {"codes": [os.waitpid(pid, 0)[1] for pid in pids]}

    with installed(size=1) as q:
        held = fork(lambda: time.sleep(300))
        with BossWorker(handle, worker_count=2) as pool:
            assert q.running_now() == 1
            pool.add_work({})
            assert [dict(result) for result in pool.results()] == [{"codes": [0, 0, 0]}]
        os.kill(held, signal.SIGKILL)
        os.waitpid(held, 0)
    assert log.most() == 1  # what a handler forks is limited as in any child


def test_subprocess_is_left_alone(q: ForkQueue, gate: Gate) -> None:
    held = [fork(gate) for _ in range(2)]
    assert subprocess.run(["sh", "-c", "exit 3"], check=False).returncode == 3
    with subprocess.Popen("exit 4", shell=True) as popen:
        pass
    assert popen.returncode == 4
    with os.popen("echo hello") as popened:
        assert popened.read() == "hello\n"
    assert q.running_now() == 2
    gate.open(2)
    assert q.all_exit_ok(*held)


@pytest.mark.usefixtures("q")
def test_asyncio_hears_of_its_subprocesses() -> None:
    async def run() -> list[int]:
        programs = [await asyncio.create_subprocess_exec("sh", "-c", f"exit {n}") for n in range(3)]
        return [await program.wait() for program in programs]

    assert asyncio.run(run()) == [0, 1, 2]


def test_spawn_of_os_is_limited(q: ForkQueue, gate: Gate) -> None:
    assert os.spawnlp(os.P_WAIT, "sh", "sh", "-c", "exit 3") == 3
    pid = os.spawnlp(os.P_NOWAIT, "sleep", "sleep", "300")
    assert q.running_now() == 1
    os.kill(pid, signal.SIGKILL)
    assert os.waitpid(pid, 0) == (pid, signal.SIGKILL)


def test_forkpty(q: ForkQueue, gate: Gate) -> None:
    pid, fd = os.forkpty()
    if pid == 0:
        os.write(1, b"from a terminal" if os.isatty(0) else b"?")
        gate()
        os._exit(5)
    with open(fd, "rb", buffering=0) as terminal:
        assert terminal.read(100) == b"from a terminal"
        assert q.running_now() == 1
        gate.open()
        assert os.waitpid(pid, 0) == (pid, 5 << 8)


def test_pty_spawn_which_holds_the_real_waitpid(capfd: pytest.CaptureFixture[str]) -> None:
    """Other threads' forks look at its child meanwhile, and must not take its status."""
    with installed(size=4) as q:
        thread = in_thread(lambda: [os.waitpid(fork(lambda: None), 0) for _ in range(20)])
        status = pty.spawn(["sh", "-c", "echo hello; exit 3"], master_read=partial(_read_terminal, q))
        thread.join()
    assert status == 3 << 8


def _read_terminal(q: ForkQueue, fd: int) -> bytes:
    q.running_now()
    return os.read(fd, 1000)


def test_code_that_holds_the_real_waitpid_finds_its_statuses() -> None:
    with installed(size=1) as q:
        pids = [fork(leaving(n)) for n in range(5)]
        assert [early_bound_waitpid(pid, 0) for pid in pids] == [(pid, n << 8) for n, pid in enumerate(pids)]
        assert q.running_now() == 0
        with pytest.raises(ChildProcessError):
            q.wait()


@pytest.mark.usefixtures("q")
def test_a_forking_server() -> None:
    class Server(socketserver.ForkingMixIn, socketserver.TCPServer):
        max_children = 3

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(self.request.recv(10).upper())

    import socket

    with Server(("127.0.0.1", 0), Handler) as server:
        for _ in range(5):
            with socket.create_connection(("127.0.0.1", server.server_address[1])) as client:
                client.sendall(b"hello")
                server.handle_request()
                assert client.recv(10) == b"HELLO"


def test_a_program_with_a_sigchld_handler(q: ForkQueue) -> None:
    found: dict[int, int] = {}

    def reap(*_: object) -> None:
        try:
            while (one := os.waitpid(-1, os.WNOHANG))[0]:
                found[one[0]] = one[1]
        except ChildProcessError:
            pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        expected = {fork(leaving(n)): n << 8 for n in range(12)}
        wait_for(lambda: len(found) == 12)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert found == expected
    assert q.running_now() == 0


# -- the calls themselves ---------------------------------------------------------------------------------------


@pytest.mark.usefixtures("q")
def test_wait_and_waitpid_of_any_child() -> None:
    """Of the queue's or not, as without it."""
    foreign = subprocess.Popen(["sh", "-c", "exit 7"])
    until_ended(foreign.pid)
    pids = [fork(leaving(n)) for n in range(4)]
    found = {
        pid: status >> 8 for pid, status in (os.wait(), os.waitpid(-1, 0), os.wait(), os.waitpid(-1, 0), os.wait())
    }
    assert found == {foreign.pid: 7, **{pid: n for n, pid in enumerate(pids)}}
    assert foreign.wait() == 0  # what subprocess says of a status that was taken from it
    for call in (os.wait, lambda: os.waitpid(-1, os.WNOHANG), lambda: os.wait3(0), lambda: os.wait4(pids[0], 0)):
        with pytest.raises(ChildProcessError):
            call()


def burn() -> None:
    end = time.process_time() + 0.03
    while time.process_time() < end:
        pass
    raise SystemExit(9)


@pytest.mark.usefixtures("q")
def test_the_real_resource_usage() -> None:
    one, two = fork(burn), fork(burn)
    fork(lambda: None)  # waited for room, so that one of them has ended
    for found in (os.wait4(one, 0), os.wait4(two, 0)):
        assert found[1] == 9 << 8
        assert found[2].ru_utime + found[2].ru_stime >= 0.02
        assert found[2].ru_maxrss > 1000
    _, status, usage = os.wait3(0)
    assert (status, type(usage).__name__) == (0, "struct_rusage")
    with pytest.raises(ChildProcessError):
        os.wait3(os.WNOHANG)


@pytest.mark.parametrize("most", [0, 256])
def test_waitid(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "MOST_ZOMBIES", most)
    with installed(size=4) as q:
        left, killed = fork(leaving(3)), fork(lambda: time.sleep(300))
        assert os.waitid(os.P_PID, killed, os.WEXITED | os.WNOHANG) is None
        os.kill(killed, signal.SIGKILL)
        until_ended(left, killed)
        q.running_now()
        for _ in range(2):
            info = os.waitid(os.P_PID, left, os.WEXITED | os.WNOWAIT)
            assert isinstance(info, os.waitid_result)
            assert (info.si_pid, info.si_uid, info.si_signo) == (left, os.getuid(), signal.SIGCHLD)
            assert (info.si_code, info.si_status) == (os.CLD_EXITED, 3)
        info = os.waitid(os.P_PID, killed, os.WEXITED)
        assert info is not None
        assert (info.si_code, info.si_status) == (os.CLD_KILLED, signal.SIGKILL)
        info = os.waitid(os.P_PGID, os.getpgrp(), os.WEXITED)
        assert info is not None
        assert info.si_pid == left
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED)
        assert q.running_now() == 0


@pytest.mark.skipif(not hasattr(os, "P_PIDFD"), reason="no pidfd here")
def test_waitid_with_a_pidfd() -> None:
    with installed(size=2) as q:
        pid = fork(leaving(3))
        fd = os.pidfd_open(pid)
        try:
            info = os.waitid(os.P_PIDFD, fd, os.WEXITED)
        finally:
            os.close(fd)
        assert info is not None
        assert (info.si_pid, info.si_status) == (pid, 3)
        assert q.running_now() == 0


def test_waitid_of_ignored_children() -> None:
    with installed(size=2, ignore_children=True):
        foreign = subprocess.Popen(["sh", "-c", "exit 7"])
        until_ended(fork(leaving(3)), foreign.pid)
        for _ in range(2):
            info = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert info is not None
            assert info.si_pid == foreign.pid
        assert os.wait() == (foreign.pid, 7 << 8)
        foreign.wait()
        fork(leaving(3))
        with pytest.raises(ChildProcessError):
            os.waitid(os.P_ALL, 0, os.WEXITED)


def test_what_is_passed_wrongly_is_refused_as_ever() -> None:
    calls: list[Callable[[], object]] = [
        lambda: os.waitpid("1", 0),  # type: ignore[arg-type]
        lambda: os.waitpid(1),  # type: ignore[call-arg]
        lambda: os.waitpid(-1, 1 << 30),
        lambda: os.wait4(None, 0),  # type: ignore[arg-type]
        lambda: os.waitid(os.P_PID, 1.5, os.WEXITED),  # type: ignore[arg-type]
        lambda: os.waitid(99, 1, os.WEXITED),
        lambda: os.wait(0),  # type: ignore[call-arg]
        lambda: os.fork(1),  # type: ignore[call-arg]
    ]

    def errors() -> list[str]:
        found = []
        for call in calls:
            with pytest.raises((TypeError, OSError)) as caught:
                call()
            found.append(caught.type.__name__)
        return found

    expected = errors()
    with installed() as q:
        assert errors() == expected
        assert not q._children._targets


@pytest.mark.usefixtures("q")
def test_keywords() -> None:
    pid = fork(lambda: None)
    assert os.wait4(pid=pid, options=0)[:2] == (pid, 0)
    pid = fork(lambda: None)
    assert os.wait3(options=0)[:2] == (pid, 0)


def test_a_thread_in_wait_and_another_that_forks(q: ForkQueue) -> None:
    """One sleeps in the kernel while the other's forks look at, and may reap, the same children."""
    expected: dict[int, int] = {}
    found: dict[int, int] = {}

    def work() -> None:
        for n in range(25):
            expected[fork(leaving(n))] = n << 8

    thread = in_thread(work)
    while thread.is_alive() or len(found) < len(expected):
        try:
            pid, status = os.wait()
        except ChildProcessError:
            time.sleep(0.0005)
        else:
            assert pid not in found
            found[pid] = status
    assert found == expected
    assert q.running_now() == 0


def test_a_thread_in_waitpid_and_another_that_forks(q: ForkQueue, gate: Gate) -> None:
    held = fork(gate)
    found: list[tuple[int, int]] = []
    thread = in_thread(lambda: found.append(os.waitpid(held, 0)))
    wait_for(lambda: q._children._targets)
    others = [fork(leaving(n)) for n in range(6)]
    gate.open()
    thread.join()
    assert found == [(held, 0)]
    assert [os.waitpid(pid, 0) for pid in others] == [(pid, n << 8) for n, pid in enumerate(others)]


def test_an_interrupt_in_the_middle(q: ForkQueue, gate: Gate) -> None:
    pids = [fork(gate) for _ in range(2)]

    for call in (os.fork, os.wait, lambda: os.waitpid(pids[0], 0)):
        with interrupted(q, KeyboardInterrupt()):
            call()
    assert q.running_now() == 2
    assert not q._line
    assert not q._children._targets
    gate.open(2)
    assert q.all_exit_ok(*pids)


def test_a_child_goes_on_with_a_queue_of_size_1(log: Log) -> None:
    def family() -> None:
        pids = [fork(lambda: log.run(lambda: time.sleep(0.005))) for _ in range(4)]
        ok = default_queue.size == 1 and [os.waitpid(pid, 0) for pid in pids] == [(pid, 0) for pid in pids]
        raise SystemExit(0 if ok else 1)

    with installed(size=3):
        assert os.waitpid(fork(family), 0)[1] == 0
    assert (log.count(), log.most()) == (4, 1)


def test_calls_are_traced(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bossworker.forkqueue")
    with installed(trace=True):
        pid = fork(lambda: None)
        os.waitpid(pid, 0)
        with pytest.raises(ChildProcessError):
            os.wait()
    said = [record.getMessage().partition(" ")[2] for record in caplog.records]
    assert said == ["fork()", f"waitpid({pid}, 0)", "wait()"]


# -- install and uninstall --------------------------------------------------------------------------------------


def test_everything_is_put_back_exactly() -> None:
    before = {name: getattr(os, name) for name in NAMES}
    settings = default_queue._as_dict()
    with installed(size=9, delay=0.5, trace=True) as q:
        assert q is default_queue
        assert (q.size, q.delay, q.trace) == (9, 0.5, True)
        for name in NAMES:
            assert getattr(os, name) is not before[name]
            assert getattr(os, name).__name__ == name
            assert getattr(os, name).__doc__ == before[name].__doc__
        q.size = 11
    assert {name: getattr(os, name) for name in NAMES} == before
    assert default_queue._as_dict() == settings


def test_put_back_after_an_exception() -> None:
    before = {name: getattr(os, name) for name in NAMES}
    with pytest.raises(KeyError), installed(size=9):
        raise KeyError
    assert {name: getattr(os, name) for name in NAMES} == before
    assert default_queue.size == 4


def test_install_and_uninstall() -> None:
    real = os.fork
    assert install(size=3) is default_queue
    try:
        assert os.fork is not real
        with pytest.raises(RuntimeError, match="installed already"):
            install()
        with pytest.raises(RuntimeError, match="installed already"), installed(size=5):
            pass
        assert default_queue.size == 3
    finally:
        uninstall()
    assert os.fork is real
    with pytest.raises(RuntimeError, match="not installed"):
        uninstall()


def test_uninstalled_inside_the_block() -> None:
    real = os.fork
    with installed():
        uninstall()
    assert os.fork is real


def test_what_was_not_the_systems_own_is_put_back_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another library stood there before us, and goes on being called."""
    real, calls = os.fork, []

    def theirs() -> int:
        calls.append(1)
        return real()

    monkeypatch.setattr(os, "fork", theirs)
    with installed():
        os.waitpid(fork(lambda: None), 0)
    assert calls == [1]
    assert os.fork is theirs


@pytest.mark.parametrize(
    ("settings", "words"),
    [({"size": 0}, "size must be"), ({"sizes": 3}, "there is no setting 'sizes'; the settings are size, delay, ")],
)
def test_bad_settings_install_nothing(settings: dict[str, Any], words: str) -> None:
    real, before = os.fork, default_queue._as_dict()
    with pytest.raises((TypeError, ValueError), match=words):
        install(delay=3, **settings)
    assert os.fork is real
    assert default_queue._as_dict() == before


def test_children_that_outlive_the_block_are_as_any() -> None:
    with installed(size=1):
        pids = [fork(leaving(n)) for n in range(3)]
    assert [os.waitpid(pid, 0) for pid in pids] == [(pid, n << 8) for n, pid in enumerate(pids)]
    assert default_queue.running_now() == 0


def test_a_queue_of_ones_own_beside_it(gate: Gate) -> None:
    own = ForkQueue(1)
    with installed(size=1) as q:
        pid = own.run_back(gate)
        other = fork(gate)  # neither counts for the other
        assert (own.running_now(), q.running_now()) == (1, 1)
        gate.open(2)
        assert own.waitpids(pid) == [(pid, 0)]
        assert os.waitpid(other, 0) == (other, 0)


def test_the_package_itself_waits_as_before() -> None:
    with installed(size=1):
        pid = fork(lambda: None)
        assert processes.wait_for(pid, 20)
        assert default_queue.running_now() == 0

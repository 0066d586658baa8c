"""run_command outside a pool: in threads, interrupted, and in a process that has its own ideas of signals."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bossworker import TIMED_OUT, BossWorker, jobs, run_command
from bossworker.commands.inline import family
from bossworker.system import descendants, program
from tests.commands.supervised import escaping
from tests.conftest import alive, wait_for

pytestmark = pytest.mark.usefixtures("root")


def pid_in(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text()))


def escapee(path: Path) -> list[str]:
    return escaping(f"open({str(path)!r}, 'w').write(str(os.getpid())); time.sleep(60)")


def children() -> list[int]:
    return descendants.children(os.getpid())


def test_a_command_that_is_ended_takes_no_other_with_it(tmp_path: Path) -> None:
    """Another thread's command and another thread's child, both born after it was started, are not its own."""
    with ThreadPoolExecutor(3) as threads:
        first = threads.submit(run_command, {"cmd": ["sleep", "60"], "timeout": 0.6})
        wait_for(lambda: len(children()) == 1)
        second = threads.submit(run_command, {"cmd": ["sh", "-c", "sleep 1.2; exit 3"]})
        child = subprocess.Popen(["sh", "-c", "sleep 1.2; exit 4"])
        assert first.result(20)["ERROR"] == TIMED_OUT
        assert second.result(20)["exit_code"] == 3
        assert child.wait(20) == 4


def test_commands_in_threads_keep_their_exit_codes() -> None:
    with ThreadPoolExecutor(8) as threads:
        orders = [{"cmd": ["sh", "-c", f"(exit 0) & exit {number % 200}"]} for number in range(80)]
        assert [result["exit_code"] for result in threads.map(run_command, orders)] == list(range(80))
    wait_for(lambda: all("Z" in Path(f"/proc/{pid}/stat").read_text() for pid in children()))
    run_command({"cmd": ["true"]})
    assert children() == []


@pytest.mark.parametrize("in_thread", [False, True])
def test_what_escapes_is_found_by_its_mark(tmp_path: Path, in_thread: bool) -> None:
    command = ["sh", "-c", '"$@"; sleep 60', "sh", *escapee(tmp_path / "pid")]
    order = {"cmd": command, "timeout": 1}
    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(run_command, order).result(20) if in_thread else run_command(order)
    assert result["ERROR"] == TIMED_OUT
    assert not alive(pid_in(tmp_path / "pid"))
    assert children() == []


def test_a_forked_child_does_not_adopt_because_its_parent_does() -> None:
    assert descendants.adopts_orphans()
    child = os.fork()
    if child == 0:
        os._exit(int(descendants.adopts_orphans()))
    assert os.waitpid(child, 0)[1] == 0


def test_orphans_are_adopted_for_the_time_of_a_call() -> None:
    """In a process of its own: the test runner's is to adopt them always."""
    script = """if True:
        from bossworker import run_command
        from bossworker.system import descendants
        assert not descendants.adopts_orphans()
        assert run_command({"cmd": ["sh", "-c", "(setsid sleep 60 &) ; sleep 60"], "timeout": 0.5})["ERROR"]
        assert not descendants.adopts_orphans()
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=30)


def test_what_ends_unseen_leaves_no_zombie() -> None:
    """Who forks twice, with a session in between, and is gone before anybody looks."""
    script = f"""if True:
        import os, time
        from bossworker import run_command
        from bossworker.system import identity, descendants
        for _ in range(10):
            run_command({{"cmd": ["sh", "-c", '"$@"; sleep 0.1', "sh", *{escaping("pass")!r}]}})
        while any(identity.start_time(one) for one in descendants.children(os.getpid())):
            time.sleep(0.01)  # the last one's: seen before it ended
        run_command({{"cmd": ["true"]}})
        assert descendants.children(os.getpid()) == []
    """
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


# -- what nobody has foreseen ---------------------------------------------------------------------------


@contextmanager
def interrupted(after: float) -> Iterator[None]:
    timer = threading.Timer(after, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    try:
        yield
    finally:
        timer.join()


def test_an_interrupt_ends_the_command(tmp_path: Path) -> None:
    with interrupted(1), pytest.raises(KeyboardInterrupt):
        run_command({"cmd": ["sh", "-c", '"$@"; sleep 60', "sh", *escapee(tmp_path / "pid")]})
    assert not alive(pid_in(tmp_path / "pid"))
    (jobid,) = jobs.listing()
    assert jobs.status(jobid) == "terminated by request"
    assert jobs.details(jobid)[0] == "given up: KeyboardInterrupt"
    assert children() == []


def test_an_interrupt_amid_the_start_ends_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    start = program.start

    def interrupted(*args: Any, **more: Any) -> int:
        start(*args, **more)
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "start", interrupted)
    for _ in range(30):  # the command may or may not have its environment yet, by which it is known
        with pytest.raises(KeyboardInterrupt):
            run_command({"cmd": ["sleep", "60"]})
        assert children() == []
    assert {jobs.status(jobid) for jobid in jobs.listing()} == {"terminated by error"}


def test_an_empty_environment_is_not_waited_for() -> None:
    with subprocess.Popen(["sleep", "60"], env={}) as bare:
        assert family._environment(bare.pid) == b"\0"
        bare.kill()
        wait_for(lambda: "Z" in Path(f"/proc/{bare.pid}/stat").read_text())
        assert family._environment(bare.pid) == b""
    assert family._environment(bare.pid) == b""


def test_no_process_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **more: Any) -> int:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(program, "start", refuse)
    with pytest.raises(BlockingIOError):
        run_command({"cmd": ["true"]})
    (jobid,) = jobs.listing()
    assert jobs.status(jobid) == "terminated by error"
    assert jobs.details(jobid)[:2] == ["given up: BlockingIOError", "exit code 126"]


@pytest.mark.parametrize("name", ["request.", "request.x", "request.0", "request.015", "request.-9", "request.\u0669"])
def test_a_request_that_is_none(name: str) -> None:
    result = run_command({"cmd": ["sh", "-c", ': > "../$0"; exit 2', name]})
    assert (result["exit_code"], result["status"]) == (2, "terminated by error")


@pytest.mark.parametrize("code", [0, 3])
def test_a_command_that_deletes_its_directory(pool: Callable[..., BossWorker], root: Path, code: int) -> None:
    commands = pool(run_command, worker_count=1)
    commands.add_work({"cmd": ["sh", "-c", f"echo said; sleep 0.1; rm -rf {root}/2*; exit {code}"]})
    result = next(commands.results())
    assert (result["exit_code"], result["stdout"]) == (code, "said\n")
    assert jobs.listing() == []


def test_a_timeout_of_weeks() -> None:
    assert run_command({"cmd": ["sh", "-c", "sleep 0.1; exit 3"], "timeout": 30 * 86400})["exit_code"] == 3


# -- what is left running -------------------------------------------------------------------------------


def test_what_is_left_running_leaves_no_zombies(pool: Callable[..., BossWorker]) -> None:
    commands = pool(run_command, worker_count=1)
    (worker,) = commands.worker_pids
    for script in ["sleep 0.05 &", "(sleep 0.02; sleep 0.02 & sleep 0.02) &"] * 10:
        commands.add_work({"cmd": ["sh", "-c", script]})
    assert all(result.ok for result in commands.results())

    def ended() -> bool:
        return all("Z" in Path(f"/proc/{pid}/stat").read_text() for pid in descendants.children(worker))

    wait_for(lambda: ended() and ended())  # a parent may end between the list and the look, and leave one not listed
    commands.add_work({"cmd": ["true"]})
    assert next(commands.results()).ok
    assert descendants.children(worker) == []


# -- signals --------------------------------------------------------------------------------------------


def test_no_signal_is_blocked_for_the_command() -> None:
    """In a process without threads; this one may have some, of the test runner."""
    script = """if True:
        import signal
        from bossworker import run_command
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGUSR2})
        print(run_command({"cmd": ["grep", "SigBlk", "/proc/self/status"]})["stdout"])
    """
    told = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert int(told.split()[1], 16) == 0


def test_where_sigchld_is_ignored() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert run_command({"cmd": ["sh", "-c", "exit 3"]})["exit_code"] == 3
        assert run_command({"cmd": ["no-such-program"]})["exit_code"] == 127
        assert signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        with ThreadPoolExecutor(1) as threads:
            result = threads.submit(run_command, {"cmd": ["sh", "-c", "exit 3"]}).result(20)
            assert threads.submit(run_command, {"cmd": ["no-such-program"]}).result(20)["exit_code"] == 127
    finally:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    assert (result["exit_code"], result["status"]) == (None, "terminated by error")
    assert "SIGCHLD is ignored" in result["ERROR"]

"""A pid that is used again is not mistaken for the process that had it."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from bossworker.system import identity, proc
from bossworker.system.identity import Identity
from tests.conftest import wait_for


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(["sleep", "60"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def of(pid: int) -> Identity:
    found = identity.of(pid)
    assert found is not None
    return found


def test_it_holds_while_the_process_runs(sleeper: subprocess.Popen[bytes]) -> None:
    found = of(sleeper.pid)
    assert identity.holds(found)
    sleeper.kill()
    wait_for(lambda: not identity.holds(found))  # it is a zombie now
    assert identity.of(sleeper.pid) == found
    sleeper.wait()
    assert identity.of(sleeper.pid) is None


def test_own() -> None:
    assert identity.own() == of(os.getpid())
    pid = os.fork()
    if pid == 0:
        os._exit(0 if identity.own() == identity.of(os.getpid()) else 1)
    assert os.waitpid(pid, 0)[1] == 0


def test_another_start_time_or_boot_is_another_process() -> None:
    pid, started, boot, *place = identity.own()
    assert not identity.holds([pid, int(started) - 1, boot, *place])
    assert not identity.holds([pid, started, "another boot", *place])
    assert not identity.send([pid, int(started) + 1, boot, *place], signal.SIGKILL)


@pytest.mark.parametrize("wrong", [None, [], [1], ["1", 2, ""], [0, 0, ""], [-1, 0, ""], {"pid": 1}, [True, 1], 7, "x"])
def test_garbage_never_holds(wrong: object) -> None:
    assert not identity.holds(wrong)


def test_signals_reach_the_process_or_its_group(sleeper: subprocess.Popen[bytes]) -> None:
    assert identity.send(of(sleeper.pid), signal.SIGSTOP, group=True)
    wait_for(lambda: " T " in Path(f"/proc/{sleeper.pid}/stat").read_text())
    assert identity.send(of(sleeper.pid), signal.SIGKILL)
    assert sleeper.wait() == -signal.SIGKILL
    assert not identity.send([sleeper.pid, 1, identity.boot_id()], signal.SIGKILL)


@pytest.mark.alone
def test_a_pid_that_is_really_used_again() -> None:
    """The kernel is told which pid to give next; others may be quicker, so more than once."""
    last_pid = Path("/proc/sys/kernel/ns_last_pid")
    try:
        last_pid.write_text(last_pid.read_text())
    except OSError:  # whatever its mode says
        pytest.skip("the kernel does not let us choose pids")
    for _ in range(200):
        first = subprocess.Popen(["sleep", "60"])
        found = of(first.pid)
        first.kill()
        first.wait()
        wait_for(lambda: identity.start_time(os.getpid()))  # any work, so that the clock may tick
        last_pid.write_text(str(first.pid - 1))
        second = subprocess.Popen(["sleep", "60"])
        try:
            if second.pid == first.pid and of(second.pid) != found:
                assert not identity.holds(found)
                assert not identity.send(found, signal.SIGKILL)
                assert second.poll() is None
                return
        finally:
            second.kill()
            second.wait()
    pytest.fail("no pid came twice")


def test_who_has_no_environment_is_not_amid_exec_for_ever() -> None:
    with subprocess.Popen(["/bin/sleep", "60"], env={}) as child:
        wait_for(lambda: not proc.amid_exec(child.pid))
        assert Path(f"/proc/{child.pid}/environ").read_bytes() == b""
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert not proc.amid_exec(child.pid)
    assert not proc.amid_exec(child.pid)
    assert not proc.amid_exec(os.getpid())

"""Statuses: each handed out once, to whoever asks, as the kernel would."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker.forkqueue import ChildDied, ForkQueue, children
from bossworker.forkqueue.children import KernelWait
from bossworker.forkqueue.sleeper import Sleeper
from tests.conftest import wait_for
from tests.forkqueue.conftest import Gate, ended, in_thread, interrupted, leaving, until_ended

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def crowd(q: ForkQueue, count: int) -> list[int]:
    """Children that leave with codes 0, 1, 2 ...; most have ended while others waited for room."""
    return [q.run_back(leaving(n)) for n in range(count)]


def iter_waits(q: ForkQueue) -> Iterator[tuple[int, int]]:
    with suppress(ChildProcessError):
        while True:
            yield q.wait()


def no_children(q: ForkQueue) -> bool:
    with pytest.raises(ChildProcessError) as caught:
        q.wait()
    return caught.value.errno == errno.ECHILD


# -- wait, waitpid, waitpids ----------------------------------------------------------------------------------


def test_every_status_is_handed_out_once_by_wait(platform: str) -> None:
    q = ForkQueue(2)
    pids = crowd(q, 8)
    assert sorted(q.wait() for _ in pids) == sorted((pid, n << 8) for n, pid in enumerate(pids))
    assert no_children(q)


def test_every_status_is_handed_out_once_by_waitpid(platform: str) -> None:
    q = ForkQueue(2)
    pids = crowd(q, 8)
    for n, pid in reversed(list(enumerate(pids))):
        assert q.waitpid(pid) == (pid, n << 8)
        with pytest.raises(ChildProcessError):
            q.waitpid(pid)
    assert no_children(q)


def test_polling_as_the_manual_does(platform: str) -> None:
    """1 while waitpid(-1, WNOHANG) > 0"""
    q = ForkQueue(3)
    pids, found = set(), set()
    for _ in range(9):
        pids.add(q.run_back(lambda: time.sleep(0.002)))
        while (one := q.waitpid(-1, os.WNOHANG)) != (0, 0):
            found.add(one[0])
            if found == pids:
                break
    while pids - found:
        found.add(q.wait()[0])
    assert found == pids
    assert no_children(q)


def test_waitpid_without_waiting(gate: Gate, platform: str) -> None:
    q = ForkQueue()
    pid = q.run_back(gate)
    assert q.waitpid(pid, os.WNOHANG) == (0, 0)
    assert q.waitpid(-1, os.WNOHANG) == (0, 0)
    gate.open()
    until_ended(pid)
    assert q.waitpid(-1, os.WNOHANG) == (pid, 0)


def test_waitpids_keeps_the_order_asked_for(platform: str) -> None:
    q = ForkQueue(3)
    pids = crowd(q, 6)
    assert q.waitpids(*reversed(pids)) == [(pid, n << 8) for n, pid in reversed(list(enumerate(pids)))]
    assert q.waitpids() == []


def test_waitpids_of_what_is_no_child_has_no_status() -> None:
    q = ForkQueue()
    pid = q.run_back(leaving(3))
    assert q.waitpids(1, pid, os.getpid()) == [(1, None), (pid, 3 << 8), (os.getpid(), None)]
    assert q.waitpids(pid) == [(pid, None)]


def test_waitpids_takes_nothing_when_its_time_is_up(gate: Gate, platform: str) -> None:
    q = ForkQueue()
    quick, slow = q.run_back(leaving(5)), q.run_back(gate)
    until_ended(quick)
    with pytest.raises(TimeoutError, match=rf"still running: process {slow}$"):
        q.waitpids(quick, slow, timeout=0.02)
    with pytest.raises(TimeoutError):
        q.all_exit_ok(slow, timeout=0)
    gate.open()
    assert q.waitpids(quick, slow, timeout=20) == [(quick, 5 << 8), (slow, 0)]


def test_waitpids_of_a_child_that_the_queue_did_not_start(platform: str) -> None:
    q = ForkQueue()
    pid = os.fork()
    if pid == 0:
        time.sleep(0.02)
        os._exit(4)
    assert q.waitpids(pid) == [(pid, 4 << 8)]


def test_waitpids_takes_the_none_of_a_program_that_was_not_found(platform: str) -> None:
    q = ForkQueue()
    pid, none = q.run_back(leaving(5)), q.system_back("no-such-program")
    assert none is None
    assert q.waitpids(none, pid, None) == [(None, None), (pid, 5 << 8), (None, None)]
    assert not q.all_exit_ok(q.run_back(lambda: None), None)


@pytest.mark.parametrize("seconds", [30 * 86_400, 1e9])
def test_a_wait_of_any_length(seconds: float, gate: Gate, platform: str) -> None:
    q = ForkQueue(1)

    def open_when_waited_for() -> None:
        wait_for(lambda: bool(q._children._sleepers))
        gate.open()

    pid = q.run_back(gate)
    opening = in_thread(open_when_waited_for)
    assert q.waitpids(pid, timeout=seconds) == [(pid, 0)]
    opening.join()
    call = q.call(gate)
    opening = in_thread(open_when_waited_for)
    assert call.result(seconds) is None
    opening.join()


@pytest.mark.parametrize("pid", ["1", True, 0, -1])
def test_waitpids_takes_pids(pid: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="pid must be"):
        ForkQueue().waitpids(pid)


def test_a_stopped_child_is_reported_when_asked_for(gate: Gate) -> None:
    q = ForkQueue(1)
    pid = q.run_back(gate)
    os.kill(pid, signal.SIGSTOP)
    found, status = q.waitpid(-1, os.WUNTRACED)
    assert found == pid
    assert os.WIFSTOPPED(status)
    os.kill(pid, signal.SIGSTOP)
    os.kill(pid, signal.SIGCONT)
    assert os.WIFCONTINUED(q.waitpid(pid, os.WCONTINUED)[1])
    assert q.running_now() == 1  # neither is an end
    gate.open()
    assert q.wait() == (pid, 0)


def test_wait_leaves_other_peoples_children_alone(platform: str) -> None:
    q = ForkQueue(1)
    foreign = subprocess.Popen(["sh", "-c", "exit 7"])
    until_ended(foreign.pid)
    assert no_children(q)
    pid = q.run_back(leaving(2))
    assert q.wait() == (pid, 2 << 8)
    assert no_children(q)
    assert foreign.wait() == 7


def test_two_queues_do_not_take_each_others_statuses(platform: str) -> None:
    one, two = ForkQueue(2), ForkQueue(2)
    ones, twos = crowd(one, 4), crowd(two, 4)
    assert sorted(two.wait()[0] for _ in range(4)) == sorted(twos)
    assert sorted(one.wait()[0] for _ in range(4)) == sorted(ones)


def test_process_groups(platform: str) -> None:
    q = ForkQueue(2)

    def apart() -> None:
        os.setpgid(0, 0)
        raise SystemExit(3)

    near, far = q.run_back(leaving(1)), q.run_back(apart)
    until_ended(near, far)
    q.running_now()
    assert q.waitpid(-far, 0) == (far, 3 << 8)
    with pytest.raises(ChildProcessError):
        q.waitpid(-far, 0)
    assert q.waitpid(0, 0) == (near, 1 << 8)


def test_a_pid_that_came_back_has_both_its_statuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """A status kept, and its pid given to another child: as if the kernel had gone through all its pids."""
    monkeypatch.setattr(children, "MOST_ZOMBIES", 0)
    q = ForkQueue(2)
    pid = q.run_back(leaving(3))
    until_ended(pid)
    q.running_now()
    kept = q._children._kept[pid]
    kept.append(kept[0]._replace(report=kept[0].report._replace(status=4 << 8)))
    assert q.waitpid(pid) == (pid, 3 << 8)
    assert q.wait() == (pid, 4 << 8)
    assert no_children(q)


# -- zombies --------------------------------------------------------------------------------------------------


def test_an_ended_child_keeps_its_pid_until_it_is_asked_for() -> None:
    """So that a signal meant for it cannot reach another process."""
    q = ForkQueue(1)
    first = q.run_back(lambda: None)
    second = q.run_back(lambda: None)  # waited for the end of the first
    assert ended(first)
    assert Path(f"/proc/{first}").exists()
    os.kill(first, signal.SIGTERM)  # reaches nobody, and is no error
    assert q.waitpids(first, second) == [(first, 0), (second, 0)]


def test_zombies_do_not_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(children, "MOST_ZOMBIES", 5)
    q = ForkQueue(2)
    pids = crowd(q, 30)
    until_ended(*pids)
    q.running_now()
    assert sum(Path(f"/proc/{pid}").exists() for pid in pids) == 5
    assert q.waitpids(*pids) == [(pid, n << 8) for n, pid in enumerate(pids)]


# -- ignore_children ------------------------------------------------------------------------------------------


def test_ignored_children_have_no_status_and_leave_nothing(platform: str) -> None:
    q = ForkQueue(2, ignore_children=True)
    pids = crowd(q, 8)
    assert no_children(q)  # after the last has ended
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert q.waitpids(*pids) == [(pid, None) for pid in pids]
    assert not q._children._kept


def test_ignored_children_are_waited_for_by_pid_as_well(gate: Gate, platform: str) -> None:
    q = ForkQueue(2, ignore_children=True)
    pid = q.run_back(gate)
    assert q.waitpid(-1, os.WNOHANG) == (0, 0)
    gate.open()
    with pytest.raises(ChildProcessError):
        q.waitpid(pid)
    assert q.running_now() == 0


def test_to_ignore_drops_what_was_kept(platform: str) -> None:
    q = ForkQueue(2)
    pids = crowd(q, 4)
    until_ended(*pids)
    q.running_now()
    q.ignore_children = True
    assert no_children(q)
    q.ignore_children = False
    later = q.run_back(leaving(3))
    assert q.wait() == (later, 3 << 8)


# -- what goes wrong ------------------------------------------------------------------------------------------


def test_a_child_that_somebody_else_reaped_does_not_wedge_the_queue(platform: str) -> None:
    q = ForkQueue(1)
    for _ in range(3):
        pid = q.run_back(lambda: None)
        os.waitpid(pid, 0)
    assert q.running_now() == 0
    assert no_children(q)
    assert q.waitpids(pid) == [(pid, None)]
    assert not q.all_exit_ok(pid)


def test_a_child_reaped_by_somebody_else_while_a_thread_waits_for_room(gate: Gate, platform: str) -> None:
    q = ForkQueue(1)
    held = q.run_back(gate)
    thread = in_thread(q.run_back, lambda: None)
    wait_for(lambda: q._children._sleepers)
    reaper = in_thread(_reap_if_it_is_there, held)
    gate.open()
    thread.join(20)
    assert not thread.is_alive()
    reaper.join()
    assert [status for _, status in iter_waits(q)] in ([0], [0, 0])


def _reap_if_it_is_there(pid: int) -> None:
    """Where the queue cannot look without reaping, it may be first."""
    with suppress(ChildProcessError):
        os.waitpid(pid, 0)


def test_a_killed_child_makes_room(gate: Gate) -> None:
    q = ForkQueue(1)
    held = q.run_back(gate)
    thread = in_thread(q.run_back, lambda: None)
    wait_for(lambda: q._children._sleepers)
    os.kill(held, signal.SIGKILL)
    thread.join()
    assert q.waitpid(held) == (held, signal.SIGKILL)
    assert q.wait()[1] == 0


@pytest.fixture
def sigchld_ignored() -> Iterator[None]:
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGCHLD, before)


@pytest.mark.usefixtures("sigchld_ignored")
def test_with_sigchld_ignored_the_limit_holds_and_the_rest_is_said(
    gate: Gate, platform: str, caplog: pytest.LogCaptureFixture
) -> None:
    q = ForkQueue(1)
    pids = [q.run_back(lambda: None) for _ in range(4)]  # each waits for the one before
    held = q.run_back(gate)
    assert q.running_now() == 1
    assert [record.getMessage() for record in caplog.records] == [
        "SIGCHLD is ignored: children are counted, but their exit statuses are lost. (Said once.)"
    ]
    assert q.waitpids(*pids) == [(pid, None) for pid in pids]
    assert not q.all_exit_ok(*pids)
    gate.open()
    with pytest.raises(ChildProcessError, match="SIGCHLD is ignored"):
        q.wait()
    with pytest.raises(ChildProcessError):
        q.waitpid(held)


@pytest.mark.parametrize("error", [BlockingIOError(errno.EAGAIN, "no more processes"), MemoryError()])
def test_a_fork_that_fails_leaves_the_counts_right(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> int:
        raise error

    q = ForkQueue(1)
    with monkeypatch.context() as patched:
        patched.setattr(os, "fork", fail)
        for start in (q.fork, q.fork_now, lambda: q.run_back(lambda: None), lambda: q.call(int)):
            with pytest.raises(type(error)):
                start()
    assert q.running_now() == 0
    assert not q._line
    assert q.all_exit_ok(q.run_back(lambda: None), q.run_back(lambda: None))


@pytest.mark.parametrize("what", ["fork", "wait", "waitpid", "waitpids", "with"])
def test_an_interrupt_in_the_middle_of_a_wait_leaves_the_counts_right(what: str, gate: Gate, platform: str) -> None:
    q = ForkQueue(1)
    held = q.run_back(gate)

    waits: dict[str, Callable[[], object]] = {
        "fork": q.fork,
        "wait": q.wait,
        "waitpid": lambda: q.waitpid(held),
        "waitpids": lambda: q.waitpids(held),
        "with": q.__exit__,
    }

    with interrupted(q, KeyboardInterrupt()):
        waits[what]()
    assert q.running_now() == 1
    assert not q._line
    assert not q._children._sleepers
    assert not q._children._targets
    gate.open()
    assert q.waitpids(held) == [(held, 0)]


def test_a_signal_handler_that_reaps_and_forks(platform: str) -> None:
    """The classic SIGCHLD handler, over the same queue."""
    q = ForkQueue(2)
    found: list[int] = []

    def reap(*_: object) -> None:
        try:
            while (one := q.waitpid(-1, os.WNOHANG)) != (0, 0):
                found.append(one[0])
        except ChildProcessError:
            pass

    before = signal.signal(signal.SIGCHLD, reap)
    try:
        pids = [q.run_back(lambda: None) for _ in range(20)]
        wait_for(lambda: len(found) == 20)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert sorted(found) == sorted(pids)


def test_a_signal_handler_may_ask_while_a_status_is_put_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    q = ForkQueue()
    found: list[tuple[int, int]] = []

    def keep(*facts: object) -> object:
        monkeypatch.undo()
        with suppress(ChildProcessError):  # a handler of SIGCHLD, at this moment
            found.append(q.waitpid(-1, os.WNOHANG))
        return kept(*facts)

    kept: Callable[..., object] = children.Kept
    pid = q.run_back(lambda: None)
    monkeypatch.setattr(children, "MOST_ZOMBIES", 0)  # so that its status is put aside
    monkeypatch.setattr(children, "Kept", keep)
    until_ended(pid)
    q._children.look()
    assert [*found, q.waitpid(-1, 0)][-1] == (pid, 0)


def test_a_child_that_ends_before_it_is_noted_is_signalled_again(monkeypatch: pytest.MonkeyPatch) -> None:
    q = ForkQueue()
    found: list[tuple[int, int]] = []
    real = os.fork

    def slow() -> int:
        pid = real()
        if pid:
            wait_for(lambda: heard)  # the handler has run
        return pid

    heard: list[int] = []

    def reap(*_: object) -> None:
        try:
            found.append(q.waitpid(-1, os.WNOHANG))
        except ChildProcessError:
            heard.append(1)

    before = signal.signal(signal.SIGCHLD, reap)
    monkeypatch.setattr(os, "fork", slow)
    try:
        pid = q.run_back(leaving(3))
        wait_for(lambda: found)
    finally:
        signal.signal(signal.SIGCHLD, before)
    assert found == [(pid, 3 << 8)]
    assert len(heard) == 1


def test_threads_that_wait_share_the_statuses(platform: str) -> None:
    q = ForkQueue(3)
    found: list[tuple[int, int]] = []
    start = threading.Barrier(4)

    def collect() -> None:
        start.wait()
        while True:
            try:
                found.append(q.wait())
            except ChildProcessError:
                return

    pids = crowd(q, 5)
    threads = [in_thread(collect) for _ in range(3)]
    start.wait()
    for thread in threads:
        thread.join()
    assert sorted(found) == sorted((pid, n << 8) for n, pid in enumerate(pids))


@pytest.mark.parametrize("ignore", [False, True])
def test_a_look_between_the_kernels_answer_and_the_note_of_it(ignore: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """1. A thread's waitpid has reaped the child. 2. Another looks: no such child. 3. The first notes its status."""
    reaped, looked = threading.Event(), threading.Event()
    real = os.waitpid

    def slow(pid: int, options: int) -> tuple[int, int]:
        found = real(pid, options)
        reaped.set()
        looked.wait()
        return found

    q = ForkQueue(ignore_children=ignore)
    call = q.call(os._exit, 3)
    found: list[int | None] = []
    monkeypatch.setattr(os, "waitpid", slow)
    thread = in_thread(lambda: found.append(q._waits.status_of(call.pid)))
    reaped.wait()
    assert q.running_now() == 0
    looked.set()
    thread.join()
    assert found == [None if ignore else 3 << 8]
    with pytest.raises(ChildDied, match="exit code 3"):
        call.result()
    assert not q._children._lost


def test_a_waiting_thread_hears_of_a_child_that_another_starts(gate: Gate, platform: str) -> None:
    q = ForkQueue(2)
    q.run_back(gate)
    found: list[int] = []
    thread = in_thread(lambda: found.append(q.wait()[0]))
    wait_for(lambda: q._children._sleepers)
    second = q.run_back(lambda: None)
    thread.join()
    assert found == [second]
    gate.open()
    q.wait()


def test_more_children_than_are_watched(monkeypatch: pytest.MonkeyPatch, gate: Gate) -> None:
    from bossworker.forkqueue import sleeper

    monkeypatch.setattr(sleeper, "MOST_WATCHED", 1)
    q = ForkQueue(3)
    held = [q.run_back(gate) for _ in range(2)]
    last = q.run_back(lambda: time.sleep(0.02))
    assert q.wait() == (last, 0)
    gate.open(2)
    assert q.all_exit_ok(*held)


def test_without_descriptors_to_watch_with(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(pid: int) -> int:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "pidfd_open", fail)
    q = ForkQueue(1)
    assert q.all_exit_ok(*[q.run_back(lambda: time.sleep(0.005)) for _ in range(4)])


def test_a_timeout_is_checked() -> None:
    for value in (-1, "soon", float("nan")):
        with pytest.raises((TypeError, ValueError), match="timeout must be"):
            ForkQueue().waitpids(timeout=value)  # type: ignore[arg-type]


def test_a_wait_that_was_interrupted_before_it_began_leaves_that_of_another_thread() -> None:
    table, other = ForkQueue(1)._children, KernelWait(-1)
    table.enter_kernel(other)
    table.leave_kernel(KernelWait(-1))
    assert table._is_awaited(1)
    table.leave_kernel(other)
    assert not table._is_awaited(1)


def test_a_thread_is_woken_though_ctrl_c_has_come_into_the_first_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeper, write, calls = Sleeper(), os.write, iter((True,))

    def interrupted(fd: int, data: bytes) -> int:
        if next(calls, False):
            raise KeyboardInterrupt
        return write(fd, data)

    monkeypatch.setattr(os, "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        sleeper.wake()
    sleeper.wake()
    sleeper.sleep([], None)
    sleeper.close()

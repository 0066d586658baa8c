"""A value from a child, or what became of it instead."""

from __future__ import annotations

import errno
import os
import pickle
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bossworker import BossWorkerError, RemoteError
from bossworker.forkqueue import Call, ChildDied, ForkQueue
from tests.conftest import wait_for
from tests.forkqueue.conftest import Gate, in_thread, until_ended

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


@pytest.fixture(params=["memory", "file", "forbidden"])
def where(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the value is written; not all platforms have files in memory."""
    if request.param == "file":
        monkeypatch.delattr(os, "memfd_create")
    if request.param == "forbidden":
        monkeypatch.setattr(os, "memfd_create", forbidden)


def forbidden(*args: object) -> int:
    """As a filter of system calls has it."""
    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))


@pytest.mark.usefixtures("where")
def test_a_value_comes_back(platform: str) -> None:
    q = ForkQueue(2)
    calls = [q.call(pow, n, 2) for n in range(6)]
    assert [call.result() for call in calls] == [n * n for n in range(6)]
    assert calls[0].result() == 0
    with pytest.raises(ChildProcessError):  # the results have taken the statuses
        q.wait()


def test_it_runs_in_the_child_whose_pid_it_has() -> None:
    call = ForkQueue().call(os.getpid)
    assert call.result() == call.pid != os.getpid()


def test_what_pickle_cannot_do_cloudpickle_does() -> None:
    factor = 3
    assert ForkQueue().call(lambda: lambda n: factor * n).result()(14) == 42


@pytest.mark.usefixtures("where")
def test_big_values_need_no_reader() -> None:
    """More than any pipe holds, from more children than run at once, and nobody reads until all are started."""
    q = ForkQueue(1)
    calls = [q.call(lambda n=n: np.full(1 << 20, n)) for n in range(4)]
    assert [(int(a[0]), a.nbytes) for a in (call.result() for call in calls)] == [(n, 8 << 20) for n in range(4)]


def test_the_same_value_at_every_call_of_result() -> None:
    call: Call[list[int]] = ForkQueue().call(list)
    assert call.result() is call.result()


def test_threads_may_ask_together() -> None:
    call = ForkQueue().call(lambda: time.sleep(0.02))
    found: list[None] = []
    threads = [in_thread(lambda: found.append(call.result())) for _ in range(4)]
    for thread in threads:
        thread.join()
    assert found == [None] * 4


def divide(a: int, b: int) -> float:
    return a / b


def test_its_exception_is_raised_with_the_childs_traceback() -> None:
    call = ForkQueue().call(divide, 1, 0)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError, match="division by zero") as caught:
            call.result()
        text = "".join(traceback.format_exception(caught.value))
        assert "in divide" in str(caught.value.__cause__)
        assert "return a / b" in text
        assert "forkqueue/calls.py" not in str(caught.value.__cause__)


def test_causes_are_told() -> None:
    def fail() -> None:
        try:
            divide(1, 0)
        except ZeroDivisionError as error:
            raise ValueError("rattle") from error

    with pytest.raises(ValueError, match="rattle") as caught:
        ForkQueue().call(fail).result()
    assert "ZeroDivisionError: division by zero" in str(caught.value.__cause__)


class Unpicklable(Exception):
    def __init__(self, one: int, two: int) -> None:
        super().__init__(f"{one} and {two}")


def test_an_exception_that_cannot_be_rebuilt_is_told(capfd: pytest.CaptureFixture[str]) -> None:
    def fail() -> None:
        raise Unpicklable(1, 2)

    with pytest.raises(RemoteError, match="Unpicklable: 1 and 2") as caught:
        ForkQueue().call(fail).result()
    assert "in fail" in str(caught.value.__cause__)
    assert capfd.readouterr().err == ""  # it is told once, to whoever asks


def test_an_interrupt_of_the_child_is_none_of_the_parent() -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    with pytest.raises(RemoteError, match="KeyboardInterrupt"):
        ForkQueue().call(fail).result()


def test_a_value_that_cannot_be_pickled_is_told() -> None:
    with pytest.raises(TypeError, match="the function returned a value that cannot be pickled, lock"):
        ForkQueue().call(threading.Lock).result()


class Bomb:
    def __reduce__(self) -> Any:
        return eval, ("1 / 0",)


def test_a_value_that_cannot_be_rebuilt_is_told() -> None:
    call = ForkQueue().call(Bomb)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call.result()


@pytest.mark.parametrize(
    ("end", "words"),
    [
        (lambda: os.kill(os.getpid(), signal.SIGKILL), "signal 9, SIGKILL"),
        (lambda: os._exit(3), "exit code 3"),
        (lambda: sys.exit(4), "exit code 4"),
    ],
)
def test_a_child_that_ends_without_a_value(end: Any, words: str, platform: str) -> None:
    call = ForkQueue().call(end)
    for _ in range(2):
        with pytest.raises(ChildDied, match=rf"process {call.pid} ended without a value \({words}\)") as caught:
            call.result()
    assert isinstance(caught.value, BossWorkerError)
    assert caught.value.pid == call.pid
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)


@pytest.mark.usefixtures("where")
def test_a_child_killed_in_the_middle_of_writing_has_no_value(monkeypatch: pytest.MonkeyPatch) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(os, "pwrite", die)  # all is written but the last word
        call = ForkQueue().call(bytes, 100_000)
    with pytest.raises(ChildDied, match="SIGKILL"):
        call.result()


@pytest.mark.usefixtures("where")
def test_no_room_for_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    from bossworker.forkqueue import calls

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write = calls._write

    def once(file: int, kind: bytes, data: bytes) -> None:
        monkeypatch.setattr(calls, "_write", write)
        full()

    monkeypatch.setattr(calls, "_write", once)
    with pytest.raises(OSError, match="No space left"):
        ForkQueue().call(bytes, 100).result()
    monkeypatch.setattr(calls, "_write", full)
    with pytest.raises(ChildDied, match="exit code 1"):
        ForkQueue().call(bytes, 100).result()


def test_a_timeout_and_a_second_try(gate: Gate, platform: str) -> None:
    call = ForkQueue().call(lambda: gate() or 42)  # type: ignore[func-returns-value]
    assert not call.done()
    with pytest.raises(TimeoutError, match=rf"process {call.pid} has no value after 0.02 s"):
        call.result(0.02)
    with pytest.raises(TimeoutError):
        call.result(timeout=0)
    with pytest.raises(ValueError, match="timeout must be"):
        call.result(-1)
    gate.open()
    assert call.result(timeout=20) == 42
    assert call.done()


def test_a_status_that_somebody_else_took_does_not_cost_the_value(platform: str) -> None:
    q = ForkQueue()
    call = q.call(pow, 2, 5)
    assert q.wait() == (call.pid, 0)
    assert call.result() == 32
    call = q.call(pow, 2, 6)
    os.waitpid(call.pid, 0)
    assert call.result() == 64
    call = q.call(os._exit, 3)
    os.waitpid(call.pid, 0)
    with pytest.raises(ChildDied, match="somebody else reaped it"):
        call.result()
    call = q.call(os._exit, 3)
    q.waitpids(call.pid)
    with pytest.raises(ChildDied, match="exit code 3"):
        call.result()


def test_values_of_ignored_children(platform: str) -> None:
    q = ForkQueue(1, ignore_children=True)
    assert [call.result() for call in [q.call(abs, -n) for n in range(4)]] == list(range(4))


def test_after_with_the_values_are_there() -> None:
    with ForkQueue(2) as q:
        calls = [q.call(abs, -n) for n in range(4)]
    assert [call.result() for call in calls] == list(range(4))


def test_a_handle_is_of_no_use_in_another_process(gate: Gate) -> None:
    q = ForkQueue()
    call = q.call(gate)

    def ask() -> None:
        call.result()

    with pytest.raises(RuntimeError, match=rf"the call of process {call.pid} belongs to process {os.getpid()}"):
        q.call(ask).result()
    gate.open()
    call.result()


def test_it_counts_and_waits_for_room(gate: Gate) -> None:
    with ForkQueue(2) as q:
        first = q.call(gate, weight=2)
        thread = in_thread(q.call, gate)
        wait_for(lambda: q._line)
        time.sleep(0.02)
        assert q.running_now() == 1
        gate.open()
        thread.join()
        gate.open()
        first.result()


@pytest.mark.usefixtures("where")
def test_a_handle_that_is_dropped_leaves_no_descriptor() -> None:
    q = ForkQueue(4)
    before = len(list(Path("/proc/self/fd").iterdir()))
    pids = [q.call(bytes, 1000).pid for _ in range(4)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before
    until_ended(*pids)
    q.waitpids(*pids)


@pytest.mark.parametrize("fn", [None, "print", 3])
def test_what_is_called_must_be_callable(fn: Any) -> None:
    q = ForkQueue()
    for start in (q.call, q.run_back, q.run_back_now):
        with pytest.raises(TypeError, match="fn must be a callable, not"):
            start(fn)


def test_its_looks() -> None:
    call: Call[int] = ForkQueue().call(abs, -1)
    assert repr(call) == f"<Call in process {call.pid}>"
    call.result()

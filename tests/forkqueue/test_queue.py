"""Starting children: who waits, for what, and what a child is."""

from __future__ import annotations

import io
import logging
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bossworker import forkqueue
from bossworker.forkqueue import ForkQueue, admission, limits
from tests.conftest import wait_for
from tests.forkqueue.conftest import Gate, Log, in_line, in_thread, leaving, until_ended

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")


def short_work() -> None:
    time.sleep(0.01)


# -- room -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 3])
def test_never_more_than_size_run_at_once(size: int, log: Log, platform: str) -> None:
    q = ForkQueue(size)
    pids = [q.run_back(lambda: log.run(short_work)) for _ in range(12)]
    assert q.all_exit_ok(*pids)
    assert log.count() == 12
    assert log.most() <= size


def test_as_many_as_size_run_at_once(gate: Gate) -> None:
    with ForkQueue(3) as q:
        for _ in range(3):
            q.run_back(gate)  # returns although none has ended
        assert q.running_now() == 3
        gate.open(3)


def test_fork_is_fork(gate: Gate) -> None:
    q = ForkQueue(2)
    pid = q.fork()
    if pid == 0:
        gate()
        os._exit(7)
    assert q.running_now() == 1
    gate.open()
    assert q.waitpid(pid) == (pid, 7 << 8)
    assert q.running_now() == 0


def test_the_next_waits_until_one_ends(gate: Gate, platform: str) -> None:
    q = ForkQueue(2)
    first = [q.run_back(gate) for _ in range(2)]
    later: list[int] = []
    thread = in_thread(lambda: later.append(q.run_back(lambda: None)))
    wait_for(lambda: in_line(q))
    time.sleep(0.03)
    assert not later
    assert q.running_now() == 2
    gate.open()
    thread.join()
    gate.open()
    assert q.all_exit_ok(*first, *later)


@pytest.mark.parametrize("start", ["fork_now", "run_back_now", "system_back_now"])
def test_now_does_not_wait_for_room_but_counts(start: str, gate: Gate) -> None:
    q = ForkQueue(1)
    held = q.run_back(gate)
    if start == "fork_now":
        pid = q.fork_now()
        if pid == 0:
            gate()
            os._exit(0)
    elif start == "run_back_now":
        pid = q.run_back_now(gate)
    else:
        pid = q.system_back_now("sleep", "300") or 0
    assert q.running_now() == 2
    if start == "system_back_now":
        os.kill(pid, signal.SIGKILL)
    gate.open(2)
    q.waitpids(held, pid)
    assert q.running_now() == 0


def test_a_full_queue_uses_no_cpu(gate: Gate) -> None:
    q = ForkQueue(1)
    held = q.run_back(gate)
    before = time.process_time()
    thread = in_thread(q.run_back, lambda: None)
    wait_for(lambda: in_line(q))
    looks = 0

    def count(*_: Any) -> float:
        nonlocal looks
        looks += 1
        return 1000.0

    q._line._seconds_to_look = count  # type: ignore[method-assign, assignment]
    time.sleep(0.2)
    assert looks <= 1
    assert time.process_time() - before < 0.15
    gate.open()
    thread.join()
    q.waitpids(held)
    q.wait()


# -- weight ---------------------------------------------------------------------------------------------------


def test_weight_counts(gate: Gate) -> None:
    q = ForkQueue(3, weight=3)
    held = q.run_back(gate)
    q.weight = 1
    thread = in_thread(q.run_back, lambda: None)
    wait_for(lambda: in_line(q))
    assert q.running_now() == 1
    gate.open()
    thread.join()
    q.waitpids(held)
    q.wait()


def test_excess_is_allowed_by_default(gate: Gate) -> None:
    with ForkQueue(3) as q:
        q.run_back(gate)
        q.run_back(gate, weight=3)  # 1 < 3: there is room
        thread = in_thread(q.run_back, lambda: None)
        wait_for(lambda: in_line(q))  # 4 >= 3
        gate.open(2)
        thread.join()


def test_without_excess_the_next_waits_until_its_own_weight_fits(gate: Gate) -> None:
    with ForkQueue(3, allow_excess=False) as q:
        q.run_back(gate)
        thread = in_thread(q.run_back, lambda: None, weight=3)
        wait_for(lambda: in_line(q))
        time.sleep(0.02)
        assert q.running_now() == 1
        gate.open()
        thread.join()
        q.run_back(gate)
        q.run_back(gate, weight=2)  # 1 + 2 <= 3
        gate.open(2)


def test_one_heavier_than_the_queue_runs_alone(gate: Gate) -> None:
    with ForkQueue(2, allow_excess=False) as q:
        q.run_back(gate, weight=9)
        thread = in_thread(q.run_back, lambda: None)
        wait_for(lambda: in_line(q))
        gate.open()
        thread.join()


# -- settings that change while it runs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value"), [("size", 2), ("allow_excess", True), ("max_load", 0), ("min_free_memory", 0)]
)
def test_a_change_is_heeded_at_once(setting: str, value: int, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "RECHECK_SECONDS", 1000.0)
    monkeypatch.setattr(limits, "load_average", lambda: 5.0)
    q = ForkQueue(1)
    q.size = 1 if setting == "size" else 2
    q.allow_excess = setting != "allow_excess"
    q.max_load = 1e-9 if setting == "max_load" else 0
    q.min_free_memory = 1 << 60 if setting == "min_free_memory" else 0
    held = q.run_back(gate)
    thread = in_thread(q.run_back, lambda: None, weight=2)
    wait_for(lambda: in_line(q))
    setattr(q, setting, value)
    thread.join(20)
    assert not thread.is_alive()
    gate.open()
    q.waitpids(held)
    q.wait()


def test_a_signal_handler_may_change_the_size(gate: Gate) -> None:
    q = ForkQueue(1)

    def grow(*_: object) -> None:
        q.size = 2

    before = signal.signal(signal.SIGUSR1, grow)
    try:
        q.run_back(gate)
        me = os.getpid()

        def tell() -> None:
            wait_for(lambda: in_line(q))
            os.kill(me, signal.SIGUSR1)

        thread = in_thread(tell)
        q.run_back(gate)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    gate.open(2)
    q.wait()
    q.wait()


def test_a_signal_handler_may_fork(gate: Gate) -> None:
    """Also while the fork that it interrupted waits for room, behind others."""
    q = ForkQueue(1)
    q.run_back(gate)
    other = in_thread(q.run_back, gate)
    wait_for(lambda: in_line(q))
    forked: list[int] = []

    def fork(*_: object) -> None:
        gate.open(2)
        forked.append(q.run_back(gate))
        gate.open()

    before = signal.signal(signal.SIGUSR1, fork)
    try:
        me = os.getpid()

        def tell() -> None:
            wait_for(lambda: in_line(q, 2))
            os.kill(me, signal.SIGUSR1)

        thread = in_thread(tell)
        outer = q.run_back(lambda: None)
        thread.join()
    finally:
        signal.signal(signal.SIGUSR1, before)
    other.join()
    assert q.all_exit_ok(*forked, outer)
    assert [q.wait()[1] for _ in range(2)] == [0, 0]
    assert not q._line


def test_a_smaller_size_interrupts_nobody(gate: Gate) -> None:
    with ForkQueue(3) as q:
        for _ in range(3):
            q.run_back(gate)
        q.size = 1
        assert q.running_now() == 3
        gate.open(3)


# -- delay ----------------------------------------------------------------------------------------------------


def test_delay_is_kept_between_starts_of_all_kinds() -> None:
    q = ForkQueue(9, delay=0.05)
    started = time.monotonic()
    pids = [q.run_back(lambda: None), q.run_back_now(lambda: None), q.system_back("true") or 0]
    assert time.monotonic() - started >= 0.1
    q.delay = 0
    assert q.all_exit_ok(*pids)


def test_delay_can_be_cleared_while_somebody_waits_for_it() -> None:
    q = ForkQueue(9, delay=1000)
    first = q.run_back(lambda: None)  # nothing came before
    for start in (q.run_back, q.run_back_now):
        q.delay = 1000
        thread = in_thread(start, lambda: None)
        wait_for(lambda: q._children._sleepers)
        q.delay = 0
        thread.join(20)
        assert not thread.is_alive()
    q.waitpids(first)
    q.wait()
    q.wait()


# -- load and memory ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("setting", "hard"), [("max_load", 1e-9), ("min_free_memory", 1 << 60)])
def test_a_busy_machine_runs_one_at_a_time(
    setting: str, hard: float, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "load_average", lambda: 5.0)
    q = ForkQueue(4, **{setting: hard})  # type: ignore[arg-type]
    assert q.all_exit_ok(*[q.run_back(lambda: log.run(short_work)) for _ in range(5)])
    assert (log.count(), log.most()) == (5, 1)


@pytest.mark.parametrize("probe", ["load_average", "available_memory"])
def test_the_machine_is_asked_again_while_nothing_else_happens(
    probe: str, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "RECHECK_SECONDS", 0.01)
    answers = {"load_average": 1.0, "available_memory": 1e12}
    for name in answers:
        monkeypatch.setattr(limits, name, partial(answers.__getitem__, name))
    answers[probe] = {"load_average": 9.0, "available_memory": 10.0}[probe]
    with ForkQueue(4, max_load=2.5, min_free_memory=1000) as q:
        q.run_back(gate)
        thread = in_thread(q.run_back, gate)
        wait_for(lambda: in_line(q))
        answers.update(load_average=1.0, available_memory=1e12)
        thread.join(20)
        assert not thread.is_alive()
        gate.open(2)


def test_a_limit_that_can_no_longer_be_told_does_not_stop_the_queue(
    gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> float:
        raise OSError("gone")

    with ForkQueue(4, max_load=1e-9, min_free_memory=1 << 60) as q:
        monkeypatch.setattr(limits, "load_average", fail)
        monkeypatch.setattr(limits, "available_memory", fail)
        q.run_back(gate)
        q.run_back(gate)
        gate.open(2)


def test_what_the_machine_says_is_about_right() -> None:
    assert limits.load_average() == pytest.approx(os.getloadavg()[0], abs=1)
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 1 << 20 < limits.available_memory() <= total


# -- a limit that cannot be kept ------------------------------------------------------------------------------


def test_a_long_wait_is_explained_once(
    gate: Gate, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(admission, "STALL_SECONDS", 0.02)
    with ForkQueue(1) as q:
        q.run_back(gate)
        for _ in range(2):
            thread = in_thread(q.run_back, gate)
            wait_for(lambda: in_line(q) and caplog.records)
            time.sleep(0.05)
            gate.open()
            thread.join()
        (record,) = caplog.records
        assert record.levelno == logging.WARNING
        assert "1 of weight 1 are running, size is 1" in record.getMessage()
        gate.open()


def test_nobody_is_in_a_hurry_to_see_a_delay_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """The time for a warning has long come, but there is room."""
    monkeypatch.setattr(admission, "STALL_SECONDS", 0.001)
    q = ForkQueue(4, delay=0.1)
    looks = []
    seconds = q._line._seconds_to_look
    monkeypatch.setattr(q._line, "_seconds_to_look", lambda *args: looks.append(seconds(*args)) or looks[-1])  # type: ignore[func-returns-value]
    pids = [q.run_back(lambda: None) for _ in range(2)]
    assert 1 <= len(looks) <= 10
    assert all(pause is not None and pause > 0 for pause in looks)
    assert q.all_exit_ok(*pids)


# -- threads --------------------------------------------------------------------------------------------------


def test_threads_are_served_in_the_order_in_which_they_came(tmp_path: Path, gate: Gate) -> None:
    order = tmp_path / "order"

    def sign(n: int) -> None:
        with open(order, "ab", buffering=0) as file:
            file.write(b"%d" % n)

    with ForkQueue(1) as q:
        q.run_back(gate)
        threads = []
        for n in range(6):
            threads.append(in_thread(q.run_back, lambda n=n: sign(n), weight=6 - n))
            wait_for(partial(in_line, q, n + 1))
        gate.open()
        for thread in threads:
            thread.join()
    assert order.read_text() == "012345"


def test_threads_share_the_limit_and_lose_no_status(log: Log) -> None:
    q = ForkQueue(3)
    codes: dict[int, int] = {}

    def run_and_leave(log: Log, code: int) -> None:
        log.run(short_work)
        leaving(code)()

    def work(n: int) -> None:
        for code in range(n * 6, n * 6 + 6):
            pid = q.run_back(partial(run_and_leave, log, code))
            codes[code] = q.waitpid(pid)[1] >> 8

    threads = [in_thread(work, n) for n in range(4)]
    for thread in threads:
        thread.join()
    assert codes == {n: n for n in range(24)}
    assert log.most() <= 3
    assert q.running_now() == 0


# -- what a child is ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["queue", "os.fork", "another queue"])
def test_a_child_starts_with_an_empty_queue_of_size_1(how: str, gate: Gate) -> None:
    q = ForkQueue(4, weight=2, delay=0.001)
    held = q.run_back(gate)
    fork = {"queue": q.fork, "os.fork": os.fork, "another queue": ForkQueue().fork}[how]
    pid = fork()
    if pid == 0:
        with_children = (q.size, q.weight, q.delay, q.running_now()) == (1, 2, 0.001, 0)
        try:
            q.wait()
        except ChildProcessError:
            os._exit(0 if with_children and q.all_exit_ok(q.run_back(lambda: None)) else 2)
        os._exit(3)
    assert os.waitpid(pid, 0)[1] == 0
    assert (q.size, q.running_now()) == (4, 1)
    gate.open()
    q.waitpids(held)


def test_a_child_is_not_disturbed_by_what_the_parents_threads_did(gate: Gate) -> None:
    """Another thread sleeps, and a third holds the lock, at the moment of the fork."""
    q = ForkQueue(1)
    held = q.run_back(gate)
    sleeping = in_thread(q.run_back, gate)
    wait_for(lambda: in_line(q))
    holding, let_go = threading.Event(), threading.Event()

    def hold() -> None:
        with q._children.lock:
            holding.set()
            let_go.wait()

    holder = in_thread(hold)
    holding.wait()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        ok = q.all_exit_ok(q.run_back(lambda: None)) and not q._children._sleepers
        os._exit(0 if ok else 1)
    let_go.set()
    assert os.waitpid(pid, 0)[1] == 0
    holder.join()
    gate.open()
    sleeping.join()
    gate.open()
    q.waitpids(held)
    q.wait()


def test_a_child_may_give_itself_a_larger_queue(log: Log) -> None:
    q = ForkQueue(2)

    def family() -> None:
        q.size = 3
        pids = [q.run_back(lambda: log.run(short_work)) for _ in range(6)]
        raise SystemExit(0 if q.all_exit_ok(*pids) else 1)

    assert q.all_exit_ok(q.run_back(family))
    assert log.count() == 6
    assert log.most() <= 3


# -- run_back -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raised", "status"),
    [
        (None, 0),
        (SystemExit(None), 0),
        (SystemExit(5), 5 << 8),
        (SystemExit(-1), 255 << 8),
        (SystemExit("good-bye"), 1 << 8),
        (ValueError("rattle"), 1 << 8),
        (KeyboardInterrupt(), 1 << 8),
    ],
)
def test_how_a_function_ends_is_the_exit_code(
    raised: BaseException | None, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    def fn() -> None:
        if raised is not None:
            raise raised

    q = ForkQueue()
    pid = q.run_back(fn)
    assert q.waitpids(pid) == [(pid, status)]
    said = capfd.readouterr().err
    if isinstance(raised, SystemExit):
        assert said.strip() == (raised.code if isinstance(raised.code, str) else "")
    else:
        assert (type(raised).__name__ in said and "in fn" in said) == (raised is not None)


PROGRAM = """
import atexit, sys
from bossworker.forkqueue import ForkQueue
atexit.register(print, "the end of", "the parent")
q = ForkQueue(2)
sys.stdout.write("once,")
try:
    pid = q.run_back(lambda: sys.stdout.write("from the child,"))
finally:
    sys.stdout.write("the parent goes on,")
assert q.all_exit_ok(pid)
"""


def test_a_child_writes_what_it_has_and_nothing_of_its_parents() -> None:
    """Into a pipe, where Python buffers."""
    ended = run_program(PROGRAM)
    assert sorted(ended.stdout.strip().split(",")) == [
        "from the child",
        "once",
        "the end of the parent",
        "the parent goes on",
    ]


def run_program(source: str, *args: str) -> subprocess.CompletedProcess[str]:
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", source, *args],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    return ended


# -- system_back ----------------------------------------------------------------------------------------------


def test_system_back_runs_a_program(tmp_path: Path) -> None:
    q = ForkQueue()
    out = tmp_path / "out"
    pid = q.system_back("sh", "-c", 'printf %s "$1" >"$0"; exit 3', out, b"two  words")
    assert pid is not None
    assert q.waitpids(pid) == [(pid, 3 << 8)]
    assert out.read_text() == "two  words"


def test_system_back_waits_for_room(log: Log) -> None:
    q = ForkQueue(2)
    mark = f"printf + >>{log.path}; sleep 0.01; printf - >>{log.path}"
    assert q.all_exit_ok(*[q.system_back("sh", "-c", mark) for _ in range(8)])
    assert log.count() == 8
    assert log.most() <= 2


@pytest.mark.parametrize("start", ["system_back", "system_back_now"])
@pytest.mark.parametrize("program", ["no-such-program", "/no/such/program", "/etc/passwd/program"])
def test_a_program_that_is_not_found_is_none_and_leaves_nothing(start: str, program: str) -> None:
    q = ForkQueue(delay=1000)
    assert getattr(q, start)(program, "argument") is None
    assert getattr(q, start)(program) is None  # nothing was started, so there is no delay
    assert q.running_now() == 0
    with pytest.raises(ChildProcessError):
        q.wait()
    with pytest.raises(SystemExit):  # this process is no child because of it
        q.exit()


def test_a_program_that_cannot_be_run_says_why(tmp_path: Path) -> None:
    q = ForkQueue()
    plain, script = tmp_path / "plain", tmp_path / "script"
    plain.write_text("not a program")
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(PermissionError):
        q.system_back(plain)
    with pytest.raises(FileNotFoundError):
        q.system_back(script)
    assert q.running_now() == 0


def test_a_program_finds_the_signals_as_they_are_meant_to_be() -> None:
    """Python ignores SIGPIPE; `yes` must not."""
    q = ForkQueue()
    assert q.all_exit_ok(q.system_back("bash", "-c", "yes | head -1 >/dev/null; test ${PIPESTATUS[0]} = 141"))


# -- all_exit_ok, running_now, with, exit ---------------------------------------------------------------------


def test_all_exit_ok() -> None:
    q = ForkQueue()
    good, bad, killed = q.run_back(lambda: None), q.run_back(leaving(1)), q.system_back("sleep", "300") or 0
    os.kill(killed, signal.SIGKILL)
    other = q.run_back(lambda: None)
    assert q.all_exit_ok()
    assert q.all_exit_ok(other)
    assert not q.all_exit_ok(other)  # there is no such child any more
    assert not q.all_exit_ok(good, bad)
    assert not q.all_exit_ok(killed)
    assert not q.all_exit_ok(None)
    assert not q.all_exit_ok(q.run_back(lambda: None), q.system_back("no-such-program"))
    with pytest.raises(ChildProcessError):  # it waits for all, whatever one of them gave
        q.wait()


def test_running_now_sees_ends_by_itself(gate: Gate, platform: str) -> None:
    q = ForkQueue(5)
    pids = [q.run_back(gate) for _ in range(3)]
    for n in (2, 1, 0):
        gate.open()
        wait_for(lambda n=n: q.running_now() == n)  # type: ignore[misc]
    assert q.all_exit_ok(*pids)


def test_the_number_of_children_and_their_weight(gate: Gate, platform: str) -> None:
    told = []
    with ForkQueue(4, weight=3) as q:
        for _ in range(2):
            q.run_back(gate)
            told.append((q.running_now(), q.running_weight()))
        gate.open()
        q.run_back(gate)  # waits: two of weight 3 are more than 4
        told.append((q.running_now(), q.running_weight()))
        gate.open(2)
    assert told == [(1, 3), (2, 6), (2, 6)]
    assert (q.running_now(), q.running_weight()) == (0, 0)


def sleep_and_leave(code: int) -> None:
    time.sleep(0.01)
    leaving(code)()


def test_with_waits_for_all_and_keeps_their_statuses(platform: str) -> None:
    with ForkQueue(2) as q:
        pids = [q.run_back(partial(sleep_and_leave, n)) for n in range(5)]
    assert not any(Path(f"/proc/{pid}").exists() for pid in pids)
    assert q.waitpids(*pids) == [(pid, n << 8) for n, pid in enumerate(pids)]


def test_with_waits_when_an_exception_passes_too() -> None:
    with pytest.raises(KeyError), ForkQueue(2) as q:  # noqa: PT012
        pid = q.run_back(short_work)
        raise KeyError
    assert not Path(f"/proc/{pid}").exists()


def test_exit_in_a_child_leaves_at_once_and_writes_what_is_buffered() -> None:
    source = """
import sys
from bossworker.forkqueue import ForkQueue
q = ForkQueue(2)
for code in (0, 4, None, "sorry"):
    try:
        pid = q.fork()
        if pid == 0:
            sys.stdout.write("child,")
            sys.stderr = sys.stdout
            q.exit(code)
    finally:
        sys.stdout.write("parent,")
        sys.stdout.flush()
    sys.stdout.write(f"{q.waitpid(pid)[1] >> 8},")
    sys.stdout.flush()
q.exit(None)
"""
    words = run_program(source).stdout.replace("sorry\n", "sorry,").rstrip(",").split(",")
    assert sorted(words) == sorted(["child", "parent"] * 4 + ["0", "4", "0", "1", "sorry"])


@pytest.mark.parametrize("code", [0, 3, None, "text"])
def test_exit_elsewhere_is_sys_exit(code: Any) -> None:
    with pytest.raises(SystemExit) as left:
        ForkQueue().exit(code)
    assert left.value.code == code


# -- what is said ---------------------------------------------------------------------------------------------


def test_debug_tells_what_happens_to_children(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bossworker.forkqueue")
    q = ForkQueue(debug=True)
    pid = q.run_back(leaving(3), weight=2)
    q.waitpids(pid)
    said = [record.getMessage() for record in caplog.records]
    assert said[0] == f"[{os.getpid()}] process {pid} started (weight 2)"
    assert said[-1] == f"[{os.getpid()}] process {pid} reaped (exit code 3)"
    assert all(record.name == "bossworker.forkqueue" for record in caplog.records)


def test_trace_tells_each_call(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bossworker.forkqueue")
    q = ForkQueue(trace=True)
    if q.fork() == 0:
        os._exit(0)
    if (pid := q.fork_now()) == 0:
        os._exit(0)
    q.waitpid(pid)
    q.wait()
    with pytest.raises(SystemExit):
        q.exit(2)
    q.trace = False
    q.waitpids()
    said = [record.getMessage().partition(" ")[2] for record in caplog.records]
    assert said == ["fork()", "fork_now()", f"waitpid({pid}, 0)", "wait()", "exit(2)"]


def test_a_program_without_logging_is_told_on_stderr() -> None:
    program = """
        from bossworker.forkqueue import ForkQueue
        queue = ForkQueue(debug=True, trace=True)
        queue.waitpid(queue.run_back(lambda: None))
        queue.debug = queue.trace = False
        queue.waitpid(queue.run_back(lambda: None))
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    ended = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    said = [line.partition("] ")[2].split()[0].partition("(")[0] for line in ended.stderr.splitlines()]
    assert said == ["run_back", "process", "waitpid", "process"]


def test_nothing_is_said_by_default(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    q = ForkQueue()
    q.waitpids(q.run_back(lambda: None))
    assert not caplog.records


# -- the functions of the module ------------------------------------------------------------------------------


def test_the_functions_of_the_module_use_the_default_queue(gate: Gate) -> None:
    pid = forkqueue.run_back(gate)
    assert forkqueue.running_now() == forkqueue.default_queue.running_now() == 1
    gate.open()
    assert forkqueue.waitpids(pid) == [(pid, 0)]
    pid = forkqueue.fork()
    if pid == 0:
        forkqueue.exit(6)
    assert forkqueue.wait() == (pid, 6 << 8)
    assert forkqueue.all_exit_ok(forkqueue.system_back("true"), forkqueue.run_back_now(lambda: None))
    assert forkqueue.call(sum, [1, 2]).result() == 3
    for name in forkqueue.__all__:
        assert getattr(forkqueue, name).__doc__


def test_a_broken_stream_does_not_change_the_exit_code(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = io.StringIO()
    broken.close()
    monkeypatch.setattr(sys, "stdout", broken)
    q = ForkQueue()
    pid = q.run_back(leaving(4))
    until_ended(pid)
    assert q.waitpids(pid) == [(pid, 4 << 8)]

"""Signals sent to the pool's processes: they end nobody, and whoever a handler starts is as usual."""

from __future__ import annotations

import json
import multiprocessing
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, run_command
from bossworker.pool.wire.frames import Frame
from bossworker.system import processes, signals
from tests.conftest import alive, wait_for
from tests.process.programs import environment, run_program, write_program

Pool = Callable[..., BossWorker]
METHODS = pytest.mark.parametrize("start_method", ["fork", "spawn"])
ENDINGS = list(signals.ENDINGS)


def nap(job: dict[str, Any]) -> dict[str, Any]:
    if "begun" in job:
        Path(job["begun"]).touch()
    until = time.monotonic() + job.get("seconds", 0)
    while (left := until - time.monotonic()) > 0:
        time.sleep(left)
    return {"n": job.get("n")}


def everyone(bw: BossWorker) -> list[int]:
    """Boss, fork server, workers."""
    return [bw.boss_pid, *processes.descendants(bw.boss_pid)]


# -- signals that end programs --------------------------------------------------------------------------------------


@METHODS
def test_what_ends_programs_ends_none_of_the_pool(pool: Pool, tmp_path: Path, start_method: str) -> None:
    bw = pool(nap, worker_count=2, start_method=start_method)
    before = everyone(bw)
    assert len(before) == 4
    bw.add_work({"n": 1, "seconds": 0.5, "begun": str(tmp_path / "begun")})
    wait_for((tmp_path / "begun").exists)
    for number in ENDINGS:
        for pid in before:
            os.kill(pid, number)
    result = bw.get_result(timeout=30)
    assert result == {"n": 1}
    bw.add_work(*({"n": n} for n in range(2, 50)))
    assert sorted(result["n"] for result in bw.results()) == list(range(2, 50))
    assert everyone(bw) == before
    assert bw.stats().restarts == 0
    bw.shut_down()
    assert not any(map(alive, before))


SERVICE = """
    import os, signal, sys, time
    from bossworker import BossWorker
    from tests.process.test_signals import nap

    def stop(number, frame):
        raise SystemExit(0)

    if __name__ == "__main__":
        signal.signal(signal.SIGTERM, stop)
        pool = BossWorker(nap, worker_count=3, start_method=sys.argv[1])
        try:
            pool.add_work(*({"n": n, "seconds": 0.05} for n in range(30)))
            print("ready", flush=True)
            time.sleep(300)
        finally:
            pool.shut_down()
            print(sorted(result["n"] for result in pool.results()) == list(range(30)), flush=True)
"""


@METHODS
def test_a_service_manager_ends_the_program_in_order(tmp_path: Path, start_method: str) -> None:
    """It sends TERM to all processes of the group at once: those of the pool leave that to the program."""
    command = [sys.executable, str(write_program(tmp_path, SERVICE)), start_method]
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    group = [program.pid, *processes.descendants(program.pid)]
    assert len(group) == 6
    for pid in group:
        os.kill(pid, signal.SIGTERM)
    assert program.communicate(timeout=30) == ("True\n", "")
    assert program.returncode == 0
    wait_for(lambda: not any(map(alive, group)))


def test_signals_while_a_pool_starts_end_none_of_it(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """From its first instruction on a process disregards them: until it can, they are blocked."""
    program = """
        import os, signal, sys, threading
        from bossworker import BossWorker
        from bossworker.system import processes
        from tests.process.test_signals import nap

        def pester():
            while not stop.is_set():
                for pid in processes.descendants(os.getpid()):
                    try:
                        os.kill(pid, signal.SIGTERM)
                    except ProcessLookupError:
                        pass
                stop.wait(2e-4)  # much less than a process takes until it can disregard them

        if __name__ == "__main__":
            stop = threading.Event()
            threading.Thread(target=pester).start()
            try:
                for n in range(int(sys.argv[2])):
                    with BossWorker(nap, worker_count=2, start_method=sys.argv[1], max_jobs_per_worker=1) as pool:
                        pool.add_work({"n": n}, {"n": n})
                        assert [dict(result) for result in pool.results()] == [{"n": n}] * 2
            finally:
                stop.set()
            print("fine")
        """
    many, few = ("20", "5") if request.config.getoption("--long") else ("3", "1")
    assert run_program(tmp_path, program, "fork", many, stderr=None) == "fine\n"
    assert run_program(tmp_path, program, "spawn", few, stderr=None) == "fine\n"


def test_what_the_program_ignores_stays_ignored(pool: Pool) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        bw = pool(lambda job: {"hup": signal.getsignal(signal.SIGHUP) == signal.SIG_IGN}, worker_count=1)
    finally:
        signal.signal(signal.SIGHUP, before)
    bw.add_work({})
    assert bw.get_result() == {"hup": True}


def test_the_program_s_handlers_run_in_none_of_the_pool(pool: Pool, tmp_path: Path) -> None:
    heard = tmp_path / "heard"
    before = {one: signal.signal(one, lambda *_: heard.touch()) for one in (signal.SIGUSR1, signal.SIGVTALRM)}
    try:
        bw = pool(lambda job: {"vtalrm": signal.getsignal(signal.SIGVTALRM) == signal.SIG_DFL}, worker_count=1)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    for pid in everyone(bw):
        os.kill(pid, signal.SIGUSR1)
    bw.add_work({})
    assert bw.get_result() == {"vtalrm": True}
    assert not heard.exists()


def test_a_handler_may_ask_for_signals(pool: Pool) -> None:
    heard: list[int] = []

    def listen() -> None:
        signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))

    bw = pool(lambda job: {"heard": heard}, init_handler=listen, worker_count=1)
    os.kill(bw.worker_pids[0], signal.SIGTERM)
    bw.add_work({})
    assert bw.get_result() == {"heard": [signal.SIGTERM]}


# -- what a handler starts ------------------------------------------------------------------------------------------

DISPOSITIONS = """
import json, signal
names = ["SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2", "SIGINT"]
usual = (signal.SIG_DFL, signal.default_int_handler)
print(json.dumps([signal.getsignal(getattr(signal, name)) in usual for name in names]))
print(json.dumps(sorted(signal.pthread_sigmask(signal.SIG_BLOCK, ()))))
"""


def dispositions(job: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-c", DISPOSITIONS]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, close_fds=job["close_fds"])
    default, blocked = map(json.loads, done.stdout.splitlines())
    return {"default": default, "blocked": blocked}


@METHODS
def test_a_program_that_a_handler_starts_has_the_defaults(pool: Pool, start_method: str) -> None:
    bw = pool(dispositions, worker_count=1, start_method=start_method)
    bw.add_work({"close_fds": True}, {"close_fds": False})
    for result in bw.results():
        assert result == {"default": [True] * 6, "blocked": []}, result.traceback


def test_a_command_has_the_defaults(pool: Pool) -> None:
    bw = pool(run_command, worker_count=1)
    bw.add_work({"cmd": [sys.executable, "-c", DISPOSITIONS]})
    result = bw.get_result()
    assert result["stdout"].splitlines() == [json.dumps([True] * 6), "[]"]


def terminate_children(job: dict[str, Any]) -> dict[str, Any]:
    """End children at once after their start, when they have hardly begun; how they ended."""
    fork = multiprocessing.get_context("fork")
    codes = []
    for _ in range(job["times"]):
        child = fork.Process(target=time.sleep, args=(300,))
        child.start()
        child.terminate()
        child.join()
        codes.append(child.exitcode)
        pid = os.fork()
        if pid == 0:
            time.sleep(300)
        os.kill(pid, signal.SIGINT)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    return {"codes": set(codes), "blocked": signal.pthread_sigmask(signal.SIG_BLOCK, ())}


def test_a_child_that_a_handler_forks_can_be_ended_as_usual(pool: Pool) -> None:
    """Also in the instant before it has its defaults back; SIGINT is no KeyboardInterrupt (exit code 1) then."""
    bw = pool(terminate_children, worker_count=1, global_timeout=60)
    bw.add_work({"times": 12})
    result = bw.get_result()
    assert result.ok, result.traceback
    assert -signal.SIGTERM in result["codes"]
    assert result["codes"] <= {-signal.SIGTERM, -signal.SIGINT, 1}
    assert result["blocked"] == set()


def test_threads_of_a_handler_may_fork_at_once(pool: Pool) -> None:
    def fork() -> None:
        for _ in range(8):
            pid = os.fork()
            if pid == 0:
                os._exit(0)
            os.waitpid(pid, 0)

    def forks(job: dict[str, Any]) -> dict[str, Any]:
        masks: list[set[int]] = []

        def work() -> None:
            fork()
            masks.append(signal.pthread_sigmask(signal.SIG_BLOCK, ()))

        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return {"masks": masks}

    bw = pool(forks, worker_count=1, init_handler=lambda: __import__("warnings").simplefilter("ignore"))
    bw.add_work({})
    assert bw.get_result() == {"masks": [set()] * 4}


# -- SIGPIPE ----------------------------------------------------------------------------------------------------------


def test_sigpipe_kills_neither_the_pool_nor_the_program(tmp_path: Path) -> None:
    program = """
        import contextlib, os, signal, socket, sys
        from bossworker import BossDied, BossWorker

        def sigpipe(job):
            return {"is": signal.getsignal(signal.SIGPIPE).name}

        if __name__ == "__main__":
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            pool = BossWorker(sigpipe, worker_count=2, start_method=sys.argv[1])
            for n in range(30):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pool.worker_pids[-1], signal.SIGKILL)  # an idle one
                pool.add_work({})
                found = pool.get_result(timeout=30)["is"]
            print(found)
            os.kill(pool.boss_pid, signal.SIGKILL)
            try:
                while True:
                    pool.add_work({"large": b"x" * 100_000})
            except BossDied:
                print("dead")
            pool.shut_down(force=True)
        """
    assert run_program(tmp_path, program, "fork") == "SIG_DFL\ndead\n"  # a worker keeps the program's setting,
    assert run_program(tmp_path, program, "spawn") == "SIG_IGN\ndead\n"  # and a fresh interpreter Python's


def test_a_send_to_a_peer_that_is_gone_is_an_error_and_no_signal() -> None:
    from bossworker.pool.wire.link import Link, LinkClosed, link_pair
    from bossworker.pool.wire.messages import Kind

    before = signal.signal(signal.SIGPIPE, lambda *_: heard.append(True))
    heard: list[bool] = []
    try:
        for fds in ((), (os.dup(0),)):
            ours, theirs = link_pair()
            theirs.close()
            link = Link(ours)
            with pytest.raises(LinkClosed):
                link.send(Kind.STATS, fds=fds)
            link.close()
    finally:
        signal.signal(signal.SIGPIPE, before)
    assert not heard


# -- held back, and blocked ------------------------------------------------------------------------------------------


def test_signals_blocked_for_a_start_come_after_it() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGUSR1, lambda number, frame: heard.append(number))
    try:
        with signals.endings_blocked():
            signal.raise_signal(signal.SIGUSR1)
            assert heard == []
        assert heard == [signal.SIGUSR1]
        assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()
    finally:
        signal.signal(signal.SIGUSR1, before)


def test_a_socket_of_a_client_that_hangs_up_is_no_signal_either(pool: Pool) -> None:
    """fileno()'s descriptor is fed by a socket of ours, which may be closed meanwhile by another thread."""
    bw = pool(nap, worker_count=1)
    bw.fileno()
    bw.add_work({"n": 1})
    with suppress(OSError):
        bw._connection._readiness._seen.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
    assert bw.get_result() == {"n": 1}


def test_what_an_interrupted_call_has_read_keeps_nobody_waiting(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else comes from the boss: so who asks next must not wait until something does."""
    bw = pool(nap, worker_count=1)
    line = bw._connection
    bw.add_work({"n": 1})
    wait_for(lambda: select.select([line.link.sock], [], [], 0)[0])

    def interrupted(frame: Frame) -> None:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(line, "_on_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        bw.get_result()
    begin = time.monotonic()
    assert bw.get_result(timeout=60) == {"n": 1}
    assert time.monotonic() < begin + 30

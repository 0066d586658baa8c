"""What a fork copies and must not be relied on: locks of streams, streams of any kind, descriptors. And its warning."""

from __future__ import annotations

import io
import logging
import os
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.system import callers_line, stdio
from tests.conftest import alive, wait_for
from tests.process.programs import environment, run_program, write_program

Pool = Callable[..., BossWorker]

# -- locks of streams ----------------------------------------------------------------------------------------------

PRINTING = """
    import logging, os, sys, threading, time
    from bossworker import BossWorker

    out = sys.stdout
    sys.stdout = open(sys.argv[1], "w")
    logging.basicConfig(stream=sys.stdout, level=logging.INFO)

    def noise():
        while not stop.is_set():
            print("x" * 200, flush=True)

    def handle(job):
        print("handled", job["n"])
        logging.info("logged %d", job["n"])
        return {}

    stop = threading.Event()
    threads = [threading.Thread(target=noise) for _ in "12"]
    for thread in threads:
        thread.start()
    stuck = 0
    for n in range(4):
        pool = BossWorker(handle, worker_count=1)
        for _ in "12":
            pool.add_work({"n": n})
            stuck += pool.get_result(timeout=20) is None
        pool.shut_down()
    held = [BossWorker(handle, worker_count=1) for _ in range(5)]
    print(stuck, *(pool.boss_pid for pool in held), file=out)
    out.flush()
    os._exit(0)
"""


def test_locks_of_streams_that_threads_hold_at_the_fork_stop_nobody(tmp_path: Path) -> None:
    """Neither boss nor fork server nor worker; and what was in a buffer of the program's is not written twice."""
    log = tmp_path / "log"
    out = run_program(tmp_path, PRINTING, str(log), stderr=None)
    stuck, *bosses = map(int, out.split())
    assert stuck == 0
    wait_for(lambda: not any(map(alive, bosses)), what="the bosses to end with the program")
    text = log.read_bytes().decode(
        errors="replace"
    )  # with lines of the program's that were cut in two by those of workers
    for n in range(4):
        assert text.count(f"handled {n}\n") == text.count(f"INFO:root:logged {n}\n") == 2


def test_renewed_streams_are_like_the_old_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(stdio, "_renewed", [])
    with open(tmp_path / "log", "w", encoding="latin-1", errors="replace", buffering=1) as old:
        old.write("unfinished")
        monkeypatch.setattr(sys, "stdout", old)
        monkeypatch.setattr(sys, "stderr", io.StringIO())
        handler = logging.StreamHandler(old)
        stdio.renew_streams()
        new = sys.stdout
        assert new is not old
        assert isinstance(sys.stderr, io.StringIO)
        assert handler.stream is new
        assert (new.encoding, new.errors, new.line_buffering) == ("latin-1", "replace", True)
        assert (new.fileno(), new.name) == (old.fileno(), old.name)
        new.write("é €\n")
        new.close()
        old.write(" line\n")
        handler.close()
    assert (tmp_path / "log").read_bytes() == b"\xe9 ?\nunfinished line\n"


@pytest.mark.parametrize("stream", [None, io.StringIO()])
def test_other_streams_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setattr(sys, "stderr", stream)
    stdio.renew_streams()
    assert sys.stdout is sys.stderr is stream


# -- streams that raise --------------------------------------------------------------------------------------------

RAISING = """
    import os, sys
    from bossworker import BossWorker

    class Tee:
        def write(self, text):
            return len(text)
        def flush(self):
            if os.getpid() != program:
                raise {error}("the connection belongs to another process")

    program = os.getpid()
    sys.stdout, out = Tee(), sys.stdout
    try:
        with BossWorker(lambda job: print("x") or {{}}, worker_count=1, max_jobs_per_worker=2) as pool:
            pool.add_work(*[{{}}] * 6)
            print(sum(result.ok for result in pool.results()), "of 6", pool.stats().restarts, "restarts", file=out)
    finally:
        os.write(1, f"process {{os.getpid() - program}} cleans up\\n".encode())
        out.flush()
"""


@pytest.mark.parametrize("error", ["RuntimeError", "OSError"])
def test_a_stream_whose_flush_raises_ends_no_worker_and_sends_none_back_into_the_program(
    tmp_path: Path, error: str
) -> None:
    out = run_program(tmp_path, RAISING.format(error=error))
    assert sorted(out.splitlines()) == ["6 of 6 3 restarts", "process 0 cleans up"]


@pytest.mark.parametrize("error", ["KeyboardInterrupt", "SystemExit"])
def test_nor_does_one_that_raises_what_ends_a_program(tmp_path: Path, error: str) -> None:
    out = run_program(tmp_path, RAISING.format(error=error), stderr=None)
    assert out.count("cleans up") == 1


# -- a worker that does not begin ----------------------------------------------------------------------------------


def test_a_worker_that_begins_nothing_is_replaced(pool: Pool) -> None:
    """Stopped here; or it waits for a lock that a fork has copied as taken. No job has a timeout."""
    bw = pool(lambda job: {"pid": os.getpid()}, worker_count=1, kill_grace=0.2)
    (stuck,) = bw.worker_pids
    os.kill(stuck, signal.SIGSTOP)
    bw.add_work(*[{}] * 100)
    results = [bw.get_result(timeout=30) for _ in range(100)]
    assert all(result is not None and result.ok and result["pid"] != stuck for result in results)
    assert bw.stats().restarts == 1


class Clogged:
    """A stream whose flush never returns in a worker."""

    def __init__(self) -> None:
        self.program = os.getpid()

    def write(self, text: str) -> int:
        return len(text)

    def flush(self) -> None:
        while os.getpid() != self.program:
            time.sleep(300)


def test_a_stream_that_never_returns_costs_no_job(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(sys, "stdout", Clogged())
        bw = pool(lambda job: {"n": job["n"]}, worker_count=2, kill_grace=0.1)
    for n in range(3):
        bw.add_work({"n": n})
        assert bw.get_result(timeout=30) == {"n": n}


FULL = """
    import os, sys, time
    from bossworker import BossWorker

    os.set_blocking(1, False)
    filled = 0
    for size in (1000, 1):
        try:
            while True:
                filled += os.write(1, b"-" * size)
        except BlockingIOError:
            pass
    os.set_blocking(1, True)
    pool = BossWorker(lambda job: print("printed"), worker_count=1, kill_grace=0)
    pool.add_work({})
    pool.get_result()  # now the worker waits for room
    pool.add_work({})
    assert pool.get_result(timeout=2) is None
    print(filled, pool.stats().restarts, file=sys.stderr, flush=True)
    pool.shut_down()
"""


def test_a_worker_whose_output_nobody_reads_waits_as_any_program_does(tmp_path: Path) -> None:
    command = [sys.executable, str(write_program(tmp_path, FULL))]
    buffered = {**environment(), "PYTHONUNBUFFERED": ""}
    program = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=buffered)
    assert program.stderr is not None
    filled, restarts = map(int, program.stderr.readline().split())
    out, _ = program.communicate(timeout=30)
    assert restarts == 0
    assert out == b"-" * filled + b"printed\n" * 2


# -- descriptors ---------------------------------------------------------------------------------------------------


def peer_sees_the_end(peer: socket.socket) -> bool:
    peer.settimeout(0.5)
    try:
        return peer.recv(1) == b""
    except TimeoutError:
        return False


@pytest.mark.parametrize("close_fds", [False, True])
def test_what_the_program_closes_is_closed_where_workers_let_go_of_it(pool: Pool, close_fds: bool) -> None:
    connection, peer = socket.socketpair()
    cat = subprocess.Popen(["cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    bw = pool(lambda job: {"pid": os.getpid()}, worker_count=1, close_fds=close_fds)
    connection.close()
    assert peer_sees_the_end(peer) == close_fds
    peer.close()
    bw.add_work({})
    first = bw.get_result()
    os.kill(first["pid"], signal.SIGKILL)
    bw.add_work({})
    assert bw.get_result() != first
    assert cat.stdin is not None
    cat.stdin.close()
    if not close_fds:
        assert cat.poll() is None
        bw.shut_down(force=True)
    assert cat.wait(20) == 0


def test_numbers_of_what_workers_let_go_of_mean_nothing_else_later(pool: Pool, tmp_path: Path) -> None:
    """An object of the program's holds one, and would write to, or close, a file that a handler opens."""
    log = (tmp_path / "log").open("w")
    spare = os.open(tmp_path / "log", os.O_RDONLY)

    def use(job: dict[str, Any]) -> dict[str, Any]:
        with open(tmp_path / "new", "w") as new:
            same = new.fileno() in (log.fileno(), spare)
            error = ""
            try:
                os.write(log.fileno(), b"x")
            except OSError as failed:
                error = str(failed.strerror)
            os.close(spare)
            new.write("kept")
        return {"same": same, "error": error}

    bw = pool(use, worker_count=1, close_fds=True)
    bw.add_work({})
    assert bw.get_result() == {"same": False, "error": os.strerror(9)}
    assert (tmp_path / "new").read_text() == "kept"
    log.close()
    os.close(spare)


def test_printing_goes_on_where_workers_let_go_of_descriptors(tmp_path: Path) -> None:
    program = """
        import sys
        from bossworker import BossWorker

        sys.stdout = open(sys.argv[1], "w")
        with BossWorker(lambda job: print("printed") or print("told", file=sys.stderr), close_fds=True) as pool:
            pool.add_work({})
            assert pool.get_result().ok
        """
    run_program(tmp_path, program, str(tmp_path / "out"), stderr="told\n")
    assert (tmp_path / "out").read_text() == "printed\n"


def test_descriptors_of_the_pool_s_do_not_reach_what_a_handler_starts(pool: Pool) -> None:
    def list_fds(job: dict[str, Any]) -> dict[str, Any]:
        out = subprocess.run(["ls", "/proc/self/fd"], capture_output=True, text=True, check=True, close_fds=False)
        return {"fds": [int(fd) for fd in out.stdout.split()]}

    bw = pool(list_fds, worker_count=1, start_method="spawn")
    bw.add_work({})
    result = bw.get_result()
    assert len(result["fds"]) == 4, "0, 1, 2, and the folder itself"


# -- the line of a warning -----------------------------------------------------------------------------------------


def test_a_warning_is_the_caller_s_line_s() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        namespace: dict[str, Any] = {"__name__": "bossworker.pretended", "warn": callers_line.warn_caller}
        exec("def within():\n    warn('look', UserWarning)", namespace)
        namespace["within"]()
    (warning,) = caught
    assert (warning.category, str(warning.message), warning.filename) == (UserWarning, "look", __file__)

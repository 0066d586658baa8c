"""Workers that cannot be started: told at once when the pool is made, waited out when it has been up."""

from __future__ import annotations

import errno
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, WorkerStartError
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


class Database:
    """It is away while its file is there."""

    def __init__(self, folder: Path) -> None:
        self.down = folder / "down"
        self.log = folder / "log"

    def connect(self) -> None:
        with open(self.log, "a") as file:
            file.write("x")
        if self.down.exists():
            raise ConnectionError("the database restarts")

    def tries(self) -> int:
        return len(self.log.read_text())


@pytest.fixture
def database(tmp_path: Path) -> Database:
    return Database(tmp_path)


def handle(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("die"):
        os._exit(3)
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n")}


def test_a_pool_keeps_its_size_when_trouble_has_passed(pool: Pool, database: Database) -> None:
    bw = pool(handle, init_handler=database.connect, worker_count=4)
    database.down.touch()
    for pid in bw.worker_pids[:3]:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: bw.stats().failed_starts > 10)
    assert len(bw.worker_pids) == 1
    bw.add_work({"n": 1})
    assert bw.get_result() == {"n": 1}, "the one that is left works on"
    assert "ConnectionError: the database restarts" in (bw.stats().start_error or "")
    database.down.unlink()
    wait_for(lambda: len(bw.worker_pids) == 4)
    assert (bw.stats().failed_starts, bw.stats().start_error) == (0, None)


def test_jobs_wait_for_workers_that_cannot_be_started_yet(
    pool: Pool, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    bw = pool(handle, init_handler=database.connect, worker_count=2, max_jobs_per_worker=10)
    database.down.touch()
    with caplog.at_level(logging.INFO, "bossworker"):
        bw.add_work(*({"n": n} for n in range(200)))
        wait_for(lambda: bw.stats().failed_starts > 10 and not bw.worker_pids)
        bw.add_work({"n": 200})
        assert bw.stats().queued == 201 - 20
        database.down.unlink()
        results = list(bw.results())
    assert sorted(result["n"] for result in results) == list(range(201))
    told = [(record.levelno, record.getMessage()) for record in caplog.records if record.name == "bossworker"]
    lines = [(level, text) for level, text in told if not text.startswith(("worker up", "worker left"))]
    reason = "error='init_handler raised: ConnectionError: the database restarts'"
    assert lines[0] == (logging.WARNING, f"worker not started: failed=1 next_try=0.05s {reason} pool='handle'")
    assert 3 <= len(lines) < database.tries() < 200
    assert any(level == logging.INFO and text.startswith("worker started: failed_before=") for level, text in lines)


def test_an_orderly_end_waits_for_the_jobs_that_wait(pool: Pool, database: Database) -> None:
    bw = pool(handle, init_handler=database.connect, worker_count=1)
    database.down.touch()
    bw.add_work({"die": True}, {"n": 1})
    with pytest.raises(TimeoutError):
        bw.shut_down(timeout=0.3)
    database.down.unlink()
    bw.shut_down()
    assert [(result.error_kind, result.get("n")) for result in bw.results()] == [("crash", None), (None, 1)]


def test_a_forced_end_does_not_wait(pool: Pool, database: Database) -> None:
    bw = pool(handle, init_handler=database.connect, worker_count=1)
    database.down.touch()
    bw.add_work({"die": True}, {"n": 1})
    assert bw.get_result().error_kind == "crash"
    bw.shut_down(force=True)
    assert bw.pending() == 0


def test_forks_that_fail_for_a_while_are_tried_again(
    pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the machine, or the user's limit, has no process to spare."""
    full, fork = tmp_path / "full", os.fork

    def fork_if_there_is_room() -> int:
        if full.exists():
            raise BlockingIOError(11, "Resource temporarily unavailable")
        return fork()

    monkeypatch.setattr(os, "fork", fork_if_there_is_room)
    bw = pool(handle, worker_count=2)
    monkeypatch.undo()
    full.touch()
    bw.add_work({"die": True}, {"die": True}, *({"n": n} for n in range(10)))
    wait_for(lambda: bw.stats().failed_starts > 3)
    assert (bw.stats().start_error or "").startswith("fork failed: Resource temporarily unavailable (RLIMIT_NPROC is ")
    full.unlink()
    results = list(bw.results())
    assert [result.error_kind for result in results].count("crash") == 2
    assert sorted(result["n"] for result in results if result.ok) == list(range(10))


# -- when the pool is made -----------------------------------------------------------------------------------------


def forks_until(monkeypatch: pytest.MonkeyPatch, allowed: int) -> None:
    """Of this process and those below it, one after another, only this many forks succeed."""
    fork, left = os.fork, [allowed]

    def counted() -> int:
        if not left[0]:
            raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))
        left[0] -= 1
        return fork()

    monkeypatch.setattr(os, "fork", counted)


@pytest.mark.parametrize(
    ("allowed", "reason"),
    [
        (0, r"the pool's processes could not be started: Resource temporarily unavailable \(RLIMIT_NPROC is "),
        (1, r"no boss: Resource temporarily unavailable \(RLIMIT_NPROC is "),
        (2, r"fork failed: Resource temporarily unavailable \(RLIMIT_NPROC is "),
        (3, r"fork failed: Resource temporarily unavailable \(RLIMIT_NPROC is "),
    ],
)
def test_a_fork_that_fails_is_told_with_the_limit(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], allowed: int, reason: str
) -> None:
    forks_until(monkeypatch, allowed)
    with pytest.raises(WorkerStartError, match=reason):
        BossWorker(handle, worker_count=2, start_method="fork")
    assert capfd.readouterr().err == ""


LIMITED = """
import os, resource, sys
import random, subprocess, zmq  # what the pool itself would have to open
from bossworker import BossWorker, WorkerStartError
import bossworker.pool.caller.client

def try_with(most):
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    try:
        with BossWorker(lambda job: {"n": 1}, worker_count=2, start_method=sys.argv[1]) as pool:
            pool.add_work({})
            print(pool.get_result(timeout=60), flush=True)
    except WorkerStartError as error:
        print("told:", error, flush=True)

for most in range(4, 16):
    if os.fork() == 0:
        try_with(most)
        os._exit(0)
    assert os.wait()[1] == 0
"""


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_however_few_files_may_be_open_the_reason_is_told(start_method: str) -> None:
    command = [sys.executable, "-c", LIMITED, start_method]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert (done.returncode, done.stderr) == (0, "")
    answers = done.stdout.splitlines()
    assert len(answers) == 12
    good = "<Result of job 1, ok: {'n': 1}>"
    for most, answer in enumerate(answers, 4):
        assert answer == good or (answer.startswith("told:") and f"RLIMIT_NOFILE is {most}" in answer)
    assert "told:" in answers[0]
    assert answers[-1] == good


def test_what_gevent_has_replaced_is_refused_before_a_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    class Monkey:
        is_module_patched = staticmethod("select".__eq__)

    monkeypatch.setitem(sys.modules, "gevent.monkey", Monkey)
    with pytest.raises(WorkerStartError, match=r"gevent has replaced .*use start_method=\"spawn\""):
        BossWorker(handle, worker_count=1, start_method="fork")
    with BossWorker(handle, worker_count=1, start_method="spawn") as pool:
        pool.add_work({"n": 1})
        assert pool.get_result() == {"n": 1}


@pytest.mark.parametrize(
    ("end", "reason"),
    [
        (signal.SIGABRT, r"the boss aborted before the workers were up: Resource .* \(RLIMIT_NPROC is "),
        (signal.SIGKILL, r"the boss ended before the workers were up \(signal 9, SIGKILL\)$"),
    ],
)
def test_a_boss_that_ends_as_it_starts_is_told_with_how(
    monkeypatch: pytest.MonkeyPatch, end: signal.Signals, reason: str
) -> None:
    def falls(*args: object) -> None:
        os.kill(os.getpid(), end)

    monkeypatch.setattr("bossworker.pool.launch.Boss", falls)
    with pytest.raises(WorkerStartError, match=reason):
        BossWorker(handle, worker_count=2, start_method="fork")


def test_a_signal_handlers_own_error_stays_what_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*args: object) -> None:
        raise TimeoutError("the program's own")

    monkeypatch.setattr("bossworker.pool.caller.starting.launch", interrupted)
    with pytest.raises(TimeoutError, match="the program's own"):
        BossWorker(handle)


def test_a_limit_of_memory_below_what_a_new_worker_has_is_told() -> None:
    with pytest.raises(WorkerStartError, match=r"has \d+ bytes in memory already, and max_worker_memory is 1000000: "):
        BossWorker(handle, worker_count=2, max_worker_memory=1_000_000)

"""What the pool says of itself to the logger ``bossworker``: a line for each thing that an operator should know."""

from __future__ import annotations

import logging
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[int], list[str]]]:
    """The lines of a level, with numbers above 9 as #, and without the pool's name, with which each of them ends."""

    def told(level: int) -> list[str]:
        texts = [one.getMessage() for one in caplog.records if one.name == "bossworker" and one.levelno == level]
        assert all(text.endswith(" pool='act'") for text in texts)
        return [re.sub(r"\d{2,}", "#", text.removesuffix(" pool='act'")) for text in texts]

    with caplog.at_level(logging.DEBUG, "bossworker"):
        yield told


Lines = Callable[[int], list[str]]


def act(job: dict[str, Any]) -> None:
    if job.get("do") == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    if job.get("do") == "exit":
        os._exit(3)
    if job.get("do") == "grow":
        kept = b"x" * (1 << 26)
        time.sleep(30)
        assert kept
    if job.get("do") == "sleep":
        time.sleep(30)
    if job.get("do") == "hold":
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        time.sleep(30)


def run(bw: BossWorker, *jobs: dict[str, Any]) -> None:
    bw.add_work(*jobs)
    list(bw.results())


def test_a_quiet_life(pool: Pool, lines: Lines) -> None:
    bw = pool(act, worker_count=1)
    run(bw, *[{}] * 100)
    bw.resize(2)
    wait_for(lambda: len(bw.worker_pids) == 2)
    bw.resize(1)
    wait_for(lambda: len(bw.stats().workers) == 1)
    bw.shut_down()
    assert lines(logging.INFO) == [
        "worker up: pid=# index=0",
        "pool up: boss=# workers=1",
        "pool resized: workers=2 before=1",
        "worker up: pid=# index=1",
        "pool resized: workers=1 before=2",
        "worker left: pid=# index=1 jobs=0 reason='resized'",
        "worker left: pid=# index=0 jobs=# reason='closed'",
    ]
    assert lines(logging.WARNING) == []


def test_a_crash_is_one_line(pool: Pool, lines: Lines) -> None:
    run(pool(act, worker_count=1), {"do": "die"}, {"do": "exit"}, {})
    assert lines(logging.WARNING) == [
        "worker died: pid=# index=0 job=1 jobs=0 reason='signal 9, SIGKILL'",
        "worker died: pid=# index=0 job=2 jobs=0 reason='exit code 3'",
    ]


def test_a_timeout_is_one_line(pool: Pool, lines: Lines) -> None:
    run(pool(act, worker_count=1, global_timeout=0.1), {"do": "sleep"})
    assert lines(logging.WARNING) == ["job stopped: pid=# index=0 job=1 reason=timeout limit=0.1s"]


def test_an_idle_worker_that_dies_was_in_no_job(pool: Pool, lines: Lines) -> None:
    bw = pool(act, worker_count=1)
    os.kill(bw.worker_pids[0], signal.SIGKILL)
    wait_for(lambda: bw.stats() and lines(logging.WARNING))
    assert lines(logging.WARNING) == ["worker died: pid=# index=0 jobs=0 reason='signal 9, SIGKILL'"]


def test_a_boss_that_dies_is_one_line(pool: Pool, lines: Lines) -> None:
    bw = pool(act, worker_count=1)
    bw.add_work({"do": "sleep"})
    os.kill(bw.boss_pid, signal.SIGKILL)
    for _ in range(2):
        with pytest.raises(BossDied):
            bw.get_result()
    assert lines(logging.ERROR) == ["pool died: unfinished=1 reason='the boss (process #) died with 1 jobs unfinished'"]


def test_a_failed_init_is_one_line(pool: Pool, lines: Lines, tmp_path: Path) -> None:
    def connect() -> None:
        if (tmp_path / "tried").exists() and not (tmp_path / "failed").exists():
            (tmp_path / "failed").touch()
            raise ConnectionError("the database restarts")
        (tmp_path / "tried").touch()

    bw = pool(act, init_handler=connect, worker_count=1, max_jobs_per_worker=1)
    run(bw, {}, {})
    wait_for(lambda: bw.stats() and any(line.startswith("worker started") for line in lines(logging.INFO)))
    assert lines(logging.WARNING) == [
        "worker not started: failed=1 next_try=0.#s error='init_handler raised: ConnectionError: the database restarts'"
    ]
    assert lines(logging.INFO).count("worker started: failed_before=1") == 1


def test_a_job_that_takes_too_much_memory_is_one_line(pool: Pool, lines: Lines) -> None:
    bw = pool(act, worker_count=1, max_job_memory=1 << 24)
    run(bw, {"do": "grow"})
    (line,) = lines(logging.WARNING)
    assert re.fullmatch(r"job stopped: pid=# index=0 job=1 reason=memory excess=#", line)


def test_a_worker_that_has_to_be_killed_is_one_more(pool: Pool, lines: Lines) -> None:
    bw = pool(act, worker_count=1, global_timeout=0.1, kill_grace=0.1)
    run(bw, {"do": "hold"}, {})
    assert lines(logging.WARNING) == [
        "job stopped: pid=# index=0 job=1 reason=timeout limit=0.1s",
        "worker killed: pid=# index=0 reason=timeout",
    ]
    assert dict(bw.stats().restart_reasons) == {"timeout": 1}


def test_a_recycled_worker_is_one_line(pool: Pool, lines: Lines) -> None:
    bw = pool(act, worker_count=1, max_jobs_per_worker=1)
    run(bw, {}, {})
    wait_for(lambda: bw.stats() and len(lines(logging.INFO)) > 4)
    assert lines(logging.INFO).count("worker left: pid=# index=0 jobs=1 reason='max_jobs_per_worker'") >= 1
    assert lines(logging.WARNING) == []
    assert bw.stats().restart_reasons["max_jobs_per_worker"] == bw.stats().restarts


def test_nothing_is_printed_by_itself() -> None:
    program = """
import os, bossworker
with bossworker.BossWorker(lambda job: os._exit(3), worker_count=1) as bw:
    bw.add_work({})
    print(bw.get_result()["ERROR"])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("BossWorkerAsync: worker died (exit code 3)\n", "")

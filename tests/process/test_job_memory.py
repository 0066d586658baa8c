"""``max_job_memory``: a job that takes too much memory ends, and its worker, if it tidies up, does not."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, Executor, JobFailed, JobTimeout, run_command
from bossworker.system import processes
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
MIB = 1 << 20
TEXT = r"BossWorkerAsync: memory limit exceeded \((\d+) MiB of 64\)"

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="nobody tells what other processes hold")


def grow(job: dict[str, Any]) -> dict[str, Any]:
    hoard = [bytearray(os.urandom(1 << 10) * (job["mib"] << 10)) for _ in range(job.get("times", 1))]
    if job.get("wait", True):
        time.sleep(60)
    return {"held": len(hoard)}


def test_a_job_that_grows_too_much_ends(pool: Pool) -> None:
    bw = pool(grow, worker_count=2, max_job_memory=64 * MIB)
    bw.add_work({"mib": 100})
    result = bw.get_result()
    assert result.error_kind == "memory"
    found = re.fullmatch(TEXT, result.error or "")
    assert found
    assert 64 < int(found[1]) < 200
    assert "in grow" in (result.traceback or "")
    assert isinstance(result.exception, JobTimeout)
    with pytest.raises(JobFailed, match=TEXT):
        result.raise_for_error()
    bw.add_work(*[{"mib": 1, "wait": False}] * 20)
    assert all(r.ok for r in bw.results())
    assert bw.stats().restarts == 0  # it had time to let go of it


def test_what_is_below_the_limit_is_left_alone(pool: Pool) -> None:
    bw = pool(grow, worker_count=1, max_job_memory=64 * MIB)
    bw.add_work({"mib": 30}, timeout=0.5)
    assert bw.get_result().error_kind == "timeout"


keep: list[bytearray] = []


def grow_and_keep(job: dict[str, Any]) -> dict[str, Any]:
    keep.append(bytearray(os.urandom(1 << 10) * (30 << 10)))
    time.sleep(0.15)
    return {}


def test_each_job_is_measured_from_its_own_start(pool: Pool) -> None:
    bw = pool(grow_and_keep, worker_count=1, max_job_memory=64 * MIB)
    bw.add_work(*[{} for _ in range(5)])
    assert all(r.ok for r in bw.results())


def ignore_it(job: dict[str, Any]) -> dict[str, Any]:
    while True:
        try:
            grow(job)
        except JobTimeout:
            continue


def test_one_that_goes_on_is_killed(pool: Pool) -> None:
    bw = pool(ignore_it, worker_count=1, max_job_memory=64 * MIB, kill_grace=0.1)
    bw.add_work({"mib": 100})
    result = bw.get_result()
    assert result.error_kind == "memory"
    assert re.fullmatch(TEXT, result.error or "")
    assert isinstance(result.exception, JobTimeout)
    assert str(result.exception) == result.error
    wait_for(lambda: bw.stats().restarts == 1)


def tidy_up(job: dict[str, Any]) -> dict[str, Any]:
    try:
        grow(job)
    except JobTimeout as time_is_up:
        return {"memory": time_is_up.memory, "text": str(time_is_up), "grace": time_is_up.grace}
    return {}


def test_a_handler_may_tidy_up_and_return_a_result(pool: Pool) -> None:
    bw = pool(tidy_up, worker_count=1, max_job_memory=64 * MIB)
    bw.add_work({"mib": 100}, {"mib": 1}, timeout=0.8)
    first, second = bw.results()
    assert (first["memory"], first["grace"]) == (True, 1.0)
    assert re.fullmatch(TEXT, first["text"])
    assert (second["memory"], second["text"]) == (False, "BossWorkerAsync: timed out")


GROW = f"x = bytearray({100 * MIB}); x[::4096] = b'x' * len(x[::4096]); import time; time.sleep(60)"


def start_one(job: dict[str, Any]) -> dict[str, Any]:
    subprocess.run([sys.executable, "-c", GROW], check=False)
    return {}


def test_what_a_job_has_started_counts(pool: Pool) -> None:
    bw = pool(start_one, worker_count=1, max_job_memory=64 * MIB)
    bw.add_work({})
    result = bw.get_result()
    assert re.fullmatch(TEXT, result.error or "")
    wait_for(lambda: not processes.children(bw.worker_pids[0]))


def start_server() -> None:
    subprocess.Popen([sys.executable, "-c", GROW])
    wait_for(lambda: [pid for pid in processes.children(os.getpid()) if processes.resident_bytes(pid) > 100 * MIB])


def test_what_an_init_handler_has_started_does_not(pool: Pool) -> None:
    bw = pool(grow, worker_count=1, max_job_memory=64 * MIB, init_handler=start_server)
    bw.add_work({"mib": 10}, timeout=0.3)
    assert bw.get_result().error_kind == "timeout"
    bw.add_work({"mib": 100})
    assert bw.get_result().error_kind == "memory"


def fork_idly(job: dict[str, Any]) -> dict[str, Any]:
    children = []
    for _ in range(8):
        if not (pid := os.fork()):
            time.sleep(0.3)
            os._exit(0)
        children.append(pid)
    for pid in children:
        os.waitpid(pid, 0)
    return {}


def fork_and_grow(job: dict[str, Any]) -> dict[str, Any]:
    if not (pid := os.fork()):
        grow({"mib": 100})
    os.waitpid(pid, 0)
    return {}


def test_what_forked_children_take_counts(pool: Pool) -> None:
    bw = pool(fork_and_grow, worker_count=1, max_job_memory=64 * MIB)
    bw.add_work({})
    assert re.fullmatch(TEXT, bw.get_result().error or "")


def test_pages_that_forked_children_share_count_once(pool: Pool) -> None:
    keep.append(bytearray(os.urandom(1 << 10) * (60 << 10)))
    try:
        bw = pool(fork_idly, worker_count=1, max_job_memory=80 * MIB)
        bw.add_work({})
        assert bw.get_result().raise_for_error() == {}
    finally:
        keep.clear()


def test_a_command_is_told_of_in_the_same_words(pool: Pool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    bw = pool(run_command, worker_count=2, max_job_memory=64 * MIB)
    bw.add_work({"cmd": [sys.executable, "-c", GROW]})
    result = bw.get_result()
    assert result.error_kind == "memory"
    assert re.fullmatch(TEXT, result.error or "")
    assert result["signal"]
    bw.add_work({"cmd": [sys.executable, "-c", GROW], "memory": 32 * MIB})
    result = bw.get_result()
    assert (result.error_kind, bool(re.search(r"memory limit exceeded \(\d+ MiB of ", result.error or ""))) == (
        "memory",
        True,
    )


@pytest.mark.parametrize("start_method", ["spawn"])
def test_with_spawn_too(pool: Pool, start_method: str) -> None:
    bw = pool(grow, worker_count=1, max_job_memory=64 * MIB, start_method=start_method)
    bw.add_work({"mib": 100})
    assert re.fullmatch(TEXT, bw.get_result().error or "")


def test_a_cancel_stays_a_cancel(pool: Pool) -> None:
    bw = pool(ignore_it, worker_count=1, max_job_memory=64 * MIB, kill_grace=0.3)
    (job_id,) = bw.add_work({"mib": 100})
    wait_for(lambda: bw.stats().running)
    time.sleep(0.2)
    assert bw.cancel(job_id) == 1
    assert bw.get_result().error_kind == "cancelled"


def take(mib: int) -> int:
    return int(grow({"mib": mib, "wait": mib > 50})["held"])


def test_an_executor_passes_it_on() -> None:
    with Executor(1, max_job_memory=64 * MIB) as executor:
        with pytest.raises(JobFailed, match=TEXT):
            executor.submit(take, 100).result()
        assert executor.submit(take, 10).result() == 1


@pytest.mark.parametrize("bad", [-1, 1.5, "64M", True, 1 << 63])
def test_a_bad_limit_is_named(bad: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="max_job_memory must be an int"):
        BossWorker(grow, max_job_memory=bad)


def test_without_a_limit_nobody_looks(pool: Pool) -> None:
    bw = pool(grow, worker_count=1, max_job_memory=None)
    bw.add_work({"mib": 100}, timeout=0.3)
    assert bw.get_result().error_kind == "timeout"

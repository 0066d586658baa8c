"""``pool.trace``: the last events in Chrome's trace format; and the figures of late in ``stats()``."""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, PoolClosed
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
EXAMPLES = Path(__file__).parents[2] / "examples"

# What the format asks of an entry of each phase: https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU
NEEDED = {
    "X": {"name": str, "cat": str, "ts": int, "dur": int, "pid": int, "tid": int, "args": dict},
    "M": {"name": str, "pid": int, "tid": int, "args": dict},
    "C": {"name": str, "cat": str, "ts": int, "pid": int, "args": dict},
    "i": {"name": str, "ts": int, "pid": int, "tid": int, "s": str},
}
META = {"process_name": {"name": str}, "thread_name": {"name": str}, "thread_sort_index": {"sort_index": int}}
COLOURS = {"good", "bad", "terrible"}


def read_trace(path: Path) -> list[dict[str, Any]]:
    """As a viewer does: with all that the format asks for."""
    content = json.loads(path.read_text())
    assert content["displayTimeUnit"] in {"ms", "ns"}
    for entry in content["traceEvents"]:
        for name, kind in NEEDED[entry["ph"]].items():
            assert isinstance(entry[name], kind), entry
        if entry["ph"] == "X":
            assert entry["dur"] >= 0
            assert entry.get("cname", "good") in COLOURS
        if entry["ph"] == "C":
            assert all(isinstance(value, int | float) and value >= 0 for value in entry["args"].values())
        if entry["ph"] == "M":
            assert {name: type(value) for name, value in entry["args"].items()} == META[entry["name"]]
    trace: list[dict[str, Any]] = content["traceEvents"]
    return trace


def lanes_of(path: Path) -> dict[int, list[tuple[int, int]]]:
    """When the jobs of each lane began and ended. (Whole numbers: Perfetto rounds others to 256 ns.)"""
    lanes: dict[int, list[tuple[int, int]]] = {}
    for entry in read_trace(path):
        if entry["ph"] == "X":
            lanes.setdefault(entry["tid"], []).append((entry["ts"], entry["ts"] + entry["dur"]))
    return {lane: sorted(spans) for lane, spans in lanes.items()}


def act(job: dict[str, Any]) -> None:
    if "sleep" in job:
        time.sleep(job["sleep"])
    if "fail" in job:
        raise ValueError("rattle")
    if "die" in job:
        os._exit(3)


def test_the_trace_of_a_pool(pool: Pool, tmp_path: Path) -> None:
    bw = pool(act, worker_count=2, name="tracer", global_timeout=30)
    ids = bw.add_work({"sleep": 0.05}, {"fail": 1}, {"die": 1}, *[{}] * 20)
    results = {result.job_id: result for result in bw.results()}
    (long,) = bw.add_work({"sleep": 20})
    wait_for(lambda: bw.stats().running and len(bw.worker_pids) == 2)
    bw.trace(tmp_path / "trace.json")
    bw.trace(str(tmp_path / "again.json"))
    trace = read_trace(tmp_path / "trace.json")
    spans = {entry["args"]["job_id"]: entry for entry in trace if entry["ph"] == "X"}
    assert sorted(spans) == [*ids, long]
    for job_id, result in results.items():
        span = spans[job_id]
        assert span["ts"] == pytest.approx(result.started_at * 1e6, abs=1e4)
        assert span["dur"] == pytest.approx(result.duration * 1e6, abs=10)
        assert (span.get("cname") == "terrible") == (not result.ok)
        assert span["args"]["worker_pid"] == result.worker_pid
    assert spans[long]["args"]["outcome"] == "running"
    lanes = {entry["tid"]: entry["args"]["name"] for entry in trace if entry["name"] == "thread_name"}
    assert [lanes[tid].split(" (")[0] for tid in sorted(lanes)] == ["worker 0", "worker 1"]
    assert {entry["tid"] for entry in spans.values()} <= set(lanes)
    assert {entry["args"]["name"] for entry in trace if entry["name"] == "process_name"} == {"bossworker tracer"}
    told = [entry["name"] for entry in trace if entry["ph"] == "i"]
    assert told.count("worker up") == 3
    assert told.count("worker down: exit code 3") == 1
    counters = [entry["name"] for entry in trace if entry["ph"] == "C"]
    assert set(counters) == {"jobs", "memory (MiB)"}
    sizes = [entry["args"] for entry in trace if entry["name"] == "memory (MiB)"]
    assert set(sizes[-1]) == {"worker 0", "worker 1"}
    assert all(1 < size < 10_000 for size in sizes[-1].values())
    assert max(entry["args"]["queued"] for entry in trace if entry["name"] == "jobs") >= 20
    bw.shut_down(force=True)


@pytest.mark.parametrize("wrong", [True, 1, None, b"x", "", "a\0b"])
def test_a_trace_needs_a_path(pool: Pool, wrong: Any) -> None:
    """An int would be a descriptor: 1 was written to, and closed."""
    bw = pool(act, worker_count=1)
    with pytest.raises((TypeError, ValueError), match=r"path must be .*, not"):
        bw.trace(wrong)


def test_traces_that_are_written_at_once_are_whole(pool: Pool, tmp_path: Path) -> None:
    """One waits for the other, and nothing of what was there before is left behind it."""
    bw = pool(act, worker_count=1)
    path = tmp_path / "trace.json"
    path.write_text("x" * 1_000_000)
    thread = threading.Thread(target=bw.trace, args=(path,))
    with open(path, "a") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        thread.start()
        thread.join(1.0)
        assert thread.is_alive()
        assert path.read_text() == "x" * 1_000_000
    thread.join()
    read_trace(path)


def test_the_trace_of_a_pool_that_has_ended(pool: Pool, tmp_path: Path) -> None:
    bw = pool(act, worker_count=1)
    bw.events()
    bw.add_work({})
    list(bw.results())
    bw.shut_down()
    bw.trace(tmp_path / "trace.json")
    assert len([entry for entry in read_trace(tmp_path / "trace.json") if entry["ph"] == "X"]) == 1


def test_nobody_had_watched_it(pool: Pool, tmp_path: Path) -> None:
    bw = pool(act, worker_count=1)
    bw.shut_down()
    with pytest.raises(PoolClosed, match="nobody had watched it"):
        bw.trace(tmp_path / "trace.json")


def test_a_trace_of_very_many_jobs_is_bounded(pool: Pool, tmp_path: Path) -> None:
    bw = pool(act, worker_count=2)
    for _ in bw.map({} for _ in range(50_000)):
        pass
    bw.trace(tmp_path / "trace.json")
    trace = read_trace(tmp_path / "trace.json")
    assert 5_000 < len([entry for entry in trace if entry["ph"] == "X"]) < 20_000
    for lane in lanes_of(tmp_path / "trace.json").values():
        assert all(one[1] <= other[0] for one, other in pairwise(lane)), "none overlaps: Perfetto would leave it out"
    assert len([entry for entry in trace if entry["name"] == "jobs"]) <= 4000


def test_figures_of_the_last_minute(pool: Pool) -> None:
    bw = pool(act, worker_count=1)
    before = bw.stats()
    assert (before.rate, before.duration_p50, before.latency_p95) == (0.0, None, None)
    bw.add_work(*[{"sleep": 0.05}] * 20)
    list(bw.results())
    stats = bw.stats()
    assert 2 < stats.rate < 25
    assert stats.duration_p50 is not None
    assert stats.duration_p95 is not None
    assert stats.latency_p50 is not None
    assert stats.latency_p95 is not None
    assert 0.045 < stats.duration_p50 <= stats.duration_p95 < 0.5
    assert 0.3 < stats.latency_p50 < stats.latency_p95
    assert 0.9 < stats.latency_p95 < 10


def test_processor_time_and_memory_of_each_worker(pool: Pool) -> None:
    def work(job: dict[str, Any]) -> None:
        until = time.process_time() + 0.3
        while time.process_time() < until:
            pass

    bw = pool(work, worker_count=1)
    bw.add_work({})
    list(bw.results())
    (worker,) = bw.stats().workers
    assert 0.25 < worker.cpu_seconds < 3
    assert worker.rss > 1 << 20


def test_the_last_failed_start_is_remembered(pool: Pool, tmp_path: Path) -> None:
    def connect() -> None:
        if (tmp_path / "down").exists():
            raise ConnectionError("the database restarts")

    bw = pool(act, init_handler=connect, worker_count=1, max_jobs_per_worker=1)
    (tmp_path / "down").touch()
    bw.add_work({})
    list(bw.results())
    wait_for(lambda: bw.stats().failed_starts)
    (tmp_path / "down").unlink()
    wait_for(lambda: bw.worker_pids)
    stats = bw.stats()
    assert stats.start_error is None
    assert stats.last_failed_start is not None
    assert "the database restarts" in stats.last_failed_start


def test_the_trace_of_an_example(tmp_path: Path) -> None:
    """What a viewer is given of a program as people write them."""
    for n in range(50):
        (tmp_path / f"file{n}").write_text("x\n" * n)
    program = f"""
import sys
sys.path.insert(0, {str(EXAMPLES)!r})
from pathlib import Path
from checksum_tree import checksum
from bossworker import BossWorker
with BossWorker(checksum, worker_count=2) as pool:
    jobs = [{{"path": str(path)}} for path in Path({str(tmp_path)!r}).iterdir()]
    assert all(result.ok for result in pool.map([*jobs, {{"path": "/dev/null"}}]) if result.job["path"] != "/dev/null")
    pool.trace({str(tmp_path / "trace.json")!r})
"""
    subprocess.run([sys.executable, "-c", program], check=True)
    trace = read_trace(tmp_path / "trace.json")
    spans = [entry for entry in trace if entry["ph"] == "X"]
    assert len(spans) == 51
    assert [span["args"]["outcome"] for span in spans].count("exception") == 1
    for lane in lanes_of(tmp_path / "trace.json").values():
        assert all(one[1] <= other[0] for one, other in pairwise(lane)), "none overlaps: Perfetto would leave it out"

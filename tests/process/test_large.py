"""Large jobs and results: they are right whichever way they travel, private to who gets them, and leave nothing."""

from __future__ import annotations

import errno
import hashlib
import os
import random
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bossworker import BossWorker
from bossworker.pool.wire import parcel
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
MIB = 1 << 20
LARGE = MIB // 8  # in floats: 1 MiB


def echo(job: dict[str, Any]) -> dict[str, Any]:
    return dict(job)


def descriptors(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def same(a: Any, b: Any) -> bool:
    if isinstance(b, np.ndarray):
        return bool(np.array_equal(a, b) and a.flags.f_contiguous >= b.flags.f_contiguous)
    if isinstance(b, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in b)
    if isinstance(b, list) and isinstance(b[0], np.ndarray):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def no_file(*_: object) -> int:
    raise OSError(errno.ENOSPC, "no space left")


@pytest.fixture(params=["lent", "no memfd", "full"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How large payloads travel: by memory files, or, where there are none or no room in them, by the sockets."""
    if request.param == "no memfd":
        monkeypatch.setattr(parcel, "_File", no_file)
        monkeypatch.delattr(os, "memfd_create")
    if request.param == "full":
        monkeypatch.setattr(os, "pwritev", no_file)
    return str(request.param)


VALUES: dict[str, Callable[[], Any]] = {  # made by the tests, since all others' pools would inherit them
    "array": lambda: np.arange(LARGE, dtype=float),
    "Fortran's": lambda: np.asfortranarray(np.arange(LARGE, dtype=float).reshape(512, -1)),
    "every second": lambda: np.arange(2 * LARGE, dtype=float)[::2],
    "empty": lambda: np.zeros((3, 0)),
    "bytes": lambda: bytes(range(256)) * 8192,
    "bytearray": lambda: bytearray(range(256)) * 8192,
    "text": lambda: "text äöü" * 100_000,
    "list of arrays": lambda: [np.full(LARGE, n, dtype=float) for n in range(5)],
    "dict": lambda: {"small": np.arange(3), "large": np.arange(LARGE, dtype=float), "bytes": b"x" * MIB},
    "list": lambda: list(range(300_000)),
}


def test_large_values_go_there_and_back(pool: Pool, way: str) -> None:
    bw = pool(echo, worker_count=1)
    for kind, make in VALUES.items():
        value = make()
        for _ in range(3):  # the first is new to the worker; later ones use files again
            bw.add_work({"value": value, "n": 1})
            result = bw.get_result().raise_for_error()
            assert result["n"] == 1
            assert type(result["value"]) is type(value)
            assert same(result["value"], value), kind


def test_arrays_are_writable_and_private(pool: Pool, way: str) -> None:
    def double(job: dict[str, Any]) -> dict[str, Any]:
        job["a"] *= 2
        return {"a": job["a"], "writable": job["a"].flags.writeable}

    bw = pool(double, worker_count=1)
    mine = np.ones(LARGE)
    results = []
    for _ in range(4):
        bw.add_work({"a": mine})
        result = bw.get_result().raise_for_error()
        assert result["writable"]
        assert result["a"].flags.writeable
        results.append(result["a"])
        result["a"] += len(results)
    assert (mine == 1).all()
    assert [float(a.mean()) for a in results] == [3, 4, 5, 6], "none was written over by those after it"


def test_a_job_is_as_it_was_when_it_was_added(pool: Pool, way: str) -> None:
    bw = pool(echo, worker_count=1)
    bw.add_work({"nap": 0})
    a, b = np.zeros(LARGE), bytearray(MIB)
    for n in range(5):
        a[:] = n
        b[:] = bytes([n]) * MIB
        bw.add_work({"a": a, "b": b, "n": n})
    a[:] = 99
    for result in bw.results():
        if "n" in result:
            assert (result["a"] == result["n"]).all()
            assert result["b"] == bytes([result["n"]]) * MIB


def test_another_attempt_gets_the_job_as_it_was(pool: Pool, tmp_path: Path) -> None:
    def spoil(job: dict[str, Any]) -> dict[str, Any]:
        total = float(job["a"].sum())
        job["a"][:] = 7
        del job["a"]
        if not Path(job["mark"]).exists():
            Path(job["mark"]).touch()
            time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return {"total": total}

    bw = pool(spoil, worker_count=2, retries=1)
    a = np.ones(LARGE)
    for n in range(5):
        bw.add_work({"a": a * n, "mark": str(tmp_path / str(n))})
        bw.add_work({"a": a * 100, "mark": str(tmp_path)})
    totals = sorted(result.raise_for_error()["total"] for result in bw.results())
    assert totals == [LARGE * n for n in range(5)] + [LARGE * 100] * 5


def test_large_and_tiny_jobs_of_one_call(pool: Pool) -> None:
    jobs = [{"n": n, "a": np.full(LARGE, n, float) if n % 7 == 3 else n} for n in range(50)]
    bw = pool(echo, worker_count=2)
    assert list(bw.add_work(*jobs)) == list(range(1, 51))
    check_all(bw, jobs)


def test_large_and_tiny_jobs_of_one_call_under_max_pending(pool: Pool) -> None:
    jobs = [{"n": n, "a": np.full(LARGE, n, float) if n % 7 == 3 else n} for n in range(50)]
    bw = pool(echo, worker_count=2, max_pending=4)
    thread = threading.Thread(target=bw.add_work, args=jobs)
    thread.start()
    check_all(bw, jobs)
    thread.join()


def check_all(bw: BossWorker, jobs: list[dict[str, Any]]) -> None:
    left = dict(enumerate(jobs))
    while left:
        result = wait_for(bw.get_result_nb)
        job = left.pop(result["n"])
        assert result.job["a"] is job["a"]
        assert np.array_equal(result["a"], job["a"])


def test_map_over_arrays(pool: Pool) -> None:
    bw = pool(lambda job: {"sum": job["a"].sum(), "a": job["a"] + 1}, worker_count=2)
    sums = [(result["sum"], result["a"][0]) for result in bw.map({"a": np.full(LARGE, n, float)} for n in range(40))]
    assert sums == [(n * LARGE, n + 1) for n in range(40)]


def test_arrays_and_a_spawned_pool(pool: Pool) -> None:
    bw = pool(lambda job: {"a": job["a"] + 1}, worker_count=1, start_method="spawn")
    bw.add_work({"a": np.ones(LARGE)})
    assert (bw.get_result().raise_for_error()["a"] == 2).all()


def test_an_error_key_beside_an_array_is_reported(pool: Pool) -> None:
    bw = pool(lambda job: {"ERROR": "odd", "a": np.ones(LARGE)}, worker_count=1)
    for _ in range(2):
        bw.add_work({})
        result = bw.get_result()
        assert (result.error_kind, result.error, result["a"].size) == ("reported", "odd", LARGE)


def test_small_results_after_large_ones(pool: Pool) -> None:
    bw = pool(lambda job: {"a": np.ones(job["size"])}, worker_count=1)
    for size in (1, LARGE, LARGE, 1, 1, LARGE, 0):
        bw.add_work({"size": size})
        assert bw.get_result().raise_for_error()["a"].size == size


def test_no_descriptor_is_left_with_anybody(pool: Pool) -> None:
    bw = pool(echo, worker_count=2)
    pids = (os.getpid(), bw.boss_pid, *bw.worker_pids)

    def turn() -> list[int]:
        bw.add_work(*[{"a": np.ones(LARGE)}] * 30)
        ids = bw.add_work(*[{"a": np.ones(LARGE)}] * 30)
        bw.cancel(*ids)
        assert sum(result.ok for result in bw.results()) >= 30
        return list(map(descriptors, pids))

    turn()
    before = turn()
    for _ in range(5):
        after = turn()
    assert all(b - a <= parcel.KEEP_FILES for a, b in zip(before, after, strict=True)), (before, after)
    wait_for(lambda: descriptors(bw.boss_pid) <= before[1], what="the boss to let go")
    mine = descriptors(os.getpid())
    bw.shut_down()
    assert descriptors(os.getpid()) < mine


def test_memory_is_bounded_when_large_jobs_come_one_after_another(pool: Pool) -> None:
    bw = pool(lambda job: {"a": job["a"]}, worker_count=1)
    a = np.ones(8 * LARGE)
    for _ in range(60):
        bw.add_work({"a": a})
        bw.get_result()
    files = [os.stat(f"/proc/{pid}/fd/{fd}") for pid in (os.getpid(), *bw.worker_pids) for fd in parcels(pid)]
    assert 0 < sum(file.st_blocks * 512 for file in {file.st_ino: file for file in files}.values()) <= 64 * MIB


def parcels(pid: int) -> list[str]:
    """Descriptors of memory files that hold parcels."""
    found = []
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(OSError):
            if "bossworker-parcel" in os.readlink(f"/proc/{pid}/fd/{fd}"):
                found.append(fd)
    return found


def test_more_large_jobs_than_the_boss_can_hold_files_for(pool: Pool) -> None:
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    limit, jobs = 250, 300
    code = f"""
import resource, numpy as np
resource.setrlimit(resource.RLIMIT_NOFILE, ({limit}, {limit}))
from bossworker import BossWorker
with BossWorker(lambda job: {{"n": job["n"], "sum": job["a"].sum(), "a": job["a"]}}, worker_count=2) as bw:
    for _ in range(2):
        bw.add_work(*[{{"n": n, "a": np.full(40_000, n, float)}} for n in range({jobs})])
        results = list(bw.results())
        assert sorted(r["n"] for r in results) == list(range({jobs}))
        assert all(r["sum"] == r["n"] * 40_000 and r["a"][-1] == r["n"] for r in results)
print("well")
"""
    assert hard >= limit
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.stdout, ended.stderr) == ("well\n", "")


def use_up_descriptors() -> list[int]:
    resource.setrlimit(resource.RLIMIT_NOFILE, (300, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    held = []
    with suppress(OSError):
        while True:
            held.append(os.dup(0))
    return held


def test_a_worker_without_descriptors_says_so_and_works_on(pool: Pool) -> None:
    held: list[int] = []

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        if job.get("full"):
            held.extend(use_up_descriptors())
        while held and not job.get("full"):
            os.close(held.pop())
        return {"size": len(job.get("a", ()))}

    bw = pool(handle, worker_count=1)
    bw.add_work({"full": True})
    bw.add_work({"a": np.ones(LARGE)}, timeout=20)
    bw.add_work({})
    bw.add_work({"a": np.ones(LARGE)})
    full, lost, emptied, good = bw.results()
    assert full.ok
    assert lost.error_kind == "bad_job"
    assert "too many open files" in str(lost.error)
    assert emptied.ok
    assert good == {"size": LARGE}


def test_a_caller_without_descriptors_loses_no_other_result(pool: Pool) -> None:
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    bw = pool(lambda job: {"a": np.ones(job["size"])}, worker_count=1)
    ids = bw.add_work({"size": LARGE}, {"size": 1})
    wait_for(lambda: bw._inbox.unfinished() == 2)
    held = use_up_descriptors()
    try:
        first, second = bw.results()
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert {first.job_id, second.job_id} == set(ids)
    lost, good = sorted((first, second), key=lambda result: result.job_id)
    assert good.ok
    assert lost.error_kind == "bad_result"
    assert "too many open files" in str(lost.error)
    bw.add_work({"size": LARGE})
    assert bw.get_result().raise_for_error()["a"].size == LARGE


def digest(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"], "sum": hashlib.sha1(job["a"]).hexdigest(), "a": job["a"]}


def test_a_storm_of_kills_among_large_jobs(pool: Pool, request: pytest.FixtureRequest) -> None:
    count = 4000 if request.config.getoption("--long") else 60
    rng = random.Random(5)
    arrays = [np.random.default_rng(n).random(rng.choice([40_000, LARGE, 2 * LARGE])) for n in range(8)]
    sums = [hashlib.sha1(a.data).hexdigest() for a in arrays]
    bw = pool(digest, worker_count=3, retries=50)
    stop = threading.Event()

    def kill() -> None:
        kills = 0
        while kills < count and not stop.wait(rng.expovariate(30)):
            with suppress(ProcessLookupError, IndexError):
                os.kill(rng.choice(bw.worker_pids), signal.SIGKILL)
                kills += 1

    thread = threading.Thread(target=kill)
    thread.start()
    try:
        seen = []
        for n in range(count):
            bw.add_work({"n": n, "a": arrays[n % 8]})
            if n >= 20:
                seen.append(checked(bw, sums))
        while bw.pending():
            seen.append(checked(bw, sums))
    finally:
        stop.set()
        thread.join()
    assert sorted(seen) == list(range(count))
    assert bw.stats().restarts > 0
    wait_for(lambda: len(parcels(bw.boss_pid)) == 0, what="the boss to hold no file")


def checked(bw: BossWorker, sums: list[str]) -> int:
    result = bw.get_result(timeout=30)
    assert result is not None
    n: int = result.raise_for_error()["n"]
    assert result["sum"] == sums[n % 8]
    assert hashlib.sha1(result["a"]).hexdigest() == sums[n % 8]
    return n


@pytest.mark.parametrize("how", ["orderly", "boss killed"])
def test_large_results_that_the_boss_has_sent_outlive_it(pool: Pool, how: str) -> None:
    bw = pool(lambda job: {"n": job["n"], "x": bytes(300_000)}, worker_count=2)
    bw.add_work(*[{"n": n} for n in range(30)])
    wait_for(lambda: bw.stats().done == 30)
    if how == "orderly":
        bw.shut_down()
    else:
        os.kill(bw.boss_pid, signal.SIGKILL)
    assert sorted(result.raise_for_error()["n"] for result in bw.results()) == list(range(30))


def test_a_result_for_which_there_is_no_memory_says_so(pool: Pool) -> None:
    code = """
import resource
from bossworker import BossWorker
with BossWorker(lambda job: {"x": bytearray(job["n"])}, worker_count=1) as bw:
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + 50_000_000,) * 2)
    bw.add_work({"n": 200_000_000}, {"n": 1_000_000})
    errors = sorted(str(result.error) for result in bw.results())
    print(errors[0], "|", errors[1])
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    good, bad = ended.stdout.strip().split(" | ")
    assert bad == "None"
    assert "memory" in good.lower()
    assert ended.stderr == ""

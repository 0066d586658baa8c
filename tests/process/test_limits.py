"""Settings that bound and order the work, and surroundings that are short of something."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import CANCELLED, BossWorker, Stats
from bossworker.system import processes
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def nap(job: dict[str, Any]) -> dict[str, Any]:
    time.sleep(job.get("seconds", 0))
    return {"n": job.get("n"), "pid": os.getpid()}


def test_a_higher_priority_runs_first(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work({"n": "first", "seconds": 0.2})
    wait_for(lambda: bw.stats().running)
    bw.add_work({"n": "low"}, priority=-1)
    bw.add_work({"n": "normal 1"}, {"n": "normal 2"})
    bw.add_work({"n": "high"}, priority=10**12)
    assert [r["n"] for r in bw.results()] == ["first", "high", "normal 1", "normal 2", "low"]


@pytest.mark.parametrize(
    "bad",
    [
        {"priority": 1.5},
        {"priority": "high"},
        {"priority": 1 << 63},
        {"priority": True},
        {"timeout": -1},
        {"timeout": "1"},
        {"retries": -1},
        {"retries": 0.5},
    ],
)
def test_bad_options_of_a_job_are_named(pool: Pool, bad: dict[str, Any]) -> None:
    bw = pool(nap, worker_count=1)
    with pytest.raises((TypeError, ValueError), match=next(iter(bad))):
        bw.add_work({}, **bad)
    assert bw.pending() == 0


def test_add_work_waits_while_too_many_are_unfinished(pool: Pool) -> None:
    bw = pool(nap, worker_count=2, max_pending=10)
    most = 0
    stop = threading.Event()

    def watch() -> None:
        nonlocal most
        while not stop.is_set():
            stats = bw.stats()
            most = max(most, stats.queued + stats.running)

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        bw.add_work(*[{"n": n, "seconds": 0.002} for n in range(300)])
    finally:
        stop.set()
        thread.join()
    assert 2 <= most <= 10
    assert sorted(r["n"] for r in bw.results()) == list(range(300))


def test_no_more_are_unfinished_however_many_threads_add_jobs(pool: Pool) -> None:
    bw = pool(nap, worker_count=2, max_pending=5)

    def add() -> None:
        for _ in range(20):
            bw.add_work({"seconds": 0.005}, {})

    threads = [threading.Thread(target=add) for _ in range(8)]
    for thread in threads:
        thread.start()
    most = 0
    while any(thread.is_alive() for thread in threads):
        stats = bw.stats()
        most = max(most, stats.queued + stats.running)
    for thread in threads:
        thread.join()
    assert 2 <= most <= 5
    assert len(list(bw.results())) == 320


def test_no_job_has_been_running_for_less_than_no_time(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    bw.add_work(*[{"seconds": 0.0001}] * 2000)
    seconds: list[float] = []
    while bw.stats().done < 2000:
        seconds += [worker.seconds for worker in bw.stats().workers]
    assert min(seconds) >= 0


def test_workers_are_replaced_after_so_many_jobs(pool: Pool) -> None:
    bw = pool(nap, worker_count=2, max_jobs_per_worker=10)
    results = list(bw.map({"n": n} for n in range(200)))
    counts: dict[int, int] = {}
    for result in results:
        counts[result.worker_pid] = counts.get(result.worker_pid, 0) + 1
    assert len(results) == 200
    assert max(counts.values()) <= 10
    assert len(counts) >= 20
    assert wait_for(lambda: bw.stats().restarts) >= 18


def test_workers_are_replaced_when_they_have_grown(pool: Pool) -> None:
    kept: list[bytearray] = []

    def hoard(job: dict[str, Any]) -> dict[str, Any]:
        kept.append(bytearray(os.urandom(1)) * (20 << 20))
        return {"pid": os.getpid(), "kept": len(kept)}

    most = processes.resident_bytes(os.getpid()) + (64 << 20)
    bw = pool(hoard, worker_count=1, max_worker_memory=most)
    results = list(bw.map({} for _ in range(20)))
    assert max(result["kept"] for result in results) <= 12
    assert len({result["pid"] for result in results}) >= 2
    assert all(result.ok for result in results)


def test_exit_handlers_run_in_workers_that_are_replaced(pool: Pool, tmp_path: Path) -> None:
    log = tmp_path / "log"

    def note() -> None:
        with open(log, "a") as file:
            file.write(f"{os.getpid()}\n")

    bw = pool(nap, worker_count=1, max_jobs_per_worker=2, exit_handler=note)
    pids = {r.worker_pid for r in bw.map({} for _ in range(10))}
    bw.shut_down()
    assert pids <= set(map(int, log.read_text().split()))


def test_the_number_of_workers_can_be_changed(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    first = bw.worker_pids
    bw.resize(5)
    assert len(wait_for(lambda: len(bw.worker_pids) == 5 and bw.worker_pids)) == 5
    assert first[0] in bw.worker_pids
    bw.add_work(*[{"n": n, "seconds": 0.2} for n in range(5)])
    wait_for(lambda: bw.stats().running == 5)
    bw.resize(2)
    results = list(bw.results())
    assert all(result.ok for result in results)
    assert wait_for(lambda: len(bw.stats().workers) == 2)
    bw.add_work(*[{"n": n} for n in range(100)])
    assert len(list(bw.results())) == 100


@pytest.mark.parametrize("bad", [0, -1, 1.5, "2", None, True, 100_000])
def test_a_bad_number_of_workers_is_refused(pool: Pool, bad: Any) -> None:
    bw = pool(nap, worker_count=1)
    with pytest.raises((TypeError, ValueError), match="n must be an int"):
        bw.resize(bad)


def test_stats_tell_what_is_going_on(pool: Pool) -> None:
    bw = pool(nap, worker_count=2)
    ids = bw.add_work({"seconds": 0.5}, {"seconds": 0.5}, {"seconds": "bad"}, {})
    stats = wait_for(lambda: (s := bw.stats()).running == 2 and s)
    assert isinstance(stats, Stats)
    assert (stats.queued, stats.running, stats.done, stats.failed, stats.restarts) == (2, 2, 0, 0, 0)
    assert {w.job_id for w in stats.workers} == set(ids[:2])
    assert {w.pid for w in stats.workers} == set(bw.worker_pids)
    assert all(w.state == "busy" and 0 <= w.seconds < 20 and w.rss > 1 << 20 for w in stats.workers)
    list(bw.results())
    stats = bw.stats()
    assert (stats.queued, stats.running, stats.done, stats.failed) == (0, 0, 3, 1)
    assert sum(w.jobs_done for w in stats.workers) == 4
    with pytest.raises(AttributeError):
        stats.done = 5  # type: ignore[misc]


def test_short_jobs_are_not_held_up_behind_a_long_one(pool: Pool, tmp_path: Path) -> None:
    """Also when the batches have grown large, and the long job sits in front of a batch."""
    gate = tmp_path / "open"

    def pass_through(job: dict[str, int]) -> dict[str, int]:
        if job["n"] == -1:
            wait_for(gate.exists, 60)
        return job

    bw = pool(pass_through, worker_count=2)
    bw.add_work(*[{"n": n} for n in range(5000)])
    list(bw.results())
    bw.add_work({"n": -1}, *[{"n": n} for n in range(3000)])
    for _ in range(3000):
        result = bw.get_result(timeout=30)
        assert result is not None
        assert result["n"] != -1
    gate.touch()
    assert bw.get_result() == {"n": -1}


def test_results_in_front_of_a_long_job_are_not_held_back(pool: Pool) -> None:
    bw = pool(nap, worker_count=1)
    bw.add_work(*[{"n": n} for n in range(5000)])
    list(bw.results())
    *_, long = bw.add_work(*[{"n": n} for n in range(50)], {"n": -1, "seconds": 60})
    for _ in range(50):
        assert bw.get_result()["n"] != -1
    assert bw.cancel(long) == 1
    assert bw.get_result().error == CANCELLED


def test_a_caller_that_takes_no_results_does_not_stop_the_workers(pool: Pool) -> None:
    bw = pool(lambda job: {"data": bytes(10_000)}, worker_count=2)
    bw.add_work(*[{} for _ in range(3000)])
    wait_for(lambda: bw.stats().done == 3000)
    assert bw.pending() == 3000
    assert sum(len(r["data"]) for r in bw.results()) == 30_000_000


def test_a_queued_job_costs_little_memory() -> None:
    program = textwrap.dedent(
        """
        import time
        from bossworker import BossWorker
        from bossworker.system import processes
        with BossWorker(lambda job: time.sleep(300), worker_count=1) as bw:
            def used(): return sum(map(processes.resident_bytes, (bw.boss_pid, __import__("os").getpid())))
            before = used()
            for start in range(0, 300_000, 1000):
                bw.add_work(*[{"a": n, "b": 3} for n in range(start, start + 1000)])
            while bw.stats().queued < 299_999: pass
            print((used() - before) / 300_000)
            bw.shut_down(force=True)
        """
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=100)
    assert float(done.stdout) < 1500


def test_an_idle_pool_uses_no_cpu(pool: Pool) -> None:
    bw = pool(nap, worker_count=4, global_timeout=30)
    bw.add_work(*[{} for _ in range(100)])
    list(bw.results())
    time.sleep(0.1)  # let the last spin pass
    pids = [bw.boss_pid, *processes.descendants(bw.boss_pid)]

    def ticks() -> int:
        stats = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
        return sum(int(stat[11]) + int(stat[12]) for stat in stats)

    before = ticks()
    time.sleep(1)
    assert ticks() - before <= 1


def test_many_pools_in_a_row_leave_nothing(request: pytest.FixtureRequest) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for n in range(100 if request.config.getoption("--long") else 10):
        with BossWorker(nap, worker_count=1) as bw:
            bw.add_work({"n": n})
            assert bw.get_result()["n"] == n
    del bw
    assert len(os.listdir("/proc/self/fd")) == before


def test_sixty_four_workers(pool: Pool) -> None:
    bw = pool(nap, worker_count=64)
    assert len(set(bw.worker_pids)) == 64
    bw.add_work(*[{"n": n, "seconds": 0.01} for n in range(640)])
    assert sorted(r["n"] for r in bw.results()) == list(range(640))
    start = time.monotonic()
    bw.shut_down(force=True)
    assert time.monotonic() - start < 10


JOB_PROGRAM = textwrap.dedent(
    """
    import os
    from bossworker import BossWorker
    with BossWorker(lambda job: {"n": job["n"], "data": job["data"]}, worker_count=2) as bw:
        bw.add_work(*[{"n": n, "data": os.urandom(10)} for n in range(1000)], {"n": 1000, "data": bytes(5_000_000)})
        results = list(bw.results())
        assert all(result["data"] == result.job["data"] for result in results)
        print(len(results))
    """
)


def run_program(prefix: list[str], **settings: Any) -> str:
    done = subprocess.run(
        [*prefix, sys.executable, "-W", "error", "-c", JOB_PROGRAM],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        **settings,
    )
    assert done.stderr == ""
    return str(done.stdout)


def test_a_very_long_tmpdir_is_no_matter(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100) / ("y" * 100)
    long.mkdir(parents=True)
    assert run_program([], env={**os.environ, "TMPDIR": str(long)}) == "1001\n"
    assert list(long.iterdir()) == []


def unshared(command: str) -> list[str]:
    """A prefix that runs a program in a mount namespace of its own, after `command`; skips where it must not."""
    probe = subprocess.run(["unshare", "-m", "sh", "-c", command], capture_output=True, check=False)
    if probe.returncode:
        pytest.skip("may not change mounts here")
    return ["unshare", "-m", "sh", "-c", f'{command} && exec "$@"', "sh"]


@pytest.mark.parametrize(
    "command",
    [
        "umount /dev/shm && mount -t tmpfs -o ro none /dev/shm",
        "mount -t tmpfs -o size=4k none /dev/shm && dd if=/dev/zero of=/dev/shm/full bs=4k count=1 2>/dev/null",
    ],
    ids=["absent", "full"],
)
def test_a_full_or_absent_dev_shm_is_no_matter(command: str) -> None:
    assert run_program(unshared(command)) == "1001\n"


def test_a_low_limit_on_descriptors_is_no_matter() -> None:
    assert run_program(["sh", "-c", 'ulimit -n 40 && exec "$@"', "sh"]) == "1001\n"


def test_standard_streams_may_be_closed() -> None:
    for closed in ("<&-", "<&- 2>&-"):
        assert run_program(["sh", "-c", f'exec "$@" {closed}', "sh"]) == "1001\n"


CLOSES_STREAMS = """
import os, sys
from pathlib import Path
closed, start_method, answer = sys.argv[1:]
for fd in map(int, closed):
    os.close(fd)
from bossworker import BossWorker

def handle(job):
    for fd in (1, 2):
        if str(fd) in closed:
            os.write(fd, b"x" * 5000)
    return {"n": job["n"], "data": job.get("data")}

with BossWorker(handle, worker_count=2, start_method=start_method) as bw:
    bw.add_work(*({"n": n} for n in range(20)))
    got = sum(result["n"] for result in bw.results())
    data = bytes(1 << 20)
    bw.add_work({"n": 0, "data": data}, {"n": 0, "data": data})
    for fd in (1, 2):
        try:
            os.write(fd, b"x" * 5000 * (str(fd) in closed))
        except OSError:
            pass
    assert all(result["data"] == data for result in bw.results())
for fd in map(int, closed):  # as they were
    try:
        os.close(fd)
    except OSError:
        continue
    raise SystemExit(f"{fd} is open")
Path(answer).write_text(str(got))
"""


@pytest.mark.parametrize(
    ("closed", "start_method"),
    [*((closed, "fork") for closed in ("0", "1", "2", "01", "02", "12", "012")), ("2", "spawn"), ("012", "spawn")],
)
def test_what_a_handler_prints_in_a_program_that_closed_its_streams_goes_nowhere(
    tmp_path: Path, closed: str, start_method: str
) -> None:
    answer = tmp_path / "answer"
    command = [sys.executable, "-W", "error", "-c", CLOSES_STREAMS, closed, start_method, str(answer)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert answer.read_text() == "190"

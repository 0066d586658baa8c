"""Pools on engines beside the engine alone, and what a batch costs the scheduler; by hand: python -m benchmarks.engines

A cluster of two workers with one thread each, on this machine. The floors: at least 10 times as many no-ops a second as
``client.map``, 0.8 times as many jobs of 100 ms, and a start that takes at most 2 s beyond that of the cluster.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bossworker import BossWorker

WORKERS = 2
PAIRS = 3  # alternating measurements, of which the median counts
NO_OPS_OF_DASK, NO_OPS = 1_000, 100_000
SLEEPS, SLEEP_SECONDS = 40, 0.1
BATCHES = 300
BEATS_SECONDS = 10.0


def no_op(job: dict[str, Any]) -> dict[str, Any]:
    return job


def sleep(job: dict[str, Any]) -> None:
    time.sleep(job["seconds"])


def identity(value: int) -> int:
    return value


def main() -> None:
    print(f"load {os.getloadavg()[0]:.1f} on {os.cpu_count()} CPUs")
    with cluster() as (client, scheduler):
        start = seconds_of(lambda: BossWorker(no_op, engine=client).shut_down(force=True))
        print(f"start and end beyond the cluster's own: {start:.2f} s (floor: 2 s)")
        compare(client)
        cost_of_batches(client, scheduler)
        cost_of_beats(client, scheduler)
    with ProcessPoolExecutor(WORKERS) as executor:
        with BossWorker(no_op, engine=executor) as bw:
            rates = median([rate(bw, NO_OPS, {}) for _ in range(PAIRS)])
        alone = median([NO_OPS_OF_DASK / seconds_of(lambda: calls(executor)) for _ in range(PAIRS)])
        print(f"ProcessPoolExecutor, no-ops a second: {rates:,.0f} beside {alone:,.0f} of its own calls")


def compare(client: Any) -> None:
    for what, jobs, theirs, job, call in (
        ("no-ops", NO_OPS, NO_OPS_OF_DASK, {}, identity),
        ("jobs of 100 ms", SLEEPS, SLEEPS, {"seconds": SLEEP_SECONDS}, lambda _: time.sleep(SLEEP_SECONDS)),
    ):
        with BossWorker(sleep if job else no_op, engine=client) as bw:
            rate(bw, jobs, job)
            pairs = [(rate(bw, jobs, job), map_rate(client, call, theirs)) for _ in range(PAIRS)]
        ours, dasks = (median([pair[n] for pair in pairs]) for n in (0, 1))
        print(f"{what} a second: {ours:,.1f} beside {dasks:,.1f} of client.map: {ours / dasks:.2f} times")


def rate(bw: BossWorker, jobs: int, job: dict[str, Any]) -> float:
    def all_of_them() -> None:
        bw.add_work(*({**job, "n": n} for n in range(jobs)))
        assert sum(result.ok for result in bw.results()) == jobs

    return jobs / seconds_of(all_of_them)


def map_rate(client: Any, call: Callable[[int], Any], jobs: int) -> float:
    return jobs / seconds_of(lambda: client.gather(client.map(call, range(jobs), pure=False)))


def calls(executor: ProcessPoolExecutor) -> None:
    for future in [executor.submit(identity, n) for n in range(NO_OPS_OF_DASK)]:
        future.result()


def cost_of_batches(client: Any, scheduler: int) -> None:
    """Batches of one job each: no two have the same time limit, so none are joined."""
    with BossWorker(no_op, engine=client) as bw:
        before = cpu_seconds(scheduler)
        for n in range(BATCHES):
            bw.add_work({"n": n}, timeout=1000.0 + n)
        assert sum(result.ok for result in bw.results()) == BATCHES
        cost = (cpu_seconds(scheduler) - before) / BATCHES
    before = cpu_seconds(scheduler)
    client.gather(client.map(identity, range(BATCHES), pure=False))
    task = (cpu_seconds(scheduler) - before) / BATCHES
    print(f"the scheduler's CPU time: {cost * 1e3:.2f} ms a batch, {task * 1e3:.2f} ms a task of client.map")


def cost_of_beats(client: Any, scheduler: int) -> None:
    """What the scheduler does while pools are idle."""
    idle = idle_share(scheduler)
    with BossWorker(no_op, engine=client):
        ours = idle_share(scheduler)
    print(f"the scheduler's CPU share, of one core: {idle:.3f} without a pool, {ours:.3f} with an idle one")


def idle_share(scheduler: int) -> float:
    before = cpu_seconds(scheduler)
    time.sleep(BEATS_SECONDS)
    return (cpu_seconds(scheduler) - before) / BEATS_SECONDS


@contextmanager
def cluster() -> Iterator[tuple[Any, int]]:
    """Scheduler and workers in processes of their own; a client, and the scheduler's pid."""
    from distributed import Client

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "scheduler.json"
        options = ["--host", "127.0.0.1", "--port", "0", "--no-dashboard", "--scheduler-file", str(file)]
        scheduler = dask("dask_scheduler", *options)
        place = ["--host", "127.0.0.1", "--no-dashboard", "--local-directory", folder]
        workers = [
            dask("dask_worker", "--scheduler-file", str(file), "--nthreads", "1", *place) for _ in range(WORKERS)
        ]
        try:
            while not file.exists() or not file.read_text():
                time.sleep(0.05)
            with Client(scheduler_file=str(file), set_as_default=False) as client:
                client.wait_for_workers(WORKERS)
                yield client, scheduler.pid
        finally:
            for process in (*workers, scheduler):
                process.terminate()
            for process in (*workers, scheduler):
                process.wait()


def dask(module: str, *arguments: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", f"distributed.cli.{module}", *arguments]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def seconds_of(act: Callable[[], object]) -> float:
    before = time.perf_counter()
    act()
    return time.perf_counter() - before


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()

"""What a journal costs: jobs accepted a second, overhead a job, memory of what is queued, and how long recovery takes.

    python benchmarks/journal.py [FOLDER]

FOLDER: where the databases are made (a disk that is meant, not a tmpfs); by default a new one in the working directory.
"""

from __future__ import annotations

import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

from bossworker import BossWorker
from bossworker.system import processes

CALL_JOBS = 1000
MILLION = 1_000_000


def nothing(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"]}


def timed(act: Callable[[], object]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def accepted(pool: BossWorker, calls: int) -> None:
    """Jobs in calls of a thousand, while none is run."""
    pool.pause()
    jobs = [{"n": n} for n in range(CALL_JOBS)]
    seconds = timed(lambda: [pool.add_work(*jobs) for _ in range(calls)])
    report("accepted in calls of 1,000", f"{calls * CALL_JOBS / seconds:,.0f} jobs/s (floor 50,000)")


def single_calls(pool: BossWorker, threads: int, calls: int) -> None:
    def add() -> None:
        for n in range(calls):
            pool.add_work({"n": n})

    crowd = [threading.Thread(target=add) for _ in range(threads)]

    def run() -> None:
        for one in crowd:
            one.start()
        for one in crowd:
            one.join()

    seconds = timed(run)
    report(f"calls of one job, {threads} threads", f"{threads * calls / seconds:,.0f} calls/s (floor 200)")


def bulk(settings: dict[str, Any], jobs: int) -> float:
    """Seconds a job from the call to the last result."""
    with BossWorker(nothing, worker_count=2, **settings) as pool:
        work = [{"n": n} for n in range(jobs)]

        def run() -> None:
            for start in range(0, jobs, CALL_JOBS):
                pool.add_work(*work[start : start + CALL_JOBS])
            for _ in pool.results():
                pass

        return timed(run) / jobs


def overhead(folder: str, jobs: int = 200_000) -> None:
    plain = [bulk({}, jobs) for _ in range(3)]
    kept = [bulk({"journal": f"{folder}/bulk-{n}.db"}, jobs) for n in range(3)]
    more = statistics.median(kept) - statistics.median(plain)
    both = f"{statistics.median(plain) * 1e6:.1f} without, {statistics.median(kept) * 1e6:.1f} with"
    report("overhead a job in bulk", f"{more * 1e6:.1f} µs (floor 20; {both})")


def million(folder: str) -> None:
    """A million queued jobs: memory, and recovery after the program was killed."""
    path = f"{folder}/million.db"
    told, tell = os.pipe()
    child = os.fork()
    if child == 0:
        pool = BossWorker(nothing, worker_count=2, journal=path)
        pool.pause()
        before = {pid: processes.resident_bytes(pid) for pid in [os.getpid(), *processes.descendants(os.getpid())]}
        for start in range(0, MILLION, CALL_JOBS):
            pool.add_work(*[{"n": n} for n in range(start, start + CALL_JOBS)])
        grown = sum(processes.resident_bytes(pid) - size for pid, size in before.items())
        os.write(tell, f"{grown / MILLION:.0f}".encode())
        time.sleep(600)
    grown_bytes = os.read(told, 100).decode()
    report("memory of a queued job, all processes", f"{grown_bytes} bytes (floor 300)")
    for pid in [child, *processes.descendants(child)]:
        os.kill(pid, 9)
    os.waitpid(child, 0)
    start = time.perf_counter()
    pool = BossWorker(nothing, worker_count=2, journal=path)
    seconds = time.perf_counter() - start
    report("recovery of a million queued jobs", f"{seconds:.2f} s (floor 10), {pool.pending():,} pending")
    pool.shut_down(force=True)


def report(what: str, figure: str) -> None:
    load = os.getloadavg()[0]
    print(f"{what:45} {figure}   [load {load:.1f}]", flush=True)


def main(folder: str) -> None:
    with BossWorker(nothing, worker_count=2, journal=f"{folder}/calls.db") as pool:
        accepted(pool, 100)
        single_calls(pool, 1, 500)
        single_calls(pool, 8, 500)
        pool.shut_down(force=True)
    overhead(folder)
    million(folder)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        made = tempfile.mkdtemp(prefix="journal-", dir=".")
        try:
            main(made)
        finally:
            shutil.rmtree(made)

"""``python -m benchmarks.costs``: what a tiny job costs each process, and what a start costs.

Figures are CPU time, which other programs on the machine disturb less than the clock.
"""

from __future__ import annotations

import os
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks import procfs
from benchmarks.handlers import WORKS, multiply
from benchmarks.peers import PEERS, label
from bossworker import BossWorker

JOBS = 100_000
BATCH = 1500
TURNS = 5
ROUNDS = 100  # of a step
STARTS = 20
SINGLES = 500  # jobs by themselves
PAUSE = 0.002  # seconds between them, for all to fall asleep
WAYS = ("bossworker.bulk", "pool.map", "pool.imap_64")

Step = Callable[[], object]


# -- a whole run ----------------------------------------------------------------------------------------


def print_runs() -> None:
    """CPU time a job of all processes of a pool, by process."""
    print(f"{JOBS:,} tiny jobs, two workers: CPU nanoseconds a job (medians of {TURNS} turns)\n")
    print("| way | caller | the other processes | sum | wall clock |\n| --- | --- | --- | --- | --- |")
    for way in WAYS:
        caller, others, wall = _run_costs(way)
        apart = " + ".join(f"{cost:,.0f}" for cost in others)
        print(f"| {label(way)} | {caller:,.0f} | {apart} | {caller + sum(others):,.0f} | {wall:,.0f} |")


def _run_costs(way: str) -> tuple[float, list[float], float]:
    name, _, method = way.partition(".")
    peer = PEERS[name](multiply, 2)
    run = getattr(peer, method)
    jobs = WORKS["tiny"].make_jobs(JOBS, 0)
    consume = WORKS["tiny"].consume
    try:
        consume(run(jobs[:BATCH]))
        pids = [os.getpid(), *procfs.descendants()]
        turns = []
        for _ in range(TURNS):
            before, begin = _cpu(pids), time.perf_counter()
            consume(run(jobs))
            wall = time.perf_counter() - begin
            turns.append([wall, *(b - a for a, b in zip(before, _cpu(pids), strict=True))])
    finally:
        peer.close()
    wall, caller, *others = (statistics.median(column) / JOBS * 1e9 for column in zip(*turns, strict=True))
    return caller, [cost for cost in others if cost >= 1], wall


def _cpu(pids: Sequence[int]) -> list[float]:
    return [procfs.usage([pid]).cpu_seconds for pid in pids]


# -- one job by itself ----------------------------------------------------------------------------------


def print_singles() -> None:
    """CPU time of a job that comes when all are asleep, and of one that comes at once behind the last."""
    print("\none job, added and got: CPU microseconds of each process")
    for pause, text in ((PAUSE, f"one each {PAUSE * 1e3:.0f} ms"), (0.0, "one behind the other")):
        for transport in ("zmq", "socketpair"):
            caller, boss, worker = _single_costs(pause, transport)
            told = f"caller {caller:.0f}, boss {boss:.0f}, worker {worker:.0f}"
            print(f"  {text}, {transport:10}  {told}: {caller + boss + worker:.0f}")


def _single_costs(pause: float, transport: str) -> tuple[float, float, float]:
    """Medians over `TURNS` of the caller's, the boss's and the worker's."""
    with BossWorker(multiply, worker_count=1, transport=transport) as pool:  # type: ignore[arg-type]
        pids = [os.getpid(), pool.boss_pid, *pool.worker_pids]
        job = {"a": 6, "b": 7}
        turns = []
        for _ in range(TURNS):
            before = [_cpu_nanoseconds(pid) for pid in pids]
            for _ in range(SINGLES):
                pool.add_work(job)
                pool.get_result()
                time.sleep(pause)
            turns.append([(_cpu_nanoseconds(pid) - was) / SINGLES / 1e3 for pid, was in zip(pids, before, strict=True)])
    caller, boss, worker = (statistics.median(column) for column in zip(*turns, strict=True))
    return caller, boss, worker


def _cpu_nanoseconds(pid: int) -> int:
    """Of all threads of a process, finer than in clock ticks."""
    tasks = Path(f"/proc/{pid}/task").iterdir()
    return sum(int((task / "schedstat").read_text().split()[0]) for task in tasks)


# -- a start --------------------------------------------------------------------------------------------


def print_starts() -> None:
    """What a pool's processes cost, from start to end."""
    print("\nstart + one job + stop, two workers")
    for name in ("bossworker", "pool"):
        print(f"  {label(f'{name}.one'):24} {_start_costs(lambda name=name: _cycle(name))}")  # type: ignore[misc]
    for depth in (2, 4):  # as many as Pool's processes, and as ours
        print(f"  {f'{depth} bare forks in a chain':24} {_start_costs(lambda depth=depth: _chain(depth))}")  # type: ignore[misc]


def _start_costs(cycle: Step) -> str:
    cycle()
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    for _ in range(STARTS):
        cycle()
    wall, after = time.perf_counter() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    faults = (after.ru_minflt - before.ru_minflt) / STARTS
    return (
        f"{1e3 * wall / STARTS:6.1f} ms; its processes: {1e3 * cpu / STARTS:.1f} ms of CPU, {faults:,.0f} page faults"
    )


def _cycle(name: str) -> None:
    peer = PEERS[name](multiply, 2)
    assert peer.one({"a": 6, "b": 7})["product"] == 42  # type: ignore[attr-defined]
    peer.close()


def _chain(depth: int) -> None:
    """Processes that do nothing, each forked by the one before."""
    if depth:
        pid = os.fork()
        if pid == 0:
            _chain(depth - 1)
            os._exit(0)
        os.waitpid(pid, 0)


def main() -> None:
    print_runs()
    print_singles()
    print_starts()


if __name__ == "__main__":
    main()

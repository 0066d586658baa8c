"""What it costs to watch: ``python -m benchmarks.events``.

The floors: with a reader of events at least 0.97 times the jobs a second; with ``logs="relay"`` and nothing printed at
least 0.9 times those of ``"inherit"``.

Turns in pairs, which comes first alternates, on pools that are up and warm. Events: one pool, with somebody who reads
them (in a thread of the program; in a process of its own, through the door) and without. Output: two pools. Each turn
adds so many jobs at a time and takes their results, for some seconds; a ratio is of one pair, the median counts.
Processor time is that of program, boss, fork server, workers and door; that of a process that reads is its own affair.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from functools import partial
from typing import NamedTuple

from benchmarks import procfs
from benchmarks.handlers import Job, multiply, spin
from bossworker import BossWorker

BATCH = 20_000  # tiny jobs that are added at a time; of others, as many as take
BATCH_SECONDS = 0.05
WARM_SECONDS = 0.5
LENGTHS = (5e-6, 2e-5, 1e-4)  # seconds that jobs take which are not tiny

Side = Callable[[], AbstractContextManager[object]]


class Turn(NamedTuple):
    """Of one turn: jobs a second, and microseconds of processor time a job."""

    rate: float
    cpu: float


def turn(pool: BossWorker, jobs: Sequence[Job], seconds: float) -> Turn:
    pool.add_work(*jobs)
    list(pool.results())  # whatever comes before, this is a pool at work
    before, began, done = _cpu_seconds(), time.monotonic(), 0
    while time.monotonic() < began + seconds:
        pool.add_work(*jobs)
        done += sum(1 for _ in pool.results())
    return Turn(done / (time.monotonic() - began), (_cpu_seconds() - before) / done * 1e6)


def _cpu_seconds() -> float:
    return procfs.usage([os.getpid(), *(pid for pid in procfs.descendants() if pid not in _readers)]).cpu_seconds


_readers: list[int] = []
"""Processes that are not the pool's."""


@contextmanager
def read_in_a_thread(pool: BossWorker) -> Iterator[None]:
    """Somebody reads the events meanwhile."""
    leave, events = threading.Event(), pool.events()

    def read() -> None:
        for _ in events:
            if leave.is_set():
                return

    reader = threading.Thread(target=read)
    reader.start()
    try:
        yield
    finally:
        leave.set()
        pool.add_work({"a": 1, "b": 1})  # so that it has one more to read
        list(pool.results())
        reader.join()


_READER = """
import sys, bossworker
with bossworker.operate(sys.argv[1]) as pool:
    for event in pool.events(since=0):
        if sys.stdout is not None:
            print("up", flush=True)
            sys.stdout = None
"""


@contextmanager
def read_in_a_process(pool: BossWorker) -> Iterator[None]:
    """The same, through the pool's door."""
    with subprocess.Popen([sys.executable, "-c", _READER, pool.name], stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        reader.stdout.read(1)  # it is up
        _readers[:] = [reader.pid]
        try:
            yield
        finally:
            reader.kill()


def pairs(sides: Sequence[Side], turns: Sequence[Callable[[], Turn]], count: int) -> list[list[Turn]]:
    """Two sides in turn; of each pair, what came of the first and of the second."""
    found = []
    for number in range(count):
        pair: dict[int, Turn] = {}
        for which in (number % 2, 1 - number % 2):
            with sides[which]():
                pair[which] = turns[which]()
        found.append([pair[0], pair[1]])
    return found


def report(what: str, found: list[list[Turn]], floor: float | None) -> str:
    told = []
    for name, unit in (("rate", "jobs/s"), ("cpu", "µs of CPU a job")):
        one, other = ([getattr(turn, name) for turn in turns] for turns in zip(*found, strict=True))
        ratios = sorted(b / a for a, b in zip(one, other, strict=True))
        middle = statistics.median(ratios)
        met = "" if floor is None or name != "rate" else f", floor {floor}: {'met' if middle >= floor else 'MISSED'}"
        figures = f"{statistics.median(one):,.2f} -> {statistics.median(other):,.2f} {unit}"
        told.append(f"{figures}, x {middle:.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}){met}")
    return f"{what}\n    " + "\n    ".join(told)


def tiny_jobs() -> list[Job]:
    return [{"a": n, "b": 2} for n in range(BATCH)]


def measure_events(options: argparse.Namespace) -> None:
    with BossWorker(multiply, worker_count=options.workers, name="watched") as pool, pool.listen():
        jobs = tiny_jobs()
        turn(pool, jobs, WARM_SECONDS)
        take = partial(turn, pool, jobs, options.seconds)
        for what, side in (("a thread", read_in_a_thread), ("another process", read_in_a_process)):
            found = pairs([nullcontext, partial(side, pool)], [take, take], options.pairs)
            print(report(f"tiny jobs: unwatched -> {what} reads the events", found, 0.97), flush=True)


def measure_relay(options: argparse.Namespace) -> None:
    kinds = [("tiny jobs", multiply, tiny_jobs())]
    for length in LENGTHS:
        jobs = [{"seconds": length} for _ in range(int(options.workers * BATCH_SECONDS / length))]
        kinds.append((f"jobs of {length * 1e6:g} µs", spin, jobs))
    for what, handler, jobs in kinds:
        with ExitStack() as stack:
            pools = [
                stack.enter_context(BossWorker(handler, worker_count=options.workers, logs=logs))
                for logs in ("inherit", "relay")
            ]
            for pool in pools:
                turn(pool, jobs, WARM_SECONDS)
            takes = [partial(turn, pool, jobs, options.seconds) for pool in pools]
            found = pairs([nullcontext, nullcontext], takes, options.pairs)
        print(report(f'{what}, nothing printed: logs="inherit" -> "relay"', found, 0.9), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.events", description=__doc__)
    parser.add_argument("--pairs", type=int, default=15)
    parser.add_argument("--seconds", type=float, default=1.0, help="a turn")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--only", choices=("events", "relay"))
    options = parser.parse_args()
    if options.only != "relay":
        measure_events(options)
    if options.only != "events":
        measure_relay(options)


if __name__ == "__main__":
    main()

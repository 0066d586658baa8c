"""One side of a comparison: a process that brings one pool up, warms it, and measures a turn whenever it is told.

A process of its own a side keeps them apart: no threads, garbage or descriptors of one pool in the other's caller.

Run as ``python -m benchmarks.side SPEC FD``. The spec is a JSON object (see `Spec`); answers, a JSON object a line, go
to the descriptor: one when the pool is up and warm, one a turn. A line on stdin asks for a turn, its end for the end.
"""

from __future__ import annotations

import gc
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks import procfs
from benchmarks.handlers import WORKS, Job, Work, WrongResults, expected
from benchmarks.peers import PEERS, TIMEOUT, Peer

WARM_JOBS = 256  # at the most, through every pool before the clock starts
WARM_ROUNDS = 200
IDLE_SETTLE = 0.5  # seconds after the last job until a pool is called idle
GATE_TIMEOUT = 3600  # seconds: the gate stays closed while all other jobs are added
MEMORY_STEP = 1000  # jobs an add_work call, in `memory`

Answer = dict[str, Any]
Turn = Callable[[], Answer]


class Spec(NamedTuple):
    """What a side measures."""

    mode: str
    """``batch``, ``round``, ``start``, ``memory``, ``idle`` or ``stall``."""
    peer: str
    way: str
    work: str
    jobs: int
    """Jobs, rounds or starts a turn."""
    parameter: float = 0.0
    """A job's seconds or bytes; in ``idle``, seconds to look on; in ``stall``, of the long job."""
    workers: int = 2
    heap: str = ""
    """``cold``: what is freed goes back to the system, so each large object costs page faults; ``warm``: it is kept."""


def check(got: float, wanted: float) -> None:
    if got != wanted:
        raise WrongResults(f"the results make {got}, and should make {wanted}")


def make_turn(spec: Spec, peer: Peer | None) -> Turn:
    """The turn of a spec's mode, on a pool that is warm then."""
    return MODES[spec.mode](spec, WORKS[spec.work], peer)


def _batch(spec: Spec, work: Work, peer: Peer | None) -> Turn:
    """All jobs in, all results out."""
    run = getattr(peer, spec.way)
    jobs = work.make_jobs(spec.jobs, spec.parameter)
    wanted = expected(work, jobs)
    work.consume(run(jobs[:WARM_JOBS]))

    def turn() -> Answer:
        gc.collect()
        begin = time.perf_counter()
        got = work.consume(run(jobs))
        seconds = time.perf_counter() - begin
        check(got, wanted)
        return {"seconds": seconds}

    return turn


def _round(spec: Spec, work: Work, peer: Peer | None) -> Turn:
    """One job there and back, many times over."""
    run: Callable[[Job], Job] = getattr(peer, spec.way)
    (job,) = work.make_jobs(1, spec.parameter)
    wanted = expected(work, [job])

    def trip() -> float:
        begin = time.perf_counter()
        got = work.consume((run(job),))
        seconds = time.perf_counter() - begin
        check(got, wanted)
        return seconds

    for _ in range(min(spec.jobs, WARM_ROUNDS)):
        trip()

    def turn() -> Answer:
        gc.collect()
        trips = sorted(trip() for _ in range(spec.jobs))
        return {"seconds": statistics.median(trips), "p90": trips[len(trips) * 9 // 10]}

    return turn


def _start(spec: Spec, work: Work, peer: Peer | None) -> Turn:
    """A pool comes up, does one job and goes."""
    (job,) = work.make_jobs(1, spec.parameter)
    wanted = expected(work, [job])

    def cycle() -> float:
        begin = time.perf_counter()
        pool = _open(spec)
        try:
            got = work.consume((getattr(pool, spec.way)(job),))
        finally:
            pool.close()
        seconds = time.perf_counter() - begin
        check(got, wanted)
        return seconds

    cycle()  # what is imported late is imported now
    return lambda: {"seconds": statistics.median(cycle() for _ in range(spec.jobs))}


def _open(spec: Spec) -> Peer:
    timeout = GATE_TIMEOUT if spec.mode == "memory" else TIMEOUT
    return PEERS[spec.peer](WORKS[spec.work].handler, spec.workers, timeout)


def _memory(spec: Spec, work: Work, peer: Peer | None) -> Turn:
    """Jobs are added while a gate holds the first ones back; then it opens, and results wait to be taken."""
    run = getattr(peer, spec.way)
    work.consume(run(work.make_jobs(WARM_JOBS, 0)))

    def turn() -> Answer:
        gc.collect()
        with tempfile.TemporaryDirectory() as place:
            gate = Path(place) / "open"
            before = _all_rss()
            results = [run([{"a": 0, "b": 0, "gate": str(gate)} for _ in range(spec.workers)])]
            results += [run(jobs) for jobs in _steps(spec.jobs)]
            queued = _all_rss() - before
            gate.touch()
            check(sum(map(work.consume, results)), sum(a * (a + 1) for a in range(spec.jobs)))
        return {"bytes": queued / spec.jobs}

    return turn


def _all_rss() -> int:
    return procfs.usage([os.getpid(), *procfs.descendants()]).rss


def _steps(count: int) -> Iterator[list[Job]]:
    """Jobs that nobody else keeps, some at a time."""
    for start in range(0, count, MEMORY_STEP):
        yield [{"a": number, "b": number + 1} for number in range(start, min(count, start + MEMORY_STEP))]


def _idle(spec: Spec, work: Work, peer: Peer | None) -> Turn:
    """A pool that has nothing to do."""
    run = getattr(peer, spec.way)
    work.consume(run(work.make_jobs(WARM_JOBS, 0)))

    def turn() -> Answer:
        time.sleep(IDLE_SETTLE)
        pids = procfs.descendants()
        before, own = procfs.usage(pids), time.process_time()  # our own last, and
        time.sleep(spec.parameter)
        own, after = time.process_time() - own, procfs.usage(pids)  # first: looking costs CPU time, too
        return {
            "cpu": (own + after.cpu_seconds - before.cpu_seconds) / spec.parameter,
            "wakeups": (after.wakeups - before.wakeups) / spec.parameter,
            "processes": len(pids),
            "rss": after.rss,
        }

    return turn


def _stall(spec: Spec, work: Work, peer: Peer | None) -> Turn:
    """When each tiny job's result is there, with a long job in front of them."""
    run = getattr(peer, spec.way)
    tiny = [{"a": number, "b": number + 1, "seconds": 0} for number in range(spec.jobs)]
    jobs = [{"a": 0, "b": 0, "seconds": spec.parameter}, *tiny]
    work.consume(run(tiny))

    def turn() -> Answer:
        gc.collect()
        begin = time.perf_counter()
        waits = sorted(_arrivals(run(jobs), begin))
        return {"p50": statistics.median(waits), "p90": waits[len(waits) * 9 // 10], "max": waits[-1]}

    return turn


def _arrivals(results: Iterable[Job], begin: float) -> Iterator[float]:
    for result in results:
        if not result["seconds"]:
            yield time.perf_counter() - begin


MODES: dict[str, Callable[[Spec, Work, Peer | None], Turn]] = {
    "batch": _batch,
    "round": _round,
    "start": _start,
    "memory": _memory,
    "idle": _idle,
    "stall": _stall,
}


def main(spec: Spec, answers: int) -> None:
    os.set_inheritable(answers, False)
    peer = None if spec.mode == "start" else _open(spec)
    with open(answers, "w", buffering=1) as out:
        try:
            turn = make_turn(spec, peer)
            print(json.dumps({}), file=out)
            while sys.stdin.readline():
                print(json.dumps(turn()), file=out)
        finally:
            if peer is not None:
                peer.close()


if __name__ == "__main__":
    main(Spec(**json.loads(sys.argv[1])), int(sys.argv[2]))

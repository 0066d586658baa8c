"""The work that every pool does here, at module level so that each of them can find it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import numpy

Job = dict[str, Any]
Handler = Callable[[Job], Job]

GATE_TICK = 0.01  # seconds between looks at the gate


def multiply(job: Job) -> Job:
    return {"product": job["a"] * job["b"]}


def spin(job: Job) -> Job:
    """Keep a processor busy."""
    end = time.perf_counter() + job["seconds"]
    while time.perf_counter() < end:
        pass
    return {}


def count(job: Job) -> Job:
    """Work that takes as much of a processor, however many others want it."""
    left = job["loops"]
    while left:
        left -= 1
    return {}


def nap(job: Job) -> Job:
    time.sleep(job["seconds"])
    return {}


def echo(job: Job) -> Job:
    return {"data": job["data"]}


def increment(job: Job) -> Job:
    """Touch all of an array."""
    return {"data": job["data"] + 1}


def multiply_or_nap(job: Job) -> Job:
    """Tiny jobs and a long one, by the same handler."""
    time.sleep(job["seconds"]) if job["seconds"] else None
    return {"product": job["a"] * job["b"], "seconds": job["seconds"]}


def multiply_behind_gate(job: Job) -> Job:
    """Does not end before the file that the job names is there."""
    while "gate" in job and not Path(job["gate"]).exists():
        time.sleep(GATE_TICK)
    return {"product": job["a"] * job["b"]}


class Work(NamedTuple):
    """Jobs for a handler, and how its results are consumed: to a number that tells whether all are right."""

    handler: Handler
    make_jobs: Callable[[int, float], list[Job]]
    consume: Callable[[Iterable[Job]], float]


def _tiny_jobs(count: int, _: float) -> list[Job]:
    return [{"a": number, "b": number + 1} for number in range(count)]


def _timed_jobs(count: int, seconds: float) -> list[Job]:
    return [{"seconds": seconds} for _ in range(count)]


def _counted_jobs(count: int, loops: float) -> list[Job]:
    return [{"loops": int(loops)} for _ in range(count)]


def _byte_jobs(count: int, size: float) -> list[Job]:
    return [{"data": bytes(int(size))} for _ in range(count)]


def _array_jobs(count: int, size: float) -> list[Job]:
    return [{"data": numpy.ones(int(size) // 8)} for _ in range(count)]


class WrongResults(Exception):
    """A pool's results are not what the jobs should give."""


def _consumer(worth: Callable[[Job], float]) -> Callable[[Iterable[Job]], float]:
    """Consume results one by one, and sum up what each is worth."""

    def consume(results: Iterable[Job]) -> float:
        total = 0.0
        result: Job = {}
        try:
            for result in results:
                total += worth(result)
        except KeyError:
            raise WrongResults(f"a result is {result}") from None
        return total

    return consume


def _products(results: Iterable[Job]) -> float:
    """As a consumer, without a call a result: these are for the rows of many tiny jobs."""
    total = 0
    result: Job = {}
    try:
        for result in results:
            total += result["product"]
    except KeyError:
        raise WrongResults(f"a result is {result}") from None
    return total


def expected(work: Work, jobs: list[Job]) -> float:
    """What `consume` makes of all results, found without a pool."""
    if work.handler in (spin, nap, count):
        return len(jobs)
    return work.consume(work.handler(job) for job in jobs)


_ones = _consumer(lambda result: 0 if "ERROR" in result else 1)
_ends = _consumer(lambda result: len(result["data"]) + int(result["data"][0]) + int(result["data"][-1]))
_sums = _consumer(lambda result: float(result["data"].sum()))

WORKS = {
    "tiny": Work(multiply, _tiny_jobs, _products),
    "spin": Work(spin, _timed_jobs, _ones),
    "count": Work(count, _counted_jobs, _ones),
    "nap": Work(nap, _timed_jobs, _ones),
    "bytes": Work(echo, _byte_jobs, _ends),
    "array": Work(echo, _array_jobs, _ends),
    "array+1": Work(increment, _array_jobs, _sums),
    "stall": Work(multiply_or_nap, lambda *_: [], _products),
    "gate": Work(multiply_behind_gate, _tiny_jobs, _products),
}

"""The last events of a pool as a trace that viewers of Chrome's format show: Perfetto, chrome://tracing, speedscope.

A lane a worker, failed jobs in red, and counters of what is queued, what runs and what memory the workers take.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from bossworker.watch.pool_events import (
    Event,
    JobEnded,
    JobLog,
    JobProgress,
    JobQueued,
    JobStarted,
    WorkerDown,
    WorkerUp,
)

MOST_POINTS = 2000  # of a counter
_MICRO, _MEBI = 1e6, 1 << 20
_NOBODY = 0  # the lane of what no worker did; worker n has lane n + 1
_FAILED, _STOPPED = "terrible", "bad"  # the format's names of colours

Point = dict[str, Any]


Memory = Iterable[tuple[float, Mapping[str, int]]]
"""When (Unix seconds) how many bytes each worker had in memory, by its index."""


def write_trace(path: str | os.PathLike[str], title: str, boss: int, events: Iterable[Event], memory: Memory) -> None:
    """Write the file anew; one after another where several do so."""
    entries = list(trace_events(title, boss, list(events), memory))
    with open(path, "a", encoding="utf-8") as file:
        with suppress(OSError):  # a pipe, or a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # until it is closed
            file.truncate(0)
        json.dump({"displayTimeUnit": "ms", "traceEvents": entries}, file)


def trace_events(title: str, boss: int, events: list[Event], memory: Memory) -> Iterator[Point]:
    """The entries of the file."""
    yield _meta(boss, _NOBODY, "process_name", f"bossworker {title}")
    yield from _lanes(boss, events)
    running: dict[int, JobStarted] = {}
    for event in events:
        match event:
            case JobStarted():
                running[event.job_id] = event
            case JobEnded():
                running.pop(event.job_id, None)
                yield _job(boss, event)
            case WorkerUp() | WorkerDown() | JobProgress() | JobLog():
                yield _instant(boss, event)
    end = events[-1].time if events else 0.0
    for started in running.values():
        yield _span(boss, started, started.time, end, "running", {})
    yield from _jobs_counter(boss, events)
    for at, sizes in memory:
        values = {f"worker {index}": size / _MEBI for index, size in sizes.items()}
        yield {"ph": "C", "pid": boss, "name": "memory (MiB)", "cat": "pool", "ts": _micros(at), "args": values}


def _meta(boss: int, lane: int, name: str, value: str) -> Point:
    return {"ph": "M", "pid": boss, "tid": lane, "name": name, "args": {"name": value}}


def _lanes(boss: int, events: Iterable[Event]) -> Iterator[Point]:
    pids: dict[int, list[str]] = {}
    for event in events:
        if isinstance(event, JobStarted | JobEnded | WorkerUp) and event.worker_index >= 0:
            known = pids.setdefault(event.worker_index, [])
            if str(event.worker_pid) not in known:
                known.append(str(event.worker_pid))
    for index, own in sorted(pids.items()):
        yield _meta(boss, index + 1, "thread_name", f"worker {index} (pid {', '.join(own)})")
        yield {**_meta(boss, index + 1, "thread_sort_index", ""), "args": {"sort_index": index}}


def _job(boss: int, event: JobEnded) -> Point:
    span = _span(boss, event, event.started, event.time, event.error_kind or "ok", {"attempt": event.attempt})
    if event.error_kind is not None:
        span["cname"] = _STOPPED if event.error_kind in ("timeout", "cancelled") else _FAILED
    return span


def _span(
    boss: int, event: JobStarted | JobEnded, start: float, end: float, outcome: str, facts: Mapping[str, Any]
) -> Point:
    return {
        "ph": "X",
        "pid": boss,
        "tid": event.worker_index + 1,
        "name": f"job {event.job_id}",
        "cat": outcome,
        "ts": _micros(start),
        "dur": max(0, _micros(end) - _micros(start)),
        "args": {"job_id": event.job_id, "outcome": outcome, "worker_pid": event.worker_pid, **facts},
    }


def _micros(at: float) -> int:
    """Whole ones: of fractions, Perfetto makes nanoseconds as doubles, which tell apart only each 256th of so large
    numbers; it leaves out what then begins before the end of the job before it.
    """
    return round(at * _MICRO)


def _instant(boss: int, event: WorkerUp | WorkerDown | JobProgress | JobLog) -> Point:
    match event:
        case WorkerUp():
            name = "worker up"
        case WorkerDown():
            name = f"worker down: {event.reason}"
        case JobProgress():
            name = f"progress: {event.text or event.done}"
        case JobLog():
            name = event.text
    return {
        "ph": "i",
        "s": "t",
        "pid": boss,
        "tid": event.worker_index + 1,
        "name": name,
        "cat": "pool",
        "ts": _micros(event.time),
    }


def _jobs_counter(boss: int, events: Iterable[Event]) -> Iterator[Point]:
    """How many jobs were queued and ran. (Of those that came before the first event nothing is known but that.)"""
    points: list[tuple[float, int, int]] = []
    queued = running = 0
    ordered = sorted((e for e in events if isinstance(e, JobQueued | JobStarted | JobEnded)), key=lambda e: e.time)
    for event in ordered:
        match event:
            case JobQueued():
                queued += 1
            case JobStarted():
                queued, running = queued - (event.attempt == 1), running + 1
            case JobEnded() if event.worker_pid:
                running -= 1
            case JobEnded():
                queued -= 1
        points.append((event.time, queued, running))
    least = [min((point[n] for point in points), default=0) for n in (1, 2)]
    for at, queued, running in points[:: max(1, len(points) // MOST_POINTS)]:
        counts = {"queued": queued - min(0, least[0]), "running": running - min(0, least[1])}
        yield {"ph": "C", "pid": boss, "name": "jobs", "cat": "pool", "ts": _micros(at), "args": counts}

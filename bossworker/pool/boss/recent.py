"""How fast a pool has been of late: counted over what its ring of events still holds, when somebody asks."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterator
from itertools import accumulate
from typing import Any

from bossworker.pool.boss.event_ring import EventRing
from bossworker.watch.event_records import ENDED, QUEUED

MINUTE_SECONDS = 60.0  # what counts as of late
MOST_RECORDS = 500  # that are looked at, the newest
MOST_OF_RECORD = 16  # jobs of one record that are looked at

Weighted = tuple[float, int]
"""A value, and of how many jobs."""


def recent_figures(ring: EventRing, now: float) -> dict[str, object]:
    """Jobs a second, and how long they took, of those that ended within the last minute."""
    records = ring.newest(MOST_RECORDS)
    queued = sorted((record[3], record[4]) for record in records if record[0] == QUEUED)
    ended = [record for record in records if record[0] == ENDED and _end(record) > now - MINUTE_SECONDS]
    jobs = sum(record[4] for record in ended)
    since = min((_start(record) for record in ended), default=now)
    durations: list[Weighted] = []
    latencies: list[Weighted] = []
    for job_id, started, finished, weight in _sample(ended):
        durations.append((finished - started, weight))
        at = bisect_right(queued, (job_id, now)) - 1
        if at >= 0 and (added := queued[at][1]) <= finished:
            latencies.append((finished - added, weight))
    return {
        "rate": jobs / max(now - max(since, now - MINUTE_SECONDS), 0.001) if jobs else 0.0,
        "duration_p50": _quantile(durations, 0.5),
        "duration_p95": _quantile(durations, 0.95),
        "latency_p50": _quantile(latencies, 0.5),
        "latency_p95": _quantile(latencies, 0.95),
    }


def _start(record: tuple[Any, ...]) -> float:
    return float(array("d", bytes(record[8][:8]))[0])


def _end(record: tuple[Any, ...]) -> float:
    return float(array("d", bytes(record[8][-8:]))[0])


def _sample(records: list[tuple[Any, ...]]) -> Iterator[tuple[int, float, float, int]]:
    """Job ids, starts and ends: all of them, or of a long record some; and how many jobs each stands for."""
    for record in records:
        first_id, jobs, marks = record[3], record[4], array("d", bytes(record[8]))
        step = -(-jobs // MOST_OF_RECORD)
        for at in range(0, jobs, step):
            yield first_id + at, marks[at], marks[at + 1], min(step, jobs - at)


def _quantile(values: list[Weighted], share: float) -> float | None:
    """The value that this share of the jobs does not exceed."""
    if not values:
        return None
    values.sort()
    counts = list(accumulate(weight for _, weight in values))
    return values[min(len(values) - 1, bisect_right(counts, share * counts[-1]))][0]

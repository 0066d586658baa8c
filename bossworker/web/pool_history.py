"""A pool's last minutes, for charts: a point a look. No I/O in here."""

from __future__ import annotations

from collections import deque
from itertools import islice
from typing import Any

from bossworker.pool.caller.operating import Now
from bossworker.web.job_table import JobTable

MOST_POINTS = 1200
RATE_SECONDS = 2.0  # over which a rate is taken: of a pool that is slow, single jobs are not peaks
SAMPLE_SECONDS = 10.0  # over which durations are taken
SAMPLE = 64  # jobs of a look whose durations count

FIELDS = ("time", "rate", "failures", "queued", "running", "p50", "p95", "latency50", "latency95")
"""What a point holds. Rates are a second; times are seconds, or None where there were no jobs."""

Point = tuple[Any, ...]


class PoolHistory:
    """See the module."""

    def __init__(self) -> None:
        self.points: deque[Point] = deque(maxlen=MOST_POINTS)
        self._counts: deque[tuple[float, int, int]] = deque()  # time, ended, failed
        self._durations: deque[tuple[float, list[float], list[float]]] = deque()

    @property
    def newest(self) -> Point | None:
        """The last point."""
        return self.points[-1] if self.points else None

    def note(self, now: Now, table: JobTable) -> None:
        """Add a point."""
        stats = now.stats
        self._counts.append((now.time, stats.done + stats.failed, stats.failed))
        while len(self._counts) > 2 and self._counts[1][0] <= now.time - RATE_SECONDS:
            self._counts.popleft()
        self._note_durations(now, table)
        durations = sorted(one for _, some, _ in self._durations for one in some)
        latencies = sorted(one for _, _, some in self._durations for one in some)
        rate, failures = self._rates()
        self.points.append(
            (
                round(now.time, 3),
                rate,
                failures,
                stats.queued,
                stats.running,
                *(_quantile(values, share) for values in (durations, latencies) for share in (0.5, 0.95)),
            )
        )

    def _rates(self) -> tuple[float, float]:
        (since, ended, failed), (until, ended_now, failed_now) = self._counts[0], self._counts[-1]
        seconds = until - since
        if seconds <= 0:
            return 0.0, 0.0
        return round(max(0, ended_now - ended) / seconds, 2), round(max(0, failed_now - failed) / seconds, 2)

    def _note_durations(self, now: Now, table: JobTable) -> None:
        durations: list[float] = []
        latencies: list[float] = []
        for stretch in islice(reversed(now.ended), SAMPLE):
            jobs = len(stretch.outcomes)
            for at in range(0, jobs, max(1, jobs // max(1, SAMPLE // len(now.ended)))):
                durations.append(max(0.0, stretch.times[at + 1] - stretch.times[at]))
                added = table.added_at(stretch.first_id + at)
                if added is not None and added <= stretch.times[at + 1]:
                    latencies.append(stretch.times[at + 1] - added)
        if durations:
            self._durations.append((now.time, durations, latencies))
        while self._durations and self._durations[0][0] < now.time - SAMPLE_SECONDS:
            self._durations.popleft()


def _quantile(values: list[float], share: float) -> float | None:
    return round(values[min(len(values) - 1, int(share * len(values)))], 6) if values else None

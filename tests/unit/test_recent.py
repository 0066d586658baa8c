"""What ``stats()`` tells of the last minute, out of the ring of events."""

from __future__ import annotations

from array import array
from typing import Any, cast

import pytest

from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.recent import MOST_OF_RECORD, recent_figures
from bossworker.watch.event_records import ENDED, QUEUED

NOW = 1000.0


class Ring:
    """As much of one as is asked for."""

    def __init__(self, *records: tuple[Any, ...]) -> None:
        self._records = list(records)

    def newest(self, most: int) -> list[tuple[Any, ...]]:
        return self._records[-most:]


def figures(*records: tuple[Any, ...]) -> dict[str, Any]:
    return cast("dict[str, Any]", recent_figures(cast(EventRing, Ring(*records)), NOW))


def queued(first_id: int, at: float) -> tuple[Any, ...]:
    return (QUEUED, 0, 0, first_id, at)


def ended(first_id: int, jobs: int, seconds: float, began: float = NOW - 50) -> tuple[Any, ...]:
    """A batch of jobs, one after the other, each of which took so long."""
    marks = array("d", [began + n * seconds for n in range(jobs + 1)])
    return (ENDED, 0, 0, first_id, jobs, 1, 17, 0, marks.tobytes())


@pytest.mark.parametrize("jobs", [MOST_OF_RECORD + 1, 100, 1000, 1001])
def test_a_job_counts_as_one_whatever_batch_it_was_in(jobs: int) -> None:
    """Of a long batch some are looked at; each of these stands for several."""
    few = figures(ended(1, jobs, 0.001), *(ended(jobs + 1 + n, 1, 1.0) for n in range(jobs // 25)))
    assert few["duration_p50"] == pytest.approx(0.001)
    assert few["duration_p95"] == pytest.approx(0.001), "96 of 100 took a millisecond"
    more = figures(ended(1, jobs, 0.001), *(ended(jobs + 1 + n, 1, 1.0) for n in range(jobs // 10)))
    assert more["duration_p50"] == pytest.approx(0.001)
    assert more["duration_p95"] == pytest.approx(1.0), "and more than one in twenty of these a second"


def test_latency_counts_from_the_call_that_added_the_job() -> None:
    told = figures(queued(1, NOW - 51), queued(3, NOW - 31), ended(1, 2, 0.5), ended(3, 1, 0.5, NOW - 30))
    assert told["latency_p50"] == pytest.approx(1.5)
    assert told["latency_p95"] == pytest.approx(2.0)


def test_what_is_older_than_a_minute_does_not_count() -> None:
    assert figures(ended(1, 5, 0.1, NOW - 70))["duration_p50"] is None
    assert figures(ended(1, 5, 0.1, NOW - 70))["rate"] == 0.0
    told = figures(ended(1, 5, 0.1, NOW - 70), ended(6, 100, 0.01, NOW - 10))
    assert told["duration_p95"] == pytest.approx(0.01)
    assert told["rate"] == pytest.approx(10.0)

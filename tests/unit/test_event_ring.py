"""The boss's ring of events: what is kept, how it is numbered, and what a reader gets."""

from __future__ import annotations

import struct

import pytest

from bossworker.failure import Outcome
from bossworker.pool.boss.event_ring import CHUNK_JOBS, MOST_EVENTS, TRIM_STEP, EventRing
from bossworker.pool.wire.segments import Segment, single
from bossworker.watch.event_records import ENDED, MEMORY, UP
from bossworker.watch.pool_events import (
    Clock,
    Event,
    JobEnded,
    JobQueued,
    JobStarted,
    Missed,
    unpack_events,
)

PID = 77


def results(first_id: int, jobs: int, outcome: int = Outcome.OK, pid: int = PID) -> Segment:
    marks = struct.pack(f"{jobs + 1}d", *range(jobs + 1))
    return Segment(first_id, jobs, 0, pid, 1, marks, bytes(8 * jobs), bytes([outcome]) * jobs, b"")


def events_of(ring: EventRing, after: int = 0, most: int = MOST_EVENTS * 2) -> list[Event]:
    clock = Clock(0.0, {str(PID): 3})
    records = ring.after(max(after, ring.first - 1), most)
    plain = [[*record[:-2], record[-2].hex(), record[-1].hex()] if record[0] == ENDED else record for record in records]
    return [event for record in plain for event in clock.events(list(record)) if event.seq > after]


def test_each_event_has_a_number_of_its_own() -> None:
    ring = EventRing()
    ring.queued(1, 5, 0.0)
    ring.started(1, 1, PID, 0.0)
    ring.started(1, 1, PID, 0.0)  # seen once more
    ring.ended(results(1, 2))
    ring.started(4, 1, PID, 3.0)
    ring.ended(results(3, 3))
    told = events_of(ring)
    assert [event.seq for event in told] == list(range(1, 16))
    assert [event.job_id for event in told if isinstance(event, JobQueued)] == [1, 2, 3, 4, 5]
    assert sorted(event.job_id for event in told if isinstance(event, JobStarted)) == [1, 2, 3, 4, 5]
    assert [event.job_id for event in told if isinstance(event, JobEnded)] == [1, 2, 3, 4, 5]


def test_a_job_that_runs_behind_the_results_stays_told() -> None:
    ring = EventRing()
    ring.started(9, 1, PID, 0.0)
    ring.ended(results(7, 2))
    ring.ended(results(9, 1))
    assert [event.job_id for event in events_of(ring) if isinstance(event, JobStarted)] == [9, 7, 8]


def test_what_no_worker_ran_has_no_start() -> None:
    ring = EventRing()
    ring.ended(single(1, 0, 0, 1.0, 1.0, Outcome.CANCELLED | Outcome.TEXT, b""))
    (event,) = events_of(ring)
    assert isinstance(event, JobEnded)
    assert (event.error_kind, event.worker_index) == ("cancelled", -1)


@pytest.mark.parametrize("jobs", [1, CHUNK_JOBS - 1, CHUNK_JOBS, CHUNK_JOBS + 1, 3 * CHUNK_JOBS + 7])
def test_long_stretches_are_cut(jobs: int) -> None:
    ring = EventRing()
    ring.started(jobs // 2 + 1, 1, PID, 0.0)
    ring.ended(results(1, jobs))
    told = events_of(ring)
    assert [event.seq for event in told] == list(range(1, 2 * jobs + 1))
    ended = [event for event in told if isinstance(event, JobEnded)]
    assert [(event.job_id, event.started, event.time) for event in ended] == [
        (n, n - 1.0, n) for n in range(1, jobs + 1)
    ]


def test_a_reader_goes_on_amid_a_record() -> None:
    ring = EventRing()
    for n in range(10):
        ring.ended(results(1 + 100 * n, 100))
    seen: list[int] = []
    while seen[-1:] != [2000]:
        seen += [event.seq for event in events_of(ring, seen[-1] if seen else 0, 300)]
    assert seen == list(range(1, 2001))
    assert [event.seq for event in events_of(ring, 1234)] == list(range(1235, 2001))


def test_it_is_bounded_and_a_slow_reader_is_told() -> None:
    ring = EventRing()
    for n in range(10 * MOST_EVENTS):
        ring.add(UP, 1, PID, float(n))
    assert MOST_EVENTS <= ring.next - ring.first <= MOST_EVENTS + TRIM_STEP
    records = ring.after(ring.first - 1, 5)
    answer = {"clock": 0.0, "now": 5.0, "first": ring.first, "next": ring.next, "indexes": {}, "records": records}
    missed, *rest = unpack_events(answer, 100)
    assert missed == Missed(ring.first - 101, ring.first - 1, 5.0)
    assert rest[0].seq == ring.first


def test_records_of_no_event_are_bounded_too() -> None:
    ring = EventRing()
    ring.add(UP, 1, PID, 0.0)
    for n in range(3 * MOST_EVENTS):
        ring.add(MEMORY, 0, {0: n}, float(n))
    assert len(ring.newest(10 * MOST_EVENTS)) <= MOST_EVENTS + TRIM_STEP
    ring.add(UP, 1, PID, 1.0)
    assert [event.seq for event in events_of(ring, 1)] == [2]


def test_of_very_many_jobs_that_were_added_at_once_a_reader_gets_as_many_events_as_it_is_to() -> None:
    ring = EventRing()
    ring.queued(1, 10_000, 5.0)
    assert [record[1:4] for record in ring.after(0, 1000)] == [(1, 1000, 1)]
    assert [record[1:4] for record in ring.after(9_500, 1000)] == [(9_501, 500, 9_501)]

"""What has been seen of a pool's jobs, and which of them are wanted."""

from __future__ import annotations

import time
from array import array
from collections.abc import Iterable
from typing import Any

import pytest

from bossworker.failure import Outcome
from bossworker.pool.boss.stats import Stats, WorkerStats
from bossworker.pool.caller.operating import EndedStretch, FailedRecord, Now, QueuedStretch
from bossworker.pool.wire.messages import CLIENT_BITS
from bossworker.web import job_table
from bossworker.web.job_queries import JobQuery, JobView
from bossworker.web.job_table import JobTable
from bossworker.web.pool_history import FIELDS, PoolHistory
from bossworker.web.worker_lanes import lanes

EXCEPTION, TIMEOUT = int(Outcome.EXCEPTION), int(Outcome.TIMEOUT | Outcome.TEXT)
CLIENT = 65538


def ended(first: int, outcomes: list[int], start: float = 100.0, each: float = 1.0, worker: int = 0) -> EndedStretch:
    times = array("d", [start + each * at for at in range(len(outcomes) + 1)])
    return EndedStretch(first, 4000 + worker, worker, 1, times, bytes(outcomes))


def now(
    queued: Iterable[tuple[int, int, float]] = (),
    ends: Iterable[EndedStretch] = (),
    last: dict[int, int] | None = None,
    at: float = 200.0,
    **counts: Any,
) -> Now:
    figures = {"queued": 0, "running": 0, "done": 0, "failed": 0, "restarts": 0, "failed_starts": 0}
    stats = Stats(**{**figures, **counts}, start_error=None, workers=())
    stretches = tuple(QueuedStretch(*one) for one in queued)
    return Now(stats, 1, stretches, tuple(ends), (), 0, last or {}, 0, at)


def failure(job_id: int, kind: Any = "exception", error: str = "ValueError: rattle") -> FailedRecord:
    return FailedRecord(1, job_id, 4000, 1, 100.0, 101.0, kind, error, "Traceback", "", True)


def running(job_id: int) -> WorkerStats:
    return WorkerStats(4000, "busy", job_id, 2.5, 0, 0, index=3)


@pytest.fixture
def table() -> JobTable:
    """100 jobs: 1 to 40 have ended, 5 and 17 have failed; 41 runs, the others wait."""
    found = JobTable()
    outcomes = [0] * 40
    outcomes[4], outcomes[16] = EXCEPTION, TIMEOUT
    found.note(now([(1, 100, 90.0)], [ended(1, outcomes)], {0: 100}))
    found.note_failed([failure(5), failure(17, "timeout", "BossWorkerAsync: timed out")])
    return found


@pytest.fixture
def view(table: JobTable) -> JobView:
    return JobView(table, [range(42, 101)], [running(41)], {50: "path='/data/x.csv'"})


def found(view: JobView, offset: int = 0, limit: int = 1000, **wanted: Any) -> tuple[int, list[int]]:
    return view.find(JobQuery(**wanted), offset, limit)


def test_all_jobs_the_newest_first(view: JobView) -> None:
    assert found(view) == (100, list(range(100, 0, -1)))
    assert found(view, 10, 3) == (100, [90, 89, 88])
    assert found(view, 99, 3) == (100, [1])
    assert found(view, 200, 3) == (100, [])


def test_by_status(view: JobView) -> None:
    assert found(view, status="queued") == (59, list(range(42, 101)))
    assert found(view, 2, 2, status="queued") == (59, [44, 45])
    assert found(view, status="running") == (1, [41])
    assert found(view, status="failed") == (2, [17, 5])
    total, ids = found(view, status="done")
    assert total == len(ids) == 38
    assert ids == [one for one in range(40, 0, -1) if one not in (5, 17)]
    assert found(view, status="failed", kind="timeout") == (1, [17])
    assert found(view, kind="exception") == (1, [5])


def test_by_text_and_time(view: JobView) -> None:
    assert found(view, text="RATTLE") == (1, [5])
    assert found(view, text="x.csv") == (1, [50])
    assert found(view, text="17") == (1, [17])
    assert found(view, since=138.5) == (2, [40, 39])
    assert found(view, since=105.0, until=106.0) == (2, [6, 5])
    assert found(view, status="failed", since=110.0) == (1, [17])
    assert found(view, status="running", text="nothing") == (0, [])


def test_rows(view: JobView) -> None:
    row = view.row(5)
    assert (row["status"], row["kind"], row["error"], row["retry"]) == (
        "failed",
        "exception",
        "ValueError: rattle",
        True,
    )
    assert (row["added"], row["started"], row["ended"], row["seconds"]) == (90.0, 104.0, 105.0, 1.0)
    assert view.row(41)["seconds"] == 2.5
    assert (view.row(41)["status"], view.row(41)["worker"]) == ("running", 3)
    assert view.row(50)["status"] == "queued"
    assert view.row(50)["text"] == "path='/data/x.csv'"


def test_what_was_too_quick_to_be_seen_has_ended_well() -> None:
    table = JobTable()
    table.note(now(last={0: 1000, CLIENT: (CLIENT << CLIENT_BITS) + 5}))
    view = JobView(table, [range(991, 1001)], [], {})
    assert table.total == 1005
    assert found(view, status="done")[0] == 995
    row = view.row(500)
    assert row["status"] == "done"
    assert "ended" not in row
    assert table.added_at(1001) is None
    assert not table.knows((CLIENT << CLIENT_BITS) + 6)


def test_jobs_that_were_missed_are_filled_in() -> None:
    table = JobTable()
    table.note(now([(51, 50, 95.0)], last={0: 100}))
    assert table.total == 100
    assert [len(ids) for ids in table.ids()] == [100]
    table.note(now([(51, 50, 95.0), (101, 10, 99.0)], last={0: 110}))  # told twice
    assert table.total == 110
    assert [len(ids) for ids in table.ids()] == [10, 100]
    assert table.added_at(105) == 99.0


def test_what_a_client_that_left_had_queued_was_dropped() -> None:
    table = JobTable()
    first = (CLIENT << CLIENT_BITS) + 1
    table.note(now([(first, 3, 90.0)], [ended(first, [0])], {CLIENT: first + 2}))
    table.note(now(last={}))
    view = JobView(table, [], [], {})
    assert [view.status_of(first + at) for at in range(3)] == ["done", "dropped", "dropped"]


def test_the_oldest_times_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_table, "MOST_ENDED", 1000)
    table = JobTable()
    table.note(now([(1, 5000, 90.0)], [ended(first, [0] * 500) for first in range(1, 5001, 500)], {0: 5000}))
    assert table.end_of(4001) is not None
    assert table.end_of(3999) is None
    assert len(table.stretches) == 2


def test_many_additions_are_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_table, "MOST_STRETCHES", 100)
    table = JobTable()
    for n in range(1000):
        table.note(now([(n + 1, 1, 90.0 + n)], last={0: n + 1}))
    assert len(table.added) <= 101
    newest = next(iter(table.ids()))
    assert newest[0] == 1000


def test_a_hundred_thousand_jobs_are_listed_at_once(table: JobTable) -> None:
    """With a margin of ten: a list of them is to be there within a second."""
    table.note(now([(101, 100_000, 95.0)], [ended(n, [0] * 250) for n in range(101, 60_000, 250)], {0: 100_100}))
    view = JobView(table, [range(60_101, 100_101)], [], {})
    began = time.monotonic()
    assert found(view, 0, 200)[0] == 100_100
    assert len(found(view, 30_000, 200, status="done")[1]) == 200
    assert found(view, text="rattle")[0] == 1
    assert time.monotonic() - began < 10


def test_lanes_join_what_is_too_short() -> None:
    drawn = lanes([ended(1, [0] * 1000, each=0.001), ended(2001, [0, EXCEPTION], 150.0, 5.0, worker=1)][::-1], 100, 160)
    assert [span[2:] for span in drawn[1]] == [["2001", "2001", 1, 0, None], ["2002", "2002", 1, 1, "exception"]]
    assert sum(span[4] for span in drawn[0]) == 1000
    assert len(drawn[0]) < 100
    assert drawn[0][0][0] == 100.0
    assert drawn[0][-1][1] == pytest.approx(101.0)


def test_lanes_keep_to_the_window() -> None:
    stretches = [ended(1, [0] * 10)]
    assert [span[2] for span in lanes(stretches, 103.5, 105.5)[0]] == ["4", "5", "6"]
    assert lanes(stretches, 200, 300) == {}


def test_history() -> None:
    history, table = PoolHistory(), JobTable()
    for at in range(5):
        ends = [ended(1 + 10 * at, [0] * 9 + [EXCEPTION], 100.0 + at, 0.1)]
        look = now([(1 + 10 * at, 10, 100.0 + at)], ends, {0: 10 + 10 * at}, 101.0 + at, done=9 * at, failed=at)
        table.note(look)
        history.note(look, table)
    assert history.newest is not None
    point = dict(zip(FIELDS, history.newest, strict=True))
    assert (point["rate"], point["failures"]) == (10.0, 1.0)
    assert point["p50"] == pytest.approx(0.1)
    assert 0.1 <= point["latency50"] <= point["latency95"] == pytest.approx(1.0)

"""What a journal forgets by itself, and what it never does."""

from __future__ import annotations

import logging
import time
from array import array
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JournalError
from bossworker import journal as journals
from bossworker.journal.database import Database
from bossworker.journal.forgetting import STEP_ROWS, Forgetting
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.messages import BLOCK_COUNT, BLOCK_SIZE
from bossworker.pool.wire.segments import single
from tests.conftest import wait_for


def answer(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("seconds"):
        time.sleep(job["seconds"])
    return {"n": job["n"], "data": bytes(job.get("size", 0))}


def ids(journal: Path) -> list[int]:
    return [job.id for job in journals.open(journal).jobs()]


def test_the_oldest_go_at_the_limit_of_the_size(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal, most = tmp_path / "jobs.db", 3_000_000
    with (
        caplog.at_level(logging.INFO, "bossworker"),
        BossWorker(answer, worker_count=1, journal=journal, max_journal_size=most) as pool,
    ):
        for n in range(100):
            pool.add_work({"n": n, "size": 200_000})
            assert pool.get_result()["n"] == n
        wait_for(lambda: pool.stats() and journals.open(journal).size() <= most)
        left = ids(journal)
    assert journal.stat().st_size < 2 * most  # of twenty million bytes
    assert left == list(range(left[0], 101))
    assert len(left) >= 5
    assert any("journal forgot: " in text for text in caplog.messages)
    with pytest.raises(KeyError, match="there is no job 1 "):
        journals.open(journal).result(1)
    with BossWorker(answer, worker_count=1, journal=journal, max_journal_size=most) as pool:
        assert list(pool.add_work({"n": 0})) == [101]


def test_large_results_count_though_they_are_in_files(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(answer, worker_count=1, journal=journal, max_journal_size=10_000_000) as pool:
        for n in range(12):
            pool.add_work({"n": n, "size": 2_000_000})
            pool.get_result()
        wait_for(lambda: pool.stats() and journals.open(journal).size() <= 10_000_000)
        assert 1 <= len(list(tmp_path.glob("jobs.db-files/*"))) <= 5


def test_a_call_of_which_some_results_were_got_gives_room_too(tmp_path: Path) -> None:
    """The row of the jobs stays until the last of them has ended; the results do not."""
    journal = tmp_path / "jobs.db"
    with BossWorker(answer, worker_count=1, journal=journal, max_journal_size=2_000_000) as pool:
        pool.add_work(*[{"n": n, "size": 100_000} for n in range(100)], {"n": 100, "seconds": 2.0})
        assert {pool.get_result()["n"] for _ in range(100)} == set(range(100))
        wait_for(lambda: pool.stats() and journals.open(journal).size() <= 2_000_000)
        counts = journals.open(journal).counts()
        assert (counts["queued"], counts["running"]) in ((0, 1), (1, 0))
        assert 1 <= counts["done"] < 20
        left = ids(journal)
        assert left[-1] == 101
        assert pool.get_result()["n"] == 100
    pool = BossWorker(answer, worker_count=1, journal=journal)
    assert pool.pending() == 0
    pool.shut_down()
    assert journals.open(journal).forget() == len(left)
    assert ids(journal) == []


def test_what_nobody_got_stays_and_a_full_journal_takes_no_more(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(answer, worker_count=1, journal=journal, max_journal_size=1_000_000) as pool:
        pool.add_work(*[{"n": n, "size": 100_000} for n in range(15)])  # results are always taken in
        wait_for(lambda: pool.stats().done == 15)
        for _ in range(2):
            with pytest.raises(JournalError, match=r"did not take the jobs: it is full: .*max_journal_size is 1000000"):
                pool.add_work({"n": 0}, {"n": 1})
        assert pool.pending() == 15
        assert sum("journal full: " in text for text in caplog.messages) == 1
        assert {pool.get_result()["n"] for _ in range(15)} == set(range(15))
        pool.add_work({"n": 15})
        assert pool.get_result()["n"] == 15


def test_a_job_that_has_no_room_at_all(tmp_path: Path) -> None:
    with BossWorker(answer, worker_count=1, journal=tmp_path / "jobs.db", max_journal_size=500_000) as pool:
        for n in range(3):
            pool.add_work({"n": n})
            assert pool.get_result()["n"] == n
        with pytest.raises(JournalError, match=r"the call has 60\d+ bytes, and max_journal_size is 500000: "):
            pool.add_work({"n": 0, "data": b"x" * 600_000})
        pool.add_work({"n": 3})
        assert pool.get_result()["n"] == 3
    assert journals.open(tmp_path / "jobs.db").counts()["done"] == 4


def test_what_is_old_goes_and_what_is_not_got_stays(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(answer, worker_count=1, journal=journal, max_journal_age=0.3) as pool:
        for n in range(3):  # one by one: what comes together is forgotten together
            pool.add_work({"n": n})
            assert pool.get_result()["n"] == n
        pool.add_work({"n": 3}, {"n": 4, "seconds": 0.1})
        # Of those that were got, 3 is told of once the program asks for another.
        wait_for(lambda: pool.stats() and set(ids(journal)) <= {3, 4, 5})
        time.sleep(0.5)
        assert {4, 5} <= set(ids(journal))
        assert [result["n"] for result in pool.results()] == [3, 4]
        wait_for(lambda: pool.stats() and ids(journal) == [])
    pool = BossWorker(answer, worker_count=1, journal=journal)
    assert list(pool.add_work({"n": 0})) == [6]
    pool.shut_down()


def test_a_journal_that_was_left_too_old_is_tidied_by_the_next_owner(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(answer, worker_count=1, journal=journal) as pool:
        pool.add_work(*[{"n": n} for n in range(1000)])
        assert len(list(pool.results())) == 1000
    with BossWorker(answer, worker_count=1, journal=journal, max_journal_age=0.01) as pool:
        wait_for(lambda: journals.open(journal).counts()["done"] == 0)


def test_limits_are_checked(tmp_path: Path) -> None:
    for name in ("max_journal_age", "max_journal_size"):
        with pytest.raises(ValueError, match=f"{name} needs a journal"):
            BossWorker(answer, worker_count=1, **{name: 1})  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=f"{name} must be"):
            BossWorker(answer, worker_count=1, journal=tmp_path / "jobs.db", **{name: -1})  # type: ignore[arg-type]
        BossWorker(answer, worker_count=1, **{name: None}).shut_down()  # type: ignore[arg-type]


# -- the walk through the rows, without a pool -------------------------------------------------------------------------


def stored(path: Path, jobs: int, size: int = 1000) -> Database:
    """A journal in which each job, and each result, is in a row of its own; job n ended at second n."""
    store = Database(str(path))
    with store.transaction:
        for id in range(1, jobs + 1):
            batch = Batch(id, 1, 0, JobOptions(0, 0, 0, 1), array(BLOCK_COUNT, [1]), array(BLOCK_SIZE, [1]), b"j")
            store.jobs.add(batch, 0.0)
            store.results.add(single(id, 1, 1, id - 1.0, float(id), 0, bytes(size)), 0.0)
    return store


def test_rows_are_forgotten_in_steps_and_those_that_are_not_got_are_passed_over(tmp_path: Path) -> None:
    store = stored(tmp_path / "jobs.db", 5 * STEP_ROWS)
    told: list[str] = []
    got = [range(2 * STEP_ROWS, 4 * STEP_ROWS), range(5 * STEP_ROWS, 5 * STEP_ROWS + 1)]
    with store.transaction:
        store.retrieved.add(got)
    forgetting = Forgetting(store, 1.0, 0, lambda level, text: told.append(text))
    for _ in range(10):
        forgetting.look()
    left = {row.first_id for row in store.results.rows()}
    assert left == set(range(1, 5 * STEP_ROWS + 1)) - {id for one in got for id in one}
    assert [row.first_id for row in store.jobs.rows()] == sorted(left)
    assert list(store.retrieved) == list(store.forgotten) == []
    assert forgetting.due() > time.monotonic()
    assert len(told) == 4
    store.close()


def test_a_full_journal_rests_until_more_was_got(tmp_path: Path) -> None:
    store = stored(tmp_path / "jobs.db", 3 * STEP_ROWS)
    forgetting = Forgetting(store, 0, 300_000, lambda level, text: None)

    def rests() -> bool:
        forgetting.look()
        return forgetting.due() > time.monotonic() + 10

    wait_for(rests)
    assert forgetting.refusal(1).startswith("it is full: ")
    assert len(list(store.results.rows())) == 3 * STEP_ROWS
    forgetting.on_got([range(1, 3 * STEP_ROWS + 1)])
    assert forgetting.due() <= time.monotonic() + 1
    assert forgetting.refusal(1) == ""
    left = [row.first_id for row in store.results.rows()]
    assert 50 < len(left) < 200
    assert left == list(range(left[0], 3 * STEP_ROWS + 1))
    store.close()


def test_part_of_a_row_is_forgotten_and_the_rest_stays_as_it_was(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    with BossWorker(answer, worker_count=1, journal=journal) as pool:
        pool.add_work(*[{"n": n} for n in range(100)])
        assert len(list(pool.results())) == 100
    store = Database(str(journal))
    doomed = Ranges([range(10, 30), range(50, 51)])
    with store.transaction:
        store.delete(doomed)
    store.close()
    assert ids(journal) == [id for id in range(1, 101) if id not in doomed]
    told = journals.open(journal)
    assert all(told.result(id)["n"] == told.job(id)["n"] == id - 1 for id in (9, 30, 49, 51, 100))  # type: ignore[index]
    with pytest.raises(KeyError, match="there is no job 10 "):
        told.retry(10)
    assert sum(told.counts().values()) == 79

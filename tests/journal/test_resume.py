"""``resume=True``: what has a good result is not run again; what was left is run once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bossworker import AsyncBossWorker, BossWorker
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_recovery import note, ran


def jobs(log: Path, numbers: range, **more: Any) -> list[dict[str, Any]]:
    return [{"n": n, "log": str(log), **more} for n in numbers]


def test_good_results_come_from_the_journal(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        pool.add_work(*jobs(log, range(4)), resume=True)
        first = {result["n"]: result for result in pool.results()}
    assert not any(result.stored for result in first.values())
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        ids = pool.add_work(*jobs(log, range(2, 6)), resume=True)
        results = {result["n"]: result for result in pool.results()}
    assert {n: result.stored for n, result in results.items()} == {2: True, 3: True, 4: False, 5: False}
    assert sorted(result.job_id for result in results.values()) == list(ids)
    assert results[3].job == jobs(log, range(3, 4))[0]
    assert abs(results[3].finished_at - first[3].finished_at) < 0.1
    assert results[3].attempts == 1
    assert ran(log) == dict.fromkeys(range(6), 1)


def test_map_resumes_too_also_what_was_added_without(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        pool.add_work(*jobs(log, range(150)))
        assert len(list(pool.results())) == 150
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        results = list(pool.map(jobs(log, range(100, 200)), resume=True))
        assert pool.pending() == 0
    assert [(result["n"], result.stored) for result in results] == [(n, n < 150) for n in range(100, 200)]
    assert ran(log) == dict.fromkeys(range(200), 1)


def test_a_failed_job_is_run_again(tmp_path: Path) -> None:
    journal = tmp_path / "jobs.db"
    flag = tmp_path / "flag"

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        if not flag.exists():
            raise ValueError("no flag")
        return {}

    for stored in (False, False, True):
        with BossWorker(handle, worker_count=1, journal=journal) as pool:
            pool.add_work({"a": 1}, resume=True)
            (result,) = pool.results()
        assert (result.ok, result.stored) == (flag.exists(), stored)
        flag.touch() if not result.ok else None


def test_what_an_earlier_owner_left_is_adopted(tmp_path: Path) -> None:
    """The program adds the same jobs each time it starts: each runs once, and has one result."""
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    body = """
        pool = BossWorker(note, worker_count=2, journal=path)
        pool.add_work(*[{"n": n, "log": log, "seconds": 0.02} for n in range(40)], resume=True)
        tell("added")
        for _ in range(5):
            pool.get_result()
        sys.stdin.readline()
    """
    for least in (10, 20, 30):
        program = Program(body, journal, log)
        program.told()
        wait_for(lambda: len(ran(log)) >= least)  # noqa: B023
        program.kill()
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        pool.add_work(*jobs(log, range(40), seconds=0.02), resume=True)
        results = list(pool.results())
    good = [result["n"] for result in results if result.ok]
    again = [result.job["n"] for result in results if not result.ok]
    assert sorted(good) == list(range(40))
    assert all(result.ok or result.error_kind == "interrupted" for result in results)
    assert set(ran(log)) == set(range(40))
    assert sum(ran(log).values()) <= 40 + 3 * 2  # what was interrupted was run again, since it was added again
    assert len(again) <= 3 * 2  # three kills, two workers


def test_resume_needs_a_journal_and_keys(tmp_path: Path) -> None:
    with BossWorker(note, worker_count=1) as pool, pytest.raises(ValueError, match="resume needs a journal"):
        pool.add_work({}, resume=True)
    with BossWorker(note, worker_count=1, journal=tmp_path / "jobs.db") as pool:
        with pytest.raises(TypeError, match=r"job 1 has no job_key.*job\['f'\]"):
            pool.add_work({}, {"f": object()}, resume=True)
        assert pool.pending() == 0


def test_what_is_got_after_the_end_counts(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        pool.add_work(*jobs(log, range(3)))
    assert pool.get_result() is not None
    with BossWorker(note, worker_count=1, journal=journal) as other:
        assert [result["n"] for result in other.results()] == [0, 1, 2]  # nobody knew of that one yet
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        pool.add_work(*jobs(log, range(3)))
    assert len(list(pool.results())) == 3
    assert all(job.retrieved for job in journals.open(journal).jobs())
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        assert pool.pending() == 0


async def _run(pool: AsyncBossWorker[Any, Any], log: Path, numbers: range) -> list[int]:
    results = []
    async with pool:
        results.append((await pool.run({"n": -1, "log": str(log)}))["n"])
        async for result in pool.map(jobs(log, numbers)):
            results.append(result["n"])
    return results


def test_on_an_event_loop(tmp_path: Path) -> None:
    import asyncio

    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    pool = AsyncBossWorker(note, worker_count=2, journal=journal)
    assert asyncio.run(_run(pool, log, range(200))) == [-1, *range(200)]
    assert journals.open(journal).counts()["done"] == 201
    assert ran(log) == dict.fromkeys(range(-1, 200), 1)

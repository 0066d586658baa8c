"""Whoever is killed, each job of a journal gets one result; what never started runs, what may have run is reported."""

from __future__ import annotations

import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bossworker import INTERRUPTED, BossWorker
from tests.conftest import wait_for
from tests.journal.programs import Program


def note(job: dict[str, Any]) -> dict[str, Any]:
    with open(job["log"], "a") as file:
        file.write(f"{job['n']}\n")
    return {"n": job["n"]}


def ran(log: Path) -> Counter[int]:
    """How often each job has run."""
    return Counter(map(int, log.read_text().split())) if log.exists() else Counter()


MANY = """
    pool = BossWorker(note, worker_count=2, journal=path)
    pool.add_work(*[{"n": n, "log": log, "seconds": 0.005} for n in range(120)])
    tell([pool.get_result()["n"] for _ in range(10)])
    sys.stdin.readline()
"""


@pytest.mark.parametrize(
    "victims", [(), ("program",), ("boss",), ("scribe",), ("fork server",), ("boss", "fork server"), ("scribe", "boss")]
)
def test_all_jobs_have_one_result_whoever_is_killed(tmp_path: Path, victims: tuple[str, ...]) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = Program(MANY, journal, log)
    got = program.told()
    wait_for(lambda: len(ran(log)) > 30)
    program.kill(*victims)
    if "program" not in victims and victims:
        program.kill("program")
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        results = list(pool.results())
    interrupted = {result.job["n"] for result in results if result.error_kind == "interrupted"}
    assert all(result.ok or result.error == INTERRUPTED for result in results)
    assert all(result["n"] == result.job["n"] for result in results if result.ok)
    assert len({result.job_id for result in results}) == len(results)
    assert {result.job["n"] for result in results} | set(got) == set(range(120))
    assert len(results) <= 120  # what the program has got just now may come again
    counts = ran(log)
    assert max(counts.values()) == 1, "a job ran twice"
    assert set(range(120)) - set(counts) <= interrupted
    assert len(interrupted) <= 2  # what ran: one job a worker


def test_what_never_started_runs_and_what_ran_is_interrupted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = Program(
        """
        pool = BossWorker(note, worker_count=1, journal=path)
        pool.add_work({"n": 0, "log": log, "seconds": 60}, *[{"n": n, "log": log} for n in range(1, 9)])
        tell("added")
        sys.stdin.readline()
        """,
        journal,
        log,
    )
    program.told()
    wait_for(lambda: ran(log)[0])
    program.kill()
    with caplog.at_level(logging.INFO, "bossworker"), BossWorker(note, worker_count=1, journal=journal) as pool:
        assert pool.pending() == 9
        results = {result["n"] if result.ok else 0: result for result in pool.results()}
    assert "recovered 9 jobs: 8 never started, 1 interrupted" in caplog.messages
    assert (results[0].error, results[0].error_kind, results[0].attempts) == (INTERRUPTED, "interrupted", 1)
    assert results[0].job == {"n": 0, "log": str(log), "seconds": 60}
    assert sorted(results) == list(range(9))
    assert ran(log) == Counter(range(9))


def test_rerun_counts_as_an_attempt(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    body = """
        pool = BossWorker(note, worker_count=1, journal=path, interrupted="rerun")
        if len(sys.argv) and not pool.pending():
            pool.add_work({"n": 0, "log": log, "seconds": 60})
        tell("added")
        sys.stdin.readline()
    """
    for runs in (1, 2):
        program = Program(body, journal, log)
        program.told()
        wait_for(lambda: ran(log)[0] == runs)  # noqa: B023
        program.kill()
    with (
        caplog.at_level(logging.INFO, "bossworker"),
        BossWorker(lambda job: {"n": "again"}, worker_count=1, journal=journal, interrupted="rerun") as pool,
    ):
        (result,) = pool.results()
    assert "recovered 1 jobs: 0 never started, 1 run again" in caplog.messages
    assert (result, result.attempts) == ({"n": "again"}, 3)


def test_a_result_that_nobody_got_is_handed_out_by_the_next_owner(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = Program(
        """
        pool = BossWorker(note, worker_count=1, journal=path)
        pool.add_work(*[{"n": n, "log": log} for n in range(3)])
        while pool.stats().done < 3:
            pass
        for _ in range(2):
            result = pool.get_result()
            time.sleep(0.5)  # at work on it; meanwhile it is written down what came before
        tell(result)
        sys.stdin.readline()
        """,
        journal,
        log,
    )
    assert program.told() == {"n": 1}
    program.kill()
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        assert [result["n"] for result in pool.results()] == [1, 2]  # 1 was the one that it was busy with
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        assert pool.pending() == 0
    assert ran(log) == Counter(range(3))


def test_leaving_by_force_leaves_what_is_queued(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    pool = BossWorker(note, worker_count=1, journal=journal)
    pool.pause()
    ids = list(pool.add_work(*[{"n": n, "log": str(log)} for n in range(5)]))
    pool.shut_down(force=True)
    assert pool.pending() == 0
    with BossWorker(note, worker_count=1, journal=journal) as again:
        results = list(again.results())
        assert [result.job_id for result in results] == ids
        assert list(again.add_work({"n": 5, "log": str(log)})) == [6]
    assert ran(log) == Counter(range(6))


def test_priorities_timeouts_and_retries_survive(tmp_path: Path) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    pool = BossWorker(note, worker_count=1, journal=journal)
    pool.pause()
    pool.add_work({"n": 0, "log": str(log)}, priority=-1)
    pool.add_work({"die": True}, retries=2)
    pool.add_work({"sleep": True}, timeout=0.1, priority=5)
    pool.shut_down(force=True)

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        import time

        if "die" in job:
            os._exit(3)
        if "sleep" in job:
            time.sleep(60)
        return {}

    with BossWorker(handle, worker_count=1, journal=journal) as again:
        results = list(again.results())
    assert [(result.job_id, result.error_kind, result.attempts) for result in results] == [
        (3, "timeout", 1),
        (2, "crash", 3),
        (1, None, 1),
    ]

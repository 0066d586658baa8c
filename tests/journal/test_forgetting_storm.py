"""As ``test_storm.py``, with limits that have the journal forget all the time, and with payloads in files."""

from __future__ import annotations

import random
import sqlite3
import time
from collections import defaultdict
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker import journal as journals
from tests.journal.programs import Program
from tests.journal.test_recovery import note, ran

ROUND = """
    from bossworker import JournalError
    def handle(job):
        return {**note(job), "data": bytes([job["n"] % 256]) * len(job["data"])}
    sent = Path(path).with_suffix(".sent")
    got = Path(path).with_suffix(".got")
    pool = BossWorker(handle, worker_count=2, journal=path, max_journal_size=9_000_000, max_journal_age=0.1)
    tell("up")
    n = int(sys.stdin.readline())
    while True:
        some = range(n, n + 5)
        jobs = [{"n": n, "log": log, "data": bytes([n % 256]) * (1_100_000 if n % 5 == 3 else 3000)} for n in some]
        result = None
        try:
            pool.add_work(*jobs)
        except JournalError:  # it is full of what was not got
            result = pool.get_result()
        else:
            with open(sent, "a") as file:
                file.write("".join(f"{n}\\n" for n in some))
            n += 5
        while result is not None or (result := pool.get_result_nb()) is not None:
            assert not result.ok or result["data"] == result.job["data"]
            with open(got, "a") as file:
                file.write(f"{result.job['n']} {result.error_kind}\\n")
            result = None
"""
VICTIMS = ("program", "boss", "scribe", "fork server", "worker")


def handle(job: dict[str, Any]) -> dict[str, Any]:
    return {**note(job), "data": bytes([job["n"] % 256]) * len(job["data"])}


@pytest.mark.timeout(1800)  # of 200 rounds
def test_nothing_is_lost_that_was_not_got(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    rounds = 200 if request.config.getoption("--long") else 6
    chance = random.Random(3)
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    for number in range(rounds):
        program = Program(ROUND, journal, log)
        program.begin_at(number * 100_000)
        time.sleep(chance.uniform(0.1, 0.5))
        victims = chance.choice([(), *((victim,) for victim in VICTIMS), chance.sample(VICTIMS, 2)])
        program.kill_in_turn(victims, chance.uniform(0.0, 0.02))
        _check_files(journal)
    _check_results(journal, log)


def _check_files(journal: Path) -> None:
    """There is a file, as long as it should be, for each row that refers to one, and no other."""
    journals.open(journal).counts()
    with closing(sqlite3.connect(journal)) as db:
        known = dict(db.execute("SELECT name, bytes FROM files").fetchall())
    there = {file.name: file.stat().st_size for file in journal.with_name("jobs.db-files").glob("*")}
    assert there == known


def _check_results(journal: Path, log: Path) -> None:
    with BossWorker(handle, worker_count=2, journal=journal) as pool:
        last = list(pool.results())
    got: dict[int, set[str]] = defaultdict(set)
    for result in last:
        assert not result.ok or result["data"] == result.job["data"]
        got[result.job["n"]].add(str(result.error_kind))
    told = journal.with_suffix(".got")
    for line in told.read_text().splitlines() if told.exists() else ():
        n, kind = line.split()
        got[int(n)].add(kind)
    accepted = {int(n) for n in journal.with_suffix(".sent").read_text().split()}
    assert accepted <= got.keys(), "a job was forgotten whose result nobody got"
    assert {kind for kinds in got.values() for kind in kinds} <= {"None", "interrupted", "crash"}
    assert all(len(kinds) == 1 for kinds in got.values()), "a job has two different results"
    assert max(ran(log).values()) == 1
    assert sum(journals.open(journal).counts().values()) < len(got) + 1
    assert journals.open(journal).forget() >= len(last)
    assert list(journal.with_name("jobs.db-files").glob("*")) == []

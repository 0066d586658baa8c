"""SIGKILL at random points, again and again, on one journal: each job ends, none runs twice unasked, none is lost."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_recovery import note, ran

ROUND = """
    sent = Path(path).with_suffix(".sent")
    got = Path(path).with_suffix(".got")
    pool = BossWorker(note, worker_count=3, journal=path, retries=1)
    tell("up")
    n = int(sys.stdin.readline())
    while True:
        some = range(n, n + 7)
        pool.add_work(*[{"n": n, "log": log, "seconds": 0.001} for n in some])
        with open(sent, "a") as file:
            file.write("".join(f"{n}\\n" for n in some))
        n += 7
        while (result := pool.get_result_nb()) is not None:
            with open(got, "a") as file:
                own = not result.ok or result["n"] == result.job["n"]
                file.write(f"{result.job['n']} {result.error_kind if own else 'another'}\\n")
"""
WORKERS = 3
VICTIMS = ("program", "boss", "scribe", "fork server", "worker")


@pytest.mark.timeout(1800)  # of 200 rounds
@pytest.mark.parametrize("seed", [1])
def test_kills_at_random_points(tmp_path: Path, seed: int, request: pytest.FixtureRequest) -> None:
    rounds = 200 if request.config.getoption("--long") else 6
    chance = random.Random(seed)
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    for number in range(rounds):
        program = Program(ROUND, journal, log)
        program.begin_at(number * 100_000)
        time.sleep(chance.uniform(0.0, 0.15))
        choices = [(), *((victim,) for victim in VICTIMS), tuple(chance.sample(VICTIMS, 2))]
        victims = choices[number] if number < len(choices) else chance.choice(choices)  # first, each of them once
        program.kill_in_turn(victims, chance.uniform(0.0, 0.02))
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        results = list(pool.results())
    assert all(result["n"] == result.job["n"] for result in results if result.ok)
    _check(journal, log, [(result.job["n"], result.error_kind) for result in results], rounds)


def _check(journal: Path, log: Path, last: Sequence[tuple[int, str | None]], rounds: int) -> None:
    accepted = [int(n) for n in journal.with_suffix(".sent").read_text().split()]
    got: dict[int, set[str]] = {n: {str(kind)} for n, kind in last}
    told = journal.with_suffix(".got")
    for line in told.read_text().splitlines() if told.exists() else ():
        n, kind = line.split()
        got.setdefault(int(n), set()).add(kind)
    assert set(accepted) <= set(got), "a job was lost"
    assert all(len(kinds) == 1 for kinds in got.values()), "a job has two different results"
    kinds = {n: kind for n, (kind,) in got.items()}
    assert set(kinds.values()) <= {"None", "interrupted", "crash"}
    # A job a worker; and one for each worker that was killed before the program was, since a crash is tried once more.
    assert list(kinds.values()).count("interrupted") <= 2 * WORKERS * rounds
    often = ran(log)
    # What was interrupted is not run again; a crash of its worker alone is tried once more (retries=1).
    assert max(often.values(), default=0) <= 2
    assert all(often[n] for n, kind in kinds.items() if kind == "None"), "a result without a run"
    counts = journals.open(journal).counts()
    assert (counts["queued"], counts["running"]) == (0, 0)
    assert sum(counts.values()) == len(kinds)
    jobs: list[Any] = list(journals.open(journal).jobs())
    assert len({job.id for job in jobs}) == len(jobs)
    wait_for(lambda: all(job.retrieved for job in journals.open(journal).jobs()))

"""What may be passed to the boss, and that it is although nobody says anything more."""

from __future__ import annotations

from array import array
from collections import Counter
from pathlib import Path
from typing import Any

from bossworker import BossWorker
from bossworker.journal.client_table import FIRST_OF_CLIENTS
from bossworker.journal.job_lanes import Lanes, Piece
from bossworker.pool.wire.batch import Batch, JobOptions


def piece(first_id: int, jobs: int) -> Piece:
    block = b"x" * jobs
    return Piece(
        1, 0, Batch(first_id, jobs, 0, JobOptions(0, 0.0, 0, 1), array("I", [jobs]), array("Q", [jobs]), block)
    )


def test_there_is_room_again_once_a_window_is_done() -> None:
    lanes = Lanes(workers=1)
    lanes.add(piece(1, 1000))
    taken = lanes.take(0.0)
    assert sum(one.batch.count for one in taken) == lanes.least
    assert not lanes.has_room()
    lanes.on_done(range(1, 1 + lanes.least), 0.01)
    assert lanes.has_room()
    while lanes.jobs:
        taken = lanes.take(0.02)
        for one in taken:
            lanes.on_done(one.batch.ids, 0.02)
    assert not lanes.has_room()


def test_whoever_adds_one_job_does_not_wait_for_a_million_of_another() -> None:
    """The boss has clients take turns, but only among the jobs that it was passed."""
    lanes = Lanes(workers=1)
    client = FIRST_OF_CLIENTS + 1
    lanes.add(piece(client, 1_000_000))
    (taken,) = lanes.take(0.0)
    assert taken.batch.ids == range(client, client + lanes.least)
    lanes.add(piece(1, 1))
    lanes.add(piece(2, 100))
    lanes.on_done(range(client, client + 2), 1.0)
    assert [one.batch.first_id for one in lanes.take(1.0)] == [client + lanes.least, 1]
    lanes.on_done(range(client, client + lanes.least), 2.0)
    assert [one.client for one in lanes.take(2.0)] == [FIRST_OF_CLIENTS >> 40, 0]


def test_turns_are_as_long_for_all() -> None:
    lanes = Lanes(workers=25)
    clients = [0, *((FIRST_OF_CLIENTS >> 40) + n for n in range(3))]
    for client in clients:
        lanes.add(piece((client << 40) + 1, 10 if client == 0 else 1000))
    taken = lanes.take(0.0)
    jobs = Counter[int]()
    for one in taken:
        jobs[one.client] += one.batch.count
    assert [jobs[client] for client in clients] == [10, 25 + 15, 25, 25]
    lanes.on_done(range(clients[1] << 40, clients[2] << 40), 0.5)
    assert [(one.client, one.batch.count) for one in lanes.take(0.5)] == [
        (clients[2], 13),
        (clients[3], 13),
        (clients[1], 13),
        (clients[2], 1),
    ]


def test_what_was_not_passed_on_after_all_is_the_next_again() -> None:
    lanes = Lanes(workers=1)
    lanes.add(piece(1, 10))
    lanes.add(piece(FIRST_OF_CLIENTS + 1, 10))
    taken = lanes.take(0.0)
    lanes.put_back(taken)
    assert lanes.jobs == 20
    assert lanes.passed == 0
    assert sorted(one.batch.first_id for one in lanes.take(0.0)) == [1, FIRST_OF_CLIENTS + 1]


def double(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"]}


def test_jobs_go_on_with_a_program_that_says_nothing(tmp_path: Path) -> None:
    """Windows that are done at once must not wait until the program gets the next result."""
    for turn in range(5):
        with BossWorker(double, worker_count=1, journal=tmp_path / f"{turn}.db") as pool:
            pool._connection.on_given_out = lambda: None  # type: ignore[method-assign]
            pool.add_work(*[{"n": n} for n in range(500)])
            assert len({result["n"] for result in pool.results()}) == 500

"""What may be passed to the boss, and that it is although nobody says anything more."""

from __future__ import annotations

from array import array
from pathlib import Path
from typing import Any

from bossworker import BossWorker
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


def double(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"]}


def test_jobs_go_on_with_a_program_that_says_nothing(tmp_path: Path) -> None:
    """Windows that are done at once must not wait until the program gets the next result."""
    for turn in range(5):
        with BossWorker(double, worker_count=1, journal=tmp_path / f"{turn}.db") as pool:
            pool._connection.on_given_out = lambda: None  # type: ignore[method-assign]
            pool.add_work(*[{"n": n} for n in range(500)])
            assert len({result["n"] for result in pool.results()}) == 500

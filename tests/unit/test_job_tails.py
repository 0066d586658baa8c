"""What is kept of the lines that jobs write."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from bossworker.pool.boss import job_tails
from bossworker.pool.boss.job_tails import JobTails


class Pool:
    """Stands for the ledger and the recorders: workers that run a job each."""

    def __init__(self) -> None:
        self.running: list[int] = []

    def busy(self) -> list[Any]:
        return [SimpleNamespace(slot=at, batch=SimpleNamespace(first_id=job)) for at, job in enumerate(self.running)]

    def __getitem__(self, slot: int) -> Any:
        return SimpleNamespace(snapshot=lambda: SimpleNamespace(running=True, claimed=1))


@pytest.fixture
def pool() -> Pool:
    return Pool()


@pytest.fixture
def tails(pool: Pool) -> JobTails:
    return JobTails(cast("Any", pool), cast("Any", pool))


def write(tails: JobTails, job_id: int, *lines: str) -> None:
    for number, line in enumerate(lines):
        tails.add(job_id, 1, float(number), line)


def texts(tails: JobTails, job_id: int, since: int = 0) -> tuple[int, list[str], int]:
    told = cast("dict[str, Any]", tails.after(job_id, since))
    return told["first"], [text for _, _, text in told["lines"]], told["next"]


def test_lines_are_told_from_a_number_on(tails: JobTails) -> None:
    write(tails, 7, "a", "b", "c")
    write(tails, 8, "of another")
    assert texts(tails, 7) == (0, ["a", "b", "c"], 3)
    assert texts(tails, 7, 2) == (2, ["c"], 3)
    assert texts(tails, 7, 3) == (3, [], 3)
    assert texts(tails, 7, -1) == (3, [], 3)
    assert texts(tails, 9) == (0, [], 0)
    assert tails.after(8, 0)["lines"] == [(1, 0.0, "of another")]


def test_of_a_job_the_last_are_kept(tails: JobTails, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_tails, "TAIL_CHARS", 3 * (job_tails.LINE_CHARS + 10))
    write(tails, 7, *(f"{number:010}" for number in range(10)))
    assert texts(tails, 7) == (7, ["0000000007", "0000000008", "0000000009"], 10)
    assert texts(tails, 7, 9) == (9, ["0000000009"], 10)
    write(tails, 7, "x" * 1000)  # longer than all that is kept of a job
    assert texts(tails, 7) == (11, [], 11)


def test_a_long_line_is_cut(tails: JobTails) -> None:
    write(tails, 7, "x" * 100_000)
    assert texts(tails, 7) == (0, ["x" * job_tails.LONGEST_LINE], 1)


def test_jobs_that_have_ended_are_forgotten_the_first_first(
    tails: JobTails, pool: Pool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_tails, "MOST_TAILS", 10)
    pool.running = [1]
    for job_id in range(1, 12):
        write(tails, job_id, f"of {job_id}")
    assert texts(tails, 1) == (0, ["of 1"], 1)  # it runs
    assert [job_id for job_id in range(1, 12) if texts(tails, job_id)[2]] == [1, 8, 9, 10, 11]
    assert texts(tails, 2, 1) == (0, [], 0)  # and whoever has read of it is told to begin anew
    write(tails, 2, "again")
    assert texts(tails, 2, 5) == (0, ["again"], 1)


def test_of_very_many_that_run_less_is_kept(tails: JobTails, pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    line = job_tails.LINE_CHARS + 10
    monkeypatch.setattr(job_tails, "MOST_CHARS", 20 * line)
    pool.running = list(range(1, 6))
    for number in range(10):
        for job_id in pool.running:
            write(tails, job_id, f"{number:010}")
    kept = [len(texts(tails, job_id)[1]) for job_id in pool.running]
    assert sum(kept) <= 20
    assert all(texts(tails, job_id)[1][-1:] == ["0000000009"] for job_id in pool.running)
    assert all(texts(tails, job_id)[2] == 10 for job_id in pool.running)

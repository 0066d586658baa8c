"""A disk that is full: nothing of a call is taken, whoever asks is answered, and a kill meanwhile loses nothing."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JournalError
from bossworker import journal as journals
from bossworker.journal import file_check
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_files import disk, fill
from tests.journal.test_recovery import note, ran

__all__ = ["disk"]
LARGE = "x" * 300_000


def refuse(pool: BossWorker, *jobs: dict[str, Any], **options: Any) -> None:
    with pytest.raises(JournalError, match=r"did not take the jobs: .*full"):
        pool.add_work(*jobs, **options)


@pytest.mark.parametrize("resume", [False, True])
def test_nothing_of_a_refused_call_is_taken_and_the_next_one_is(disk: Path, tmp_path: Path, resume: bool) -> None:
    journal, log = disk / "jobs.db", str(tmp_path / "log")
    jobs = [{"n": n, "log": log, "more": LARGE} for n in range(4)]
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        pool.add_work({"n": 9, "log": log})
        assert pool.get_result() is not None
        ballast = fill(disk)
        refuse(pool, *jobs, resume=resume)
        assert (pool.pending(), pool.stats().queued) == (0, 0)
        assert sum(journals.open(journal).counts().values()) == 1
        ballast.unlink()
        pool.add_work(*jobs, resume=resume)
        assert sorted(result["n"] for result in pool.results()) == [0, 1, 2, 3]
    assert ran(Path(log)) == Counter([0, 1, 2, 3, 9])
    assert journals.open(journal).counts()["done"] == 5


def test_calls_of_many_threads_are_all_refused_or_taken_whole(disk: Path, tmp_path: Path) -> None:
    journal, log = disk / "jobs.db", str(tmp_path / "log")
    taken: list[int] = []
    refused: list[int] = []

    def add(pool: BossWorker, first: int) -> None:
        for n in range(first, first + 10, 2):
            try:
                pool.add_work(*[{"n": one, "log": log, "more": LARGE[:30_000]} for one in (n, n + 1)])
                taken.append(n)
            except JournalError:
                refused.append(n)
                ballast.unlink(missing_ok=True)  # from now on there is room

    with BossWorker(note, worker_count=2, journal=journal) as pool:
        ballast = fill(disk)
        threads = [threading.Thread(target=add, args=(pool, first)) for first in range(0, 40, 10)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        results = Counter(result["n"] for result in pool.results())
    assert refused
    assert sorted(taken + refused) == list(range(0, 40, 2))
    assert results == Counter([one for n in taken for one in (n, n + 1)])
    assert ran(Path(log)) == results
    assert journals.open(journal).counts()["done"] == len(results)


def test_whoever_asks_is_answered_and_the_running_job_goes_on(
    disk: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    journal, log, gate = disk / "jobs.db", tmp_path / "log", tmp_path / "gate"

    def handle(job: dict[str, Any]) -> dict[str, Any]:
        note({**job, "log": str(log)})
        while job["n"] == 0 and not gate.exists():
            time.sleep(0.005)
        return {"n": job["n"], "data": bytes(50_000)}

    with BossWorker(handle, worker_count=1, journal=journal) as pool:
        ids = pool.add_work(*[{"n": n} for n in range(30)])
        wait_for(lambda: ran(log)[0])
        ballast = fill(disk)
        assert pool.cancel(ids[29], ids[28]) == 2  # of jobs that the scribe has, and whose end finds no room
        assert pool.cancel(ids[1]) == 1  # of one that the boss has
        gate.touch()
        wait_for(lambda: any("waits for room" in text for text in caplog.messages) or pool.stats() is None)
        refuse(pool, {"n": 99, "more": LARGE})
        pool.pause()
        assert pool.stats().paused
        assert pool.get_result_nb() is None
        assert pool.pending() == 30
        pool.resume()
        ballast.unlink()
        kinds = Counter(result.error_kind for result in pool.results())
    assert kinds == Counter({None: 27, "cancelled": 3})
    assert set(ran(log)) == set(range(30)) - {1, 28, 29}
    counts = journals.open(journal).counts()
    assert (counts["done"], counts["cancelled"]) == (27, 3)


def test_a_log_that_cannot_be_read_for_want_of_room_is_no_damage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To read the log of a killed owner takes a file of shared memory; all that there is may be in the log."""
    journal = tmp_path / "jobs.db"
    program = Program(
        """
        pool = BossWorker(note, worker_count=1, journal=path)
        pool.pause()
        pool.add_work(*[{"n": n, "log": log} for n in range(5)])
        tell("added")
        sys.stdin.readline()
        """,
        journal,
        tmp_path / "log",
    )
    program.told()
    program.kill()
    look_by = file_check._look_by

    def without_room(path: str, mode: str) -> None:
        if mode == "mode=ro":
            raise sqlite3.OperationalError("unable to open database file")
        look_by(path, mode)

    monkeypatch.setattr(file_check, "_look_by", without_room)
    assert journals.open(journal).counts()["queued"] == 5


@pytest.mark.parametrize("victims", [(), ("scribe",), ("program",)])
def test_what_waits_for_room_is_not_lost_when_it_is_killed(
    disk: Path, tmp_path: Path, victims: tuple[str, ...]
) -> None:
    journal, log, gate = disk / "jobs.db", tmp_path / "log", tmp_path / "gate"
    program = Program(
        """
        def handle(job):
            while not os.path.exists(job["gate"]):
                time.sleep(0.005)
            return {**note(job), "data": bytes(40_000)}

        pool = BossWorker(handle, worker_count=1, journal=path)
        gate = sys.stdin.readline().strip()
        pool.add_work(*[{"n": n, "log": log, "gate": gate} for n in range(20)])
        tell("added")
        sys.stdin.readline()
        """,
        journal,
        log,
    )
    assert program.process.stdin is not None
    program.process.stdin.write(f"{gate}\n")
    program.process.stdin.flush()
    program.told()
    ballast = fill(disk)
    gate.touch()
    wait_for(lambda: len(ran(log)) >= 3)
    program.kill(*victims)
    if "program" not in victims and victims:
        program.kill("program")
    ballast.unlink()
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        results = list(pool.results())
    assert sorted(result.job["n"] for result in results) == list(range(20))
    assert all(result["n"] == result.job["n"] for result in results if result.ok)
    assert sum(not result.ok for result in results) <= 1  # worker
    assert set(ran(log).values()) == {1}

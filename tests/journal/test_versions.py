"""Journals of earlier and later versions, and damaged ones: taken over, or left as they are, to the byte."""

from __future__ import annotations

import gzip
import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JournalError
from bossworker import journal as journals
from bossworker.journal import schema
from tests.journal.programs import Program

RECORDED = Path(__file__).with_name("version_1.db.gz")
"""Made by the last revision that wrote version 1: jobs 1 to 8 are done and got (5 and 6 have keys, the result of 7 has
two million bytes), 9 has failed and 10 is done, not got, 11 was interrupted, 12 to 14 are queued (13 has 1.5 million
bytes, 14 has options), and 15 is a retry of 9."""


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.db"
    path.write_bytes(gzip.decompress(RECORDED.read_bytes()))
    return path


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        (version,) = db.execute("PRAGMA user_version").fetchone()
    return int(version)


def work(job: dict[str, Any]) -> dict[str, Any]:
    return {"ran": job["n"], "data": len(job.get("data", b""))}


def test_version_1_is_taken_over(recorded: Path) -> None:
    assert version_of(recorded) == 1
    journal = journals.open(recorded)
    assert version_of(recorded) == schema.VERSION
    states = {job.id: (job.status, job.retrieved, job.retry_of) for job in journal.jobs()}
    assert states == {
        **dict.fromkeys(range(1, 9), ("done", True, None)),
        9: ("failed", False, None),
        10: ("done", False, None),
        11: ("interrupted", False, None),
        **dict.fromkeys(range(12, 15), ("queued", False, None)),
        15: ("queued", False, 9),
    }
    large = journal.result(7)
    assert large is not None
    assert (large["twice"], large["data"]) == (12, bytes(2_000_000))


def test_an_owner_goes_on_with_it(recorded: Path) -> None:
    with BossWorker(work, worker_count=1, journal=recorded) as pool:
        pool.add_work({"n": 4}, {"n": 100}, resume=True)
        results = {result.job["n"]: result for result in pool.results()}
    kinds = {n: result.error_kind for n, result in results.items()}
    # 8 failed before, and its retry was good: either may be the last to come.
    assert kinds | {8: None} == {4: None, 8: None, 9: None, 10: "interrupted", **dict.fromkeys((11, 12, 13, 100))}
    assert (results[4].stored, results[9].stored, results[12].stored) == (True, True, False)
    assert results[12]["data"] == 1_500_000
    assert journals.open(recorded).forget() == 15 + 1


def test_the_oldest_of_it_can_be_forgotten(recorded: Path) -> None:
    """When each row ended was not noted in version 1."""
    assert journals.open(recorded).forget(older_than=0) == 8
    with closing(sqlite3.connect(recorded)) as db:
        (ends,) = db.execute("SELECT count(*) FROM ended JOIN results USING (first_id)").fetchone()
        assert ends == db.execute("SELECT count(*) FROM results").fetchone()[0] == 2


def test_whoever_is_killed_while_it_becomes_the_next_version_leaves_the_earlier(recorded: Path) -> None:
    program = Program(
        """
        from bossworker.journal import database, schema
        def last_step(db):
            tell("migrated")
            sys.stdin.readline()
        schema._STEPS += (last_step,)
        database.Database(path)
        """,
        recorded,
        recorded.with_name("log"),
    )
    assert program.told() == "migrated"
    program.kill()
    assert version_of(recorded) == 1
    assert journals.open(recorded).counts()["queued"] == 4


# -- what cannot be used -----------------------------------------------------------------------------------------------


def _later(path: Path) -> None:
    """A later version has written to its log, and was killed."""
    _run_and_kill(path, "PRAGMA user_version = 99")


def _damaged(path: Path) -> None:
    _run_and_kill(path, "PRAGMA user_version = 2")
    data = bytearray(path.read_bytes())
    data[4096:] = os.urandom(len(data) - 4096)
    path.write_bytes(data)


def _later_without_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")


def _run_and_kill(path: Path, statement: str) -> None:
    program = Program(
        f"""
        import sqlite3
        with BossWorker(note, worker_count=1, journal=path) as pool:
            pool.add_work(*[{{"n": n, "log": log}} for n in range(2000)])
            for _ in pool.results():
                pass
        db = sqlite3.connect(path, isolation_level=None)
        db.execute("PRAGMA locking_mode=EXCLUSIVE")
        db.execute({statement!r})
        tell("written")
        sys.stdin.readline()
        """,
        path,
        path.parent.parent / "log",
    )
    assert program.told() == "written"
    program.kill()
    assert path.with_name("jobs.db-wal").stat().st_size


@pytest.mark.parametrize(
    ("harm", "words"),
    [(_later, "its version is 99"), (_later_without_log, "its version is 99"), (_damaged, "damaged|malformed")],
)
def test_what_cannot_be_used_is_left_with_its_log(tmp_path: Path, harm: Callable[[Path], None], words: str) -> None:
    folder = tmp_path / "journal"
    folder.mkdir()
    path = folder / "jobs.db"
    if harm is _later_without_log:
        path.write_bytes(gzip.decompress(RECORDED.read_bytes()))
    harm(path)
    before = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-lock")}
    for use in (lambda: BossWorker(work, worker_count=1, journal=path), lambda: journals.open(path)):
        with pytest.raises(JournalError, match=words):
            use()
    after = {file.name: file.read_bytes() for file in folder.iterdir() if not file.name.endswith("-lock")}
    assert after == before


def test_damage_that_is_found_later_is_told(tmp_path: Path) -> None:
    """A large database is not looked through when it is opened."""
    path = tmp_path / "jobs.db"
    with BossWorker(work, worker_count=1, journal=path) as pool:
        pool.add_work(*[{"n": n, "data": os.urandom(500_000)} for n in range(150)])
        assert len(list(pool.results())) == 150
    size = path.stat().st_size
    assert size > 1 << 26
    with open(path, "r+b") as file:
        for at in range(1 << 22, size, 4096 * 16):
            file.seek(at)
            file.write(os.urandom(4096))
    with pytest.raises(JournalError, match=r"cannot be used \(.*malformed"):
        list(map(journals.open(path).job, range(1, 151)))


def test_names_that_mean_something_in_an_address(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/50%25 of?mode=rw#\xff.db")
    for total in (1, 2):
        with BossWorker(work, worker_count=1, journal=f"/{path}") as pool:
            pool.add_work({"n": 0})
            assert pool.get_result().ok
        assert journals.open(path).counts()["done"] == total

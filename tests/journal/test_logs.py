"""The log of an owner that was killed: cut off, removed or damaged, that is told, and nothing is touched."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, JournalError
from bossworker import journal as journals
from tests.journal.programs import Program

CALLS = 12
BODY = f"""
    pool = BossWorker(note, worker_count=1, journal=path)
    pool.pause()
    for n in range({CALLS}):
        pool.add_work({{"n": n, "log": log}})
    tell("added")
    sys.stdin.readline()
"""


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """A journal of which each call is in the log, whose owner was killed."""
    folder = tmp_path / "journal"
    folder.mkdir()
    program = Program(BODY, folder / "jobs.db", tmp_path / "log")
    assert program.told() == "added"
    program.kill()
    return folder / "jobs.db"


def log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-wal")


def flights_of(path: Path) -> Path:
    return path.with_name(f"{path.name}-flight")


def commits_in(log: bytes) -> list[int]:
    """Where the frames are that end a commit."""
    (page,) = struct.unpack_from(">I", log, 8)
    frames = range(32, len(log), 24 + page)
    return [at for at in frames if struct.unpack_from(">I", log, at + 4)[0] and log[at + 8 : at + 16] == log[16:24]]


def flip(log: Path, at: int) -> None:
    data = bytearray(log.read_bytes())
    data[at] ^= 4
    log.write_bytes(data)


def remove(log: Path) -> None:
    log.unlink()


def empty(log: Path) -> None:
    log.write_bytes(b"")


def cut_off(log: Path) -> None:
    data = log.read_bytes()
    log.write_bytes(data[: commits_in(data)[-2] + 100])


def damage_the_header(log: Path) -> None:
    flip(log, 9)


def damage_the_middle(log: Path) -> None:
    flip(log, commits_in(log.read_bytes())[CALLS // 2] + 500)


def damage_the_last(log: Path) -> None:
    flip(log, commits_in(log.read_bytes())[-1] + 500)


def refused(path: Path, words: str) -> None:
    before = contents(path.parent)
    for use in (lambda: BossWorker(work, worker_count=1, journal=path), lambda: journals.open(path)):
        for _ in range(2):
            with pytest.raises(JournalError, match=words):
                use()
    assert contents(path.parent) == before


def contents(folder: Path) -> dict[str, bytes]:
    files = [file for file in folder.iterdir() if file.is_file() and not file.name.endswith("-lock")]
    return {file.name: file.read_bytes() for file in files}


def work(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"]}


def ended(path: Path) -> list[int]:
    """Which jobs the next owner has results of: they ran, or were interrupted."""
    with BossWorker(work, worker_count=1, journal=path) as pool:
        return sorted(result.job["n"] for result in pool.results())


def test_what_nobody_has_harmed_goes_on(left: Path) -> None:
    assert len(commits_in(log_of(left).read_bytes())) >= CALLS
    assert journals.open(left).counts()["queued"] == CALLS
    assert ended(left) == list(range(CALLS))


@pytest.mark.parametrize(
    "harm",
    [remove, empty, cut_off, damage_the_header, damage_the_middle, damage_the_last],
    ids=lambda one: one.__name__,
)
def test_what_is_missing_is_told(left: Path, harm: Callable[[Path], None]) -> None:
    harm(log_of(left))
    refused(left, r"its last \d+ commits are missing|its write-ahead log is damaged")


def test_there_is_a_way_on_with_what_is_left(left: Path) -> None:
    cut_off(log_of(left))
    refused(left, f"whoever removes {flights_of(left)} goes on with what is left")
    flights_of(left).unlink()
    assert ended(left) == list(range(CALLS - 2))


def test_damage_in_the_middle_is_told_after_a_power_cut_too(left: Path) -> None:
    flights_of(left).unlink()
    damage_the_middle(log_of(left))
    refused(left, "its write-ahead log is damaged, and what is behind that place would be lost")


def test_what_a_power_cut_leaves_of_a_commit_is_no_damage(left: Path) -> None:
    """Its end is on the disk, and what is before that is not. It was under way: nobody was told that it was done."""
    flights_of(left).unlink()
    data = log_of(left).read_bytes()
    *_, before, last = commits_in(data)
    (page,) = struct.unpack_from(">I", data, 8)
    log_of(left).write_bytes(data[: before + 24 + page] + bytes(24 + page) + data[before + 2 * (24 + page) :])
    assert last > before + 24 + page
    assert ended(left) == list(range(CALLS - 1))
    assert ended(left) == []


def test_a_log_holds_what_one_owner_has_written(left: Path) -> None:
    """Else what a power cut has left of a commit might be taken for damage later."""
    salts = log_of(left).read_bytes()[16:24]
    program = Program(BODY, left, left.parent.parent / "log")
    assert program.told() == "added"
    program.kill()
    data = log_of(left).read_bytes()
    assert data[16:24] != salts
    assert len(commits_in(data)) >= CALLS
    assert sum(journals.open(left).counts().values()) == 2 * CALLS


def test_a_copy_from_before_is_no_damage(left: Path, tmp_path: Path) -> None:
    """Somebody puts back a backup of another session: there is nothing in it that is missing."""
    backup = left.read_bytes()
    with BossWorker(work, worker_count=1, journal=left) as pool:
        pool.add_work({"n": -1})
    program = Program(BODY, left, tmp_path / "log")
    assert program.told() == "added"
    program.kill()
    left.write_bytes(backup)
    log_of(left).unlink()
    assert ended(left) == []

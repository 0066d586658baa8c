"""The table in docs/guarantees.md, row by row: who dies, and what becomes of jobs queued, running, done and got."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_power_cut import shim
from tests.journal.test_recovery import note, ran

__all__ = ["shim"]

DOCS = Path(__file__).parents[2] / "docs" / "guarantees.md"
WHO = {
    "the boss dies": ("boss",),
    "the scribe dies": ("scribe",),
    "the fork server dies": ("fork server",),
    "your program dies": ("program",),
    "all of them die at once": (),
    "the machine dies": (),
}
GOT, DONE, RUNNING, QUEUED = 0, 1, 2, 3  # the jobs; from QUEUED on, ten of them
BODY = """
    def handle(job):
        if job["n"] == 2 and job["end"] != "sleep":
            note(job)
            if job["end"] == "raise":
                raise ValueError("on purpose")
            os.kill(os.getpid(), 9)
        return note(job)

    end = sys.stdin.readline().strip()
    job = lambda n, seconds=0: {"n": n, "log": log, "end": end, "seconds": seconds * (end == "sleep")}
    pool = BossWorker(handle, worker_count=1, journal=path)
    pool.add_work(job(0))
    pool.get_result()
    pool.add_work(job(1))
    while pool.stats().done < 2:
        time.sleep(0.001)
    pool.add_work(job(2, 60), *map(job, range(3, 13)))
    from bossworker import journal
    while not any(one.retrieved for one in journal.open(path).jobs()):
        time.sleep(0.01)
    tell("ready")
    sys.stdin.readline()
    tell([[result.job["n"], result.error_kind] for result in pool.results()])
    sys.stdin.readline()
"""


def rows() -> dict[str, list[str]]:
    """The table: what happens, and what becomes of a job in each state."""
    lines = [line.strip("| \n").split(" | ") for line in DOCS.read_text().splitlines() if line.startswith("| ")]
    start = lines.index(["what happens", "queued", "running", "done", "got"])
    return {line[0]: line[1:] for line in lines[start + 2 : start + 10]}


def test_the_table_has_all_rows() -> None:
    assert {"the handler raises", "a worker dies", *WHO} == rows().keys()


@pytest.mark.parametrize("row", ["the handler raises", "a worker dies"])
def test_what_the_pool_survives(tmp_path: Path, row: str) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = Program(BODY, journal, log)
    _say(program, "raise" if row == "the handler raises" else "die")
    assert program.told() == "ready"
    _say(program, "go on")
    results = dict(program.told())
    program.kill()
    queued, running, done, got = rows()[row]
    assert (queued, done, got) == ("runs", "handed out", "never again")
    assert results == {DONE: None, RUNNING: running.strip("`"), **dict.fromkeys(range(QUEUED, QUEUED + 10))}
    assert set(ran(log).values()) == {1}


@pytest.mark.parametrize("row", WHO)
def test_what_the_next_owner_finds(tmp_path: Path, row: str, request: pytest.FixtureRequest) -> None:
    disk, log = tmp_path / "disk", tmp_path / "log"
    disk.mkdir()
    journal, variables = disk / "jobs.db", {}
    if row == "the machine dies":
        copy = tmp_path / "copy"
        copy.mkdir()
        library = request.getfixturevalue("shim")
        variables = {"LD_PRELOAD": str(library), "CUT_FROM": str(disk), "CUT_TO": str(copy)}
    program = Program(BODY, journal, log, variables)
    _say(program, "sleep")
    assert program.told() == "ready"
    wait_for(lambda: ran(log)[RUNNING])
    program.kill(*WHO[row])
    if program.process.poll() is None:
        program.kill("program")
    results = _of_next_owner(copy / "jobs.db" if variables else journal)
    queued, running, done, got = rows()[row]
    assert (queued.startswith("runs, with the next owner"), done, got) == (True, "handed out", "never again")
    assert GOT not in results
    assert results[DONE] is None
    assert results[RUNNING] == running.strip("`")
    kinds = [results[n] for n in range(QUEUED, QUEUED + 10)]
    with_the_boss = 3 if "(1)" in queued else 0  # beside the one that runs
    assert kinds[with_the_boss:] == [None] * (10 - with_the_boss)
    assert set(kinds[:with_the_boss]) <= {None, "interrupted"}
    assert max(ran(log).values()) == 1


def _of_next_owner(journal: Path) -> dict[int, Any]:
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        results = list(pool.results())
    assert len({result.job_id for result in results}) == len(results)
    return {result.job["n"]: result.error_kind for result in results}


def _say(program: Program, line: str) -> None:
    assert program.process.stdin is not None
    program.process.stdin.write(f"{line}\n")
    program.process.stdin.flush()

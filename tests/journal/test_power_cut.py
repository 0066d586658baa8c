"""The power goes: what was synced is there, and nothing else; the flight recorders mean nothing.

What this cannot show: parts of what was written and not synced (SQLite's checksums are to see to that), a disk that
says that it has synced and has not, and whether a folder's entries were.
"""

from __future__ import annotations

import random
import shutil
import subprocess
import time
from pathlib import Path

import pytest

from bossworker import BossWorker
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.journal.programs import Program
from tests.journal.test_recovery import note, ran

SOURCE = Path(__file__).with_name("power_cut.c")
LOAD = """
    got = Path(path).parent.parent / "got"
    accepted = Path(path).parent.parent / "accepted"
    pool = BossWorker(note, worker_count=2, journal=path)
    tell("up")
    n = 0
    while True:
        pool.add_work(*[{"n": n, "log": log, "seconds": 0.002} for n in range(n, n + 5)])
        with open(accepted, "a") as file:
            file.write("".join(f"{n}\\n" for n in range(n, n + 5)))
        n += 5
        while (result := pool.get_result_nb()) is not None:
            with open(got, "a") as file:
                file.write(f"{result.job['n']}\\n")
"""


@pytest.fixture(scope="module")
def shim(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The library that keeps what was synced."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("no C compiler")
    library = tmp_path_factory.mktemp("shim") / "power_cut.so"
    made = subprocess.run(
        [compiler, "-shared", "-fPIC", "-O1", "-o", library, SOURCE, "-ldl"], capture_output=True, check=False
    )
    if made.returncode:
        pytest.skip(f"the shim does not compile here: {made.stderr.decode()[:200]}")
    return library


def numbers(path: Path) -> list[int]:
    return [int(line) for line in path.read_text().split()] if path.exists() else []


@pytest.mark.timeout(1800)  # of 100 cuts
def test_what_was_accepted_is_there_and_what_ran_is_not_run_again(
    tmp_path: Path, shim: Path, request: pytest.FixtureRequest
) -> None:
    chance = random.Random(2)
    for cut in range(100 if request.config.getoption("--long") else 2):
        place = tmp_path / str(cut)
        disk, copy, log = place / "disk", place / "copy", place / "log"
        disk.mkdir(parents=True)
        copy.mkdir()
        cuts = {"LD_PRELOAD": str(shim), "CUT_FROM": str(disk), "CUT_TO": str(copy)}
        program = Program(LOAD, disk / "jobs.db", log, cuts)
        assert program.told() == "up"
        wait_for(lambda log=log: len(ran(log)) > 10)  # type: ignore[misc]
        time.sleep(chance.uniform(0.0, 0.2))
        program.kill()
        _check_what_is_left(copy / "jobs.db", place, log)


def _check_what_is_left(journal: Path, place: Path, log: Path) -> None:
    before = ran(log)
    assert not list(journal.parent.glob("*-flight"))
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        results = {result.job["n"]: result for result in pool.results()}
    accepted, got = numbers(place / "accepted"), set(numbers(place / "got"))
    assert set(accepted) <= set(results) | got, "a job that was accepted is gone"
    after = ran(log)
    assert max(after.values()) == 1, "what may have run was run again"
    interrupted = {n for n, result in results.items() if result.error_kind == "interrupted"}
    assert interrupted.isdisjoint(after.keys() - before.keys())
    assert not (interrupted & got), "a result was handed out that was not on the disk"
    assert (
        len(interrupted) <= 64
    )  # the window of two workers with jobs of 2 ms: it doubles while it lasts less than 50 ms
    assert all(n in after for n, result in results.items() if result.ok)
    assert journals.open(journal).counts()["queued"] == 0


def test_only_what_was_passed_on_is_interrupted(tmp_path: Path, shim: Path) -> None:
    """A thousand jobs wait behind two that run: they never started, and that is known without any recorder."""
    disk, copy, log = tmp_path / "disk", tmp_path / "copy", tmp_path / "log"
    disk.mkdir()
    copy.mkdir()
    program = Program(
        """
        pool = BossWorker(note, worker_count=2, journal=path)
        pool.add_work(*[{"n": n, "log": log, "seconds": 60 * (n < 2)} for n in range(1000)])
        tell("added")
        sys.stdin.readline()
        """,
        disk / "jobs.db",
        log,
        {"LD_PRELOAD": str(shim), "CUT_FROM": str(disk), "CUT_TO": str(copy)},
    )
    program.told()
    wait_for(lambda: len(ran(log)) >= 2)
    program.kill()
    with BossWorker(note, worker_count=2, journal=copy / "jobs.db") as pool:
        kinds = [result.error_kind for result in pool.results()]
    assert len(kinds) == 1000
    assert 2 <= kinds.count("interrupted") <= 8
    assert kinds.count(None) == 1000 - kinds.count("interrupted")

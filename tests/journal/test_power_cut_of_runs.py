"""The power goes while ``bossworker run --journal`` runs: what was synced is there, and the cells mean nothing.

What the shim cannot show is in ``test_power_cut.py``.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from bossworker import JournalError
from bossworker import journal as journals
from bossworker.system import processes
from tests.conftest import wait_for
from tests.journal.test_logs import commits_in, flip, log_of
from tests.journal.test_power_cut import shim
from tests.journal.test_recovery import ran

__all__ = ["shim"]

COMMANDS = 300


def command(journal: Path, joblog: Path) -> list[str]:
    """A line of its own to a log, from each command."""
    options = ["-j2", "--quiet", "--journal", str(journal), "--joblog", str(joblog)]
    script = "echo {} >> ../ran; sleep 0.01"
    return [sys.executable, "-m", "bossworker", "run", *options, "-c", script, ":::", *map(str, range(COMMANDS))]


def run_until_the_power_goes(place: Path, shim: Path, chance: random.Random) -> None:
    cuts = {"LD_PRELOAD": str(shim), "CUT_FROM": str(place / "disk"), "CUT_TO": str(place / "copy")}
    program = subprocess.Popen(
        command(place / "disk" / "j", place / "log before"),
        cwd=place / "here",
        env={**os.environ, **cuts},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )
    wait_for(lambda: len(ran(place / "ran")) > 20)
    time.sleep(chance.uniform(0.0, 0.3))
    kill_all(program)


def kill_all(program: subprocess.Popen[bytes]) -> None:
    """The run, its host and what it runs, at once."""
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in (program.pid, *processes.descendants(program.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)
    program.wait()


def exit_values(joblog: Path) -> dict[int, str]:
    fields = [line.split("\t") for line in joblog.read_text().splitlines()[1:]]
    return {int(field[8].split()[1]): field[6] for field in fields}


def test_a_damaged_log_is_told_and_left(tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    journal = tmp_path / "j"
    program = subprocess.Popen(command(journal, tmp_path / "log"), cwd=tmp_path / "here", stdout=subprocess.DEVNULL)
    wait_for(lambda: len(ran(tmp_path / "ran")) > 40)
    kill_all(program)
    log = log_of(journal)
    flip(log, commits_in(log.read_bytes())[3] + 300)
    before = journal.read_bytes(), log.read_bytes()
    with pytest.raises(JournalError, match="its write-ahead log is damaged"):
        journals.open(journal)
    again = subprocess.run(
        command(journal, tmp_path / "log"), cwd=tmp_path / "here", capture_output=True, text=True, check=False
    )
    assert again.returncode == 255
    assert "its write-ahead log is damaged, and what is behind that place would be lost" in again.stderr
    assert (journal.read_bytes(), log.read_bytes()) == before


@pytest.mark.timeout(900)  # of 50 cuts
def test_what_may_have_run_is_told_and_the_rest_runs(tmp_path: Path, shim: Path, long: bool) -> None:
    chance = random.Random(4)
    for cut in range(50 if long else 1):
        place = tmp_path / str(cut)
        for name in ("disk", "copy", "here"):
            (place / name).mkdir(parents=True)
        run_until_the_power_goes(place, shim, chance)
        before = ran(place / "ran")
        journal = place / "copy" / "j"
        assert not list(journal.parent.glob("*-cells"))
        again = subprocess.run(command(journal, place / "log"), cwd=place / "here", capture_output=True, check=False)
        after, values = ran(place / "ran"), exit_values(place / "log")
        assert values.keys() == set(range(COMMANDS)), "a command is neither run nor told of"
        interrupted = {n for n, value in values.items() if value == "-1"}
        assert max(after.values()) == 1, "what may have run was run again"
        assert set(values.values()) <= {"0", "-1"}
        assert all(after[n] for n, value in values.items() if value == "0")
        assert interrupted.isdisjoint(after.keys() - before.keys())
        assert again.returncode == min(len(interrupted), 101)
        assert len(interrupted) <= 100  # given ahead: as many as end in 0.2 s
        counts = journals.open(journal).counts()
        assert (counts["done"], counts["interrupted"]) == (COMMANDS - len(interrupted), len(interrupted))

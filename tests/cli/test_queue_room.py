"""`add` and `group` where the disk is full: what is told, and that nothing is lost that was accepted."""

from __future__ import annotations

from pathlib import Path

import pytest

from bossworker import jobs
from bossworker.cli import queue_files
from tests.cli.conftest import Cli
from tests.cli.test_queue import Add, add, groups_leave, process_of
from tests.conftest import wait_for
from tests.journal.test_files import disk, fill

__all__ = ["add", "disk", "groups_leave"]
WAY_OUT = "No space left on device; make room, or have BOSSWORKER_ROOT name another folder\n"
OFTEN = "from bossworker.cli import spooler; spooler.ROOM_SECONDS = 0.05; "


@pytest.fixture
def root(disk: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for job directories, on a small disk."""
    monkeypatch.setenv("BOSSWORKER_ROOT", str(disk / "jobs"))
    return disk / "jobs"


def test_what_is_full_is_named_and_what_was_accepted_stays(cli: Cli, add: Add, root: Path, disk: Path) -> None:
    assert cli("group", "default", "--pause").status == 0
    accepted = [add("true"), add("true")]
    ballast = fill(disk)
    before = sorted(root.rglob("*"))
    queue = root / ".queue" / "default"
    assert cli("add", "true") == (1, "", f"bossworker add: no command can be kept in {queue}: {WAY_OUT}")
    told = f"bossworker group: no setting can be kept in {queue}: {WAY_OUT}"
    assert cli("group", "default", "--slots", "2") == (1, "", told)
    assert cli("start", "true") == (1, "", f"bossworker start: no job can be kept in {root}: {WAY_OUT}")
    assert f"waits for room in {root}: the disk is full" in cli("wait", "last", "--timeout", "0").err
    assert sorted(root.rglob("*")) == before
    ballast.unlink()
    assert cli("group", "default", "--resume").status == 0
    assert cli("wait", *accepted).status == 0


def test_a_disk_that_fills_up_loses_and_fails_nothing(
    cli: Cli, add: Add, root: Path, disk: Path, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What runs goes on; what has no room for its job directory waits for it, as does what never starts."""
    old = "from bossworker.cli.spooler"
    monkeypatch.setattr(queue_files, "_PROGRAM", queue_files._PROGRAM.replace(old, f"{OFTEN}{old}"))
    runs = add("sh", "-c", "touch begun; until test -e go; do sleep 0.01; done; echo 0 >> ran")
    queued = [add("sh", "-c", f"echo {number} >> ran") for number in (1, 2, 3)]
    fails = add("false")
    never = add("--after", fails, "sh", "-c", "echo never >> ran")
    wait_for((here / "begun").exists)
    process = process_of(queue_files.QueueFolder("default"))
    ballast = fill(disk)
    (here / "go").touch()
    assert cli("wait", runs).status == 0
    wait_for(lambda: "the disk is full" in cli("show", queued[0]).out)
    ballast.unlink()
    assert cli("wait", *queued).status == 0
    why = f"{fails[-20:-12]}, which it comes after, has failed (exit code 1)"
    assert cli("wait", never).err == f"job {never}: not started: {why}\n"
    assert sorted((here / "ran").read_text().split()) == ["0", "1", "2", "3"]
    assert sorted(jobs.listing()) == sorted([runs, *queued, fails, never])
    assert process_of(queue_files.QueueFolder("default")) == process

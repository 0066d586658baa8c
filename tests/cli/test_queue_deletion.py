"""``group GROUP --delete``: a group goes once nothing of it is left to do, and nothing that is added to it is lost."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from bossworker.cli.queue_files import QueueFolder
from tests.cli.conftest import Cli, start_program
from tests.cli.test_detached_jobs import objects
from tests.cli.test_queue import Add, add, groups_leave, process_of

__all__ = ["add", "groups_leave"]  # fixtures


def test_a_group_is_deleted_once_it_has_nothing_to_do(cli: Cli, add: Add, here: Path) -> None:
    folder = QueueFolder("night")
    cli("group", "night", "--slots", "3")
    jobid = add("-g", "night", "sh", "-c", "until test -e go; do sleep 0.01; done")
    said = cli("group", "night", "--delete")
    assert said.status == 1
    assert said.err == (
        "bossworker group: group night: commands that have not ended: 1; wait for them, or end them first "
        "(bossworker ps -g night)\n"
    )
    (here / "go").touch()
    assert cli("wait", jobid).status == 0
    assert process_of(folder) is not None  # it would stay for ten seconds
    assert objects(cli("group", "night", "--delete", "--json").out) == [{"group": "night", "deleted": True}]
    assert not Path(folder.path).exists()
    assert cli("group").out == ""
    (told,) = objects(cli("ps", "--json").out)  # its job stays
    assert (told["id"], told["status"]) == (jobid, "completed")
    assert cli("retry", jobid).status == 0  # and can be queued once more: the group is made anew
    (told,) = objects(cli("group", "--json").out)
    assert (told["group"], told["slots"]) == ("night", 1)


def test_a_group_that_is_paused_keeps_what_was_queued(cli: Cli, add: Add) -> None:
    cli("group", "night", "--pause")
    jobid = add("-g", "night", "true")
    assert cli("group", "night", "--delete").status == 1
    cli("group", "night", "--resume")
    assert cli("wait", jobid).status == 0
    cli("group", "night", "--pause")
    assert tuple(cli("group", "night", "--delete")) == (0, "", "")


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (["nope", "--delete"], 125, "there is no group nope; bossworker group lists them"),
        (["nope"], 125, "there is no group nope; bossworker group lists them"),
        (["--delete"], 2, "GROUP is missing"),
        (["night", "--delete", "--slots", "2"], 2, "--slots: not allowed with --delete"),
        (["night", "--delete", "--pause"], 2, "--pause: not allowed with argument --delete"),
    ],
)
def test_what_makes_no_sense(cli: Cli, argv: list[str], status: int, told: str) -> None:
    said = cli("group", *argv)
    assert (said.status, said.out, told in said.err) == (status, "", True), said.err


def test_a_group_is_deleted_as_a_whole(cli: Cli, add: Add, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also by somebody who is killed meanwhile."""
    jobid = add("-g", "night", "touch", "ran")
    assert cli("wait", jobid).status == 0
    with monkeypatch.context() as patched:
        patched.setattr("shutil.rmtree", killed)
        with pytest.raises(SystemExit):
            QueueFolder("night").delete()
    assert cli("group").out == ""
    assert cli("wait", add("-g", "night", "true")).status == 0
    assert cli("group", "night", "--delete").status == 0
    assert os.listdir(Path(QueueFolder("night").path).parent) == [".lock"]


def killed(*_: object) -> None:
    raise SystemExit


def test_whoever_adds_starts_the_process_though_it_is_killed(
    cli: Cli, add: Add, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it begins, when it is still the shell that starts it."""
    run = subprocess.run
    ends = iter([-9, 2])

    def shot(*args: Any, **options: Any) -> Any:
        how = next(ends, None)
        return run(*args, **options) if how is None else subprocess.CompletedProcess(args, how)

    monkeypatch.setattr(subprocess, "run", shot)
    assert cli("wait", add("touch", "ran")).status == 0
    assert (here / "ran").exists()


def test_what_is_added_while_its_group_is_deleted_runs(root: Path, here: Path, cli: Cli) -> None:
    """Whichever comes first."""
    adding = []
    for number in range(8):
        adding.append(start_program("add", "--json", "touch", f"ran{number}"))
        cli("group", "default", "--delete")
    ids = []
    for program in adding:
        out, err = program.communicate(timeout=120)
        assert (program.returncode, err) == (0, "")
        ids.append(json.loads(out)["id"])
    assert cli("wait", *ids).status == 0
    assert len(list(here.glob("ran*"))) == len(adding)

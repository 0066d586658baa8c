"""`add` and `group` where what is on the disk is not what they have left there: nothing else suffers by it."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from bossworker.cli import queue_files
from bossworker.cli.queue_files import MOST_SLOTS, GroupSettings, QueueFolder
from bossworker.pool.options import MAX_WORKERS
from tests.cli.conftest import Cli
from tests.cli.test_detached_jobs import objects
from tests.cli.test_queue import Add, add, groups_leave

__all__ = ["add", "groups_leave"]


def changed(request: dict[str, Any]) -> list[bytes]:
    """What may be found in the place of a request."""
    wrong: list[object] = [[], {}, None, 5, "x", {**request, "id": "../../x"}, {**request, "command": {}}]
    wrong += [{**request, name: "x"} for name in ("after", "not_before", "priority", "environment", "created")]
    wrong += [{**request, "not_before": float("nan")}, {**request, "command": {**request["command"], "cmd": []}}]
    return [*(json.dumps(one).encode() for one in wrong), b"", b"\xff", json.dumps(request).encode()[:-9]]


def test_a_command_whose_file_is_damaged_is_told_of_and_others_run(cli: Cli, add: Add, here: Path) -> None:
    assert cli("group", "default", "--pause").status == 0
    folder = QueueFolder("default")
    request = folder.request(add("touch", "ran"))
    assert request is not None
    assert "damaged" not in request
    files = changed(request)
    ids = [add("touch", "ran") for _ in files]
    for jobid, data in zip(ids, files, strict=True):
        (Path(folder.path) / "waiting" / f"{jobid}.json").write_bytes(data)
    good = add("true")
    assert [one["status"] for one in objects(cli("ps", "--json").out)] == ["queued"] * (len(ids) + 2)
    assert cli("clean", request["id"]).status == 0
    assert cli("group", "default", "--resume").status == 0
    assert cli("wait", good).status == 0
    for jobid in ids:
        assert cli("wait", jobid) == (1, "", f"job {jobid}: not started: what was kept of it is damaged\n")
    assert not (here / "ran").exists()
    assert folder.waiting_ids() == []


@pytest.mark.parametrize("data", ["", "[]", '{"slots": "x"}', '{"slots": 0}', '{"slots": 99999}', '{"paused": "no"}'])
def test_settings_that_are_damaged_are_as_if_nobody_had_set_any(root: Path, data: str) -> None:
    folder = QueueFolder("default")
    folder.settings = GroupSettings(slots=3)
    assert folder.settings.slots == 3
    (Path(folder.path) / "settings.json").write_text(data)
    assert folder.settings == GroupSettings()
    assert MOST_SLOTS == MAX_WORKERS


def test_what_cannot_be_seen_to_is_seen_all_the_same(cli: Cli, add: Add, root: Path) -> None:
    """A file among the folders of groups; and a group whose process cannot be started."""
    ended = add("true")
    assert cli("wait", ended).status == 0
    (root / ".queue" / "stray").write_text("")
    assert cli("group", "other", "--pause").status == 0
    waits = add("-g", "other", "true")
    os.mkdir(root / ".queue" / "other" / "lock")
    assert [line.split()[0] for line in cli("group").out.splitlines()] == ["GROUP", "default", "other"]
    QueueFolder("other").settings = GroupSettings()
    said = cli("ps", "--json")
    assert (said.status, said.err) == (0, "")
    assert [one["id"] for one in objects(said.out)] == [ended, waits]
    assert "Is a directory" in objects(cli("show", "--json", waits).out)[0]["reason"]
    assert cli("log", ended).status == 0
    said = cli("group")
    assert (said.status, said.out.splitlines()[2].split()) == (1, ["other", "1", "0", "1", "open"])
    assert "bossworker group: other: [Errno 21] Is a directory" in said.err
    assert cli("wait", waits).status == 1
    os.rmdir(root / ".queue" / "other" / "lock")
    assert cli("wait", waits).status == 0


def test_a_process_that_cannot_start_is_given_up_soon(
    cli: Cli, add: Add, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What could not be done has not been done: the command still waits."""
    monkeypatch.setattr(queue_files, "START_SECONDS", 1e6)
    assert cli("group", "default", "--pause").status == 0
    waits = add("true")
    (root / ".queue" / "default" / "jobs.db").write_text("this is no database, however long one reads in it")
    for command, out in (("kill", ""), ("clean", "0 deleted\n")):
        said = cli(command, waits)
        assert (said.status, said.out) == (1, out)
        assert "the process of group default does not start: " in said.err
        assert "it is no SQLite database" in said.err
        assert cli("show", waits).status == 0
    os.unlink(root / ".queue" / "default" / "jobs.db")
    assert cli("clean", waits).out == "1 deleted\n"


def test_the_root_may_be_relative(cli: Cli, add: Add, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOSSWORKER_ROOT", "kept")
    jobid = add("-c", "echo $BOSSWORKER_ROOT; pwd")
    assert cli("wait", jobid, "--timeout", "60").status == 0
    assert cli("log", jobid).out == f"kept\n{here}\n"
    assert (here / "kept" / jobid).is_dir()

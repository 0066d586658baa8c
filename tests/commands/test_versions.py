"""What happens when versions meet, as docs/reference/compatibility.md says. (Doors: tests/door/test_strangers.py.)"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bossworker import jobs
from bossworker.commands.supervision import orders
from bossworker.tasks import TaskGone, TaskPool
from bossworker.tasks.wire import protocol


@pytest.mark.parametrize("name", ["job.json", "status.json"])
def test_fields_of_a_later_version_are_left_alone(root: Path, name: str) -> None:
    job = jobs.start(["true"])
    jobs.wait(job)
    path = root / job / name
    path.write_text(json.dumps(json.loads(path.read_text()) | {"of a later version": [1]}))
    told = jobs.info(job)
    assert told
    assert (jobs.status(job), told.exit_code) == ("completed", 0)
    assert "of a later version" in jobs.get_configuration(job)[0]


def test_a_launcher_of_another_version_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is started from the files that are there now, by a program that has loaded those that were there before."""
    monkeypatch.setattr(orders, "VERSION", 99)
    with pytest.raises(OSError, match=r"speaks version \d+, this program 99: .*; restart the program"):
        jobs.start(["true"])
    assert jobs.listing() == []


def test_the_task_of_another_version_is_told_of_by_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = TaskPool(tmp_path / "tasks", mkdir_if_missing=True)
    spawned = pool.spawn(cmd="echo said; sleep 60")
    try:
        assert next(spawned.stream("stdout").follow()) == b"said\n"
        with monkeypatch.context() as later:
            later.setattr(protocol, "MARK", b"bwt9")
            (task,) = pool.search()
            assert task.info()["status"]["state"] == "running"
            assert task.stream("stdout").read() == b"said\n"
            with pytest.raises(TaskGone, match="or of another version"):
                task.kill("TERM")
    finally:
        spawned.delete()

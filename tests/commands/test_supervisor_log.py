"""``supervisor.log`` in the directory of a job or a task: what was out of the ordinary."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from bossworker import jobs
from bossworker.tasks import TaskPool
from tests.conftest import wait_for

pytestmark = pytest.mark.usefixtures("root")


def lines(folder: Path | str) -> list[str]:
    """Without times and pids."""
    text = (Path(folder) / "supervisor.log").read_text()
    assert all(re.match(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ ", line) for line in text.splitlines())
    return [re.sub(r" pid=\d+", "", line.partition(" ")[2]) for line in text.splitlines()]


def directory(jobid: str) -> Path:
    folder = jobs.working_dir(jobid)
    assert folder is not None
    return Path(folder).parent


def test_a_plain_job_has_none() -> None:
    jobid = jobs.start(["true"])
    jobs.wait(jobid, 20)
    assert not (directory(jobid) / "supervisor.log").exists()


def test_a_job_whose_time_is_up() -> None:
    jobid = jobs.start(["sleep", "30"], timeout=0.1)
    jobs.wait(jobid, 20)
    assert lines(directory(jobid)) == [
        "WARNING ending: reason='timed out after 0.1 seconds' grace=2.0",
        "INFO ended: state='terminated by request' exit_code=None signal=15",
    ]
    mode = (directory(jobid) / "supervisor.log").stat().st_mode
    assert not mode & (stat.S_IRWXG | stat.S_IRWXO)


def test_a_job_that_cannot_be_started() -> None:
    jobid = jobs.start(["/nowhere/at/all"])
    jobs.wait(jobid, 20)
    (line,) = lines(directory(jobid))
    assert line.startswith("WARNING not started: reason=")
    assert "/nowhere/at/all" in line


def test_a_task_that_is_started_again(tmp_path: Path) -> None:
    pool = TaskPool(tmp_path / "tasks", mkdir_if_missing=True)
    task = pool.spawn(["false"], restart="on-failure", restart_limit=2, restart_backoff=0.01)
    folder = tmp_path / "tasks" / task.id
    wait_for(lambda: (folder / "supervisor.log").exists() and len(lines(folder)) >= 4)
    assert lines(folder)[:4] == [
        "WARNING to be started again: delay=0.01 state='terminated by error' exit_code=1",
        "INFO started again: starts=2",
        "INFO ended: state='terminated by error' exit_code=1 signal=None",
        "WARNING to be started again: delay=0.02 state='terminated by error' exit_code=1",
    ]
    task.delete()
    assert not folder.exists()

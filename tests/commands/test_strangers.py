"""Folders of other users: nothing in them is trusted, and what cannot be deleted is told."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from bossworker import CommandHandler, jobs, run_command
from bossworker.commands import jobdir
from bossworker.jobs import Status
from bossworker.system import identity
from tests.commands.privileges import NOBODY, make_sudo, need_root, nobodys_folder, python_as_nobody
from tests.conftest import alive

pytestmark = pytest.mark.usefixtures("root")


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A root that somebody else has made."""
    need_root()
    return nobodys_folder(tmp_path / "foreign")


def test_a_root_of_another_user_is_refused(foreign: Path) -> None:
    told = f"root must be a folder of yours; it is another user's \\(uid {NOBODY}\\)"
    with pytest.raises(PermissionError, match=told):
        jobs.start(["true"], root=foreign)
    with pytest.raises(PermissionError, match=told):
        CommandHandler(root=foreign)({"cmd": ["true"]})
    assert os.listdir(foreign) == []


def forge(folder: Path, jobid: str, pid: int) -> None:
    """What a stranger writes who wants us to end a process of ours."""
    (folder / jobid / "files").mkdir(parents=True)
    (folder / jobid / "files" / "made").touch()
    me = identity.of(pid)
    (folder / jobid / "job.json").write_text(json.dumps({"format": 1, "argv": ["x"], "created": 1.0}))
    (folder / jobid / "status.json").write_text(
        json.dumps({"state": "running", "supervisor": me, "command": me, "started": 1.0})
    )
    (folder / jobid / "stdout").write_text("forged")


def hand_over(path: Path) -> None:
    for one in (path, *path.rglob("*")):
        os.chown(one, NOBODY, NOBODY)


@pytest.mark.parametrize("whose", ["root", "job"])
def test_a_forged_job_ends_nobody(root: Path, foreign: Path, whose: str) -> None:
    jobid = jobdir.new_id()
    root.mkdir(parents=True)
    folder = foreign if whose == "root" else root
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as daemon:
        forge(folder, jobid, daemon.pid)
        hand_over(folder / jobid)
        assert jobs.status(jobid, root=folder) is Status.UNKNOWN
        assert jobs.info(jobid, root=folder) is None
        assert jobs.stdout(jobid, root=folder) == ""
        assert jobs.result_list(jobid, root=folder) == []
        assert jobs.signal(jobid, root=folder) is False
        assert jobs.clean(jobid, root=folder) == 0
        assert jobs.clean(older_than=0, root=folder) == jobs.clean(status="unknown", root=folder) == 0
        assert jobs.listing(folder) == ([] if whose == "root" else [jobid])
        assert alive(daemon.pid)
        assert (folder / jobid / "files" / "made").exists()
        daemon.kill()


def test_the_command_runs_in_its_own_folder_though_the_path_leads_elsewhere(root: Path, tmp_path: Path) -> None:
    """As somebody does who may write where the root lies: the path is followed once."""
    (tmp_path / "trap").mkdir()
    root.mkdir(parents=True)
    real = jobdir.create_at

    def swapped(folder: int, path: str, *more: object) -> object:
        made = real(folder, path, *more)  # type: ignore[arg-type]
        root.rename(tmp_path / "moved")
        (root / made[0].id / "files").mkdir(parents=True)
        return made

    jobdir.create_at = swapped  # type: ignore[assignment]
    try:
        result = run_command({"cmd": ["sh", "-c", "touch made; pwd"], "env": {"PWD": None}, "keep": "all"})
    finally:
        jobdir.create_at = real
    files = tmp_path / "moved" / result["jobid"] / "files"
    assert result["stdout"] == f"{files}\n"
    assert os.listdir(files) == ["made"]


# -- what may not be deleted ------------------------------------------------------------------------------------

LEAVES_FILES_OF_ROOT = """
import os, sys
from bossworker import CommandHandler, jobs
script = "mkdir o p; echo x > o/big; chmod 755 o; echo mine > p/own"
command = [*sys.argv[1:], "sh", "-c", script]
job = jobs.start(command)
jobs.wait(job)
for clean in ({"jobid": job}, {"older_than": 0}):
    try:
        print(jobs.clean(**clean))
    except OSError as error:
        print(type(error).__name__, str(error).replace(job, "ID"))
print(jobs.listing() == [job], jobs.status(job), jobs.result_list(job))
result = CommandHandler(keep="none")({"cmd": command})
print(jobs.status(result["jobid"]), len(jobs.listing()), [one for one in os.listdir(os.environ["BOSSWORKER_ROOT"])
      if one.startswith(".")])
"""


def test_files_that_may_not_be_deleted_are_told_and_stay_listed(tmp_path: Path) -> None:
    sudo = make_sudo(tmp_path / "sudo")
    own = nobodys_folder(tmp_path / "nobodys")
    told = python_as_nobody(LEAVES_FILES_OF_ROOT, *sudo, BOSSWORKER_ROOT=str(own), TMPDIR=str(own)).splitlines()
    error = "PermissionError [Errno 13] job ID cannot be deleted: Permission denied: 'files/"
    assert [line[: len(error)] for line in told[:2]] == [error, error]
    assert told[2].startswith("True completed ['o/big'")
    assert told[3] == "completed 2 []"


def test_what_is_left_of_a_host_that_is_gone_can_be_cleaned_away(root: Path) -> None:
    jobid = jobs.start(["true"])
    jobs.wait(jobid)
    status = json.loads((root / jobid / "status.json").read_text())
    pid, started, _, space, _ = status["supervisor"]
    far = [pid, started, "another boot", space, "far:00000000"]
    gone = {"state": "running", "supervisor": far, "command": far, "started": 1.0}
    (root / jobid / "status.json").write_text(json.dumps(gone))
    assert jobs.details(jobid) == ["on host far"]
    assert jobs.clean(jobid) == jobs.clean(older_than=0) == 0
    assert jobs.clean(older_than=3600, elsewhere=True) == 0
    assert jobs.clean(older_than=0, elsewhere=True) == 4
    assert jobs.listing() == []

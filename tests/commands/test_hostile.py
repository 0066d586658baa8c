"""Ids and names that come from strangers, and directories that are not as they should be."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from bossworker import jobs, run_command
from bossworker.commands import jobdir
from bossworker.jobs import Status
from bossworker.system import identity

pytestmark = pytest.mark.usefixtures("root")

ID = "20260101-000000-000000-" + "0" * 20
HOSTILE: list[Any] = [
    "", ".", "..", "/", "../secret", "/etc/passwd", "/etc", ID + "/../..", f"../{ID}", f"./{ID}", ID + "/", ID + "\n",
    ID + "\0", "\0", "a" * 5000, ID[:-1], ID + "0", ID.replace("0", "\u0660"), "\ud800", "é", "*", "~", "$HOME",
    "%2e%2e", " " + ID, "." + ID, None, 7, 7.5, True, b"bytes", ID.encode(), [], {}, (), object(), Path("/etc"),
]  # fmt: skip
NAMES: list[Any] = [
    "", ".", "..", "/", "../job.json", "../stdout", "/etc/passwd", "sub/../../job.json", "sub/..", "sub", "sub/",
    "/made", "./made", "sub//made", "made/", "made/x", "made\0", "\0", "link", "linked/passwd", "pipe", "no",
    "a" * 5000, "a/" * 2000 + "a", "\ud800",
    None, 7, b"made", [], Path("made"), object(),
]  # fmt: skip


@pytest.fixture
def job(root: Path) -> str:
    """An ended job with files, links out of its directory, and a pipe that would block whoever opens it."""
    script = "echo made > made; mkdir sub; echo sub > sub/made; mkfifo pipe"
    jobid: str = run_command({"cmd": ["sh", "-c", script], "keep": "all"})["jobid"]
    files = root / jobid / "files"
    (files / "link").symlink_to("/etc/passwd")
    (files / "linked").symlink_to("/etc")
    (files / "inward").symlink_to("made")
    return jobid


def test_hostile_ids(root: Path) -> None:
    root.mkdir(parents=True)
    (root.parent / "secret").mkdir()
    (root.parent / "secret" / "job.json").write_text("{}")
    for jobid in HOSTILE:
        expect_nothing(jobid)
    assert (root.parent / "secret" / "job.json").exists()


def expect_nothing(jobid: Any) -> None:
    assert jobs.status(jobid) is Status.UNKNOWN
    assert jobs.details(jobid) == []
    assert jobs.info(jobid) is None
    assert jobs.is_finished(jobid) is False
    assert jobs.wait(jobid, 5) is Status.UNKNOWN
    assert jobs.signal(jobid) is False
    assert jobs.result_list(jobid) == []
    assert jobs.result(jobid, "made") is None
    assert (jobs.stdout(jobid), jobs.stderr(jobid, text=False)) == ("", b"")
    assert jobs.working_dir(jobid) is None
    assert list(jobs.follow(jobid)) == []
    assert jobs.get_configuration(jobid) == ({}, None)
    if jobid is not None:
        assert jobs.clean(jobid) == 0


def test_a_link_is_no_job(root: Path, job: str) -> None:
    (root / ID).symlink_to(root / job)
    expect_nothing(ID)
    assert jobs.listing() == [job]
    assert (root / ID).is_symlink()


def test_hostile_names(job: str) -> None:
    for name in NAMES:
        assert jobs.result(job, name) is None, name
        assert jobs.result(job, name, text=False) is None, name


def test_only_regular_files_are_listed_and_all_that_are_listed_are_served(job: str) -> None:
    assert jobs.result_list(job) == ["made", "sub/made"]
    assert [jobs.result(job, name) for name in jobs.result_list(job)] == ["made\n", "sub\n"]


def test_streams_that_are_something_else(root: Path, job: str) -> None:
    for name in ("stdout", "stderr"):
        (root / job / name).unlink()
    (root / job / "stdout").symlink_to("/etc/passwd")
    os.mkfifo(root / job / "stderr")
    assert (jobs.stdout(job), jobs.stderr(job)) == ("", "")
    assert list(jobs.follow(job)) == list(jobs.follow(job, stream="stderr")) == []


def test_files_that_are_a_link(root: Path, job: str) -> None:
    (root / job / "files").rename(root / "elsewhere")
    (root / job / "files").symlink_to("/etc")
    assert (jobs.result_list(job), jobs.result(job, "passwd"), jobs.working_dir(job)) == ([], None, None)


# -- damage ---------------------------------------------------------------------------------------------

GARBAGE = ["", "{", "[]", "null", '"x"', "7", "\xff\xfe", '{"state": "completed"']
BAD_STATES = ['{"state": 7}', '{"state": "nonsense"}', "{}"]
NAMES_OF_VALUES = ["supervisor", "command", "started", "ended", "elapsed", "exit_code", "signal", "max_rss"]


@pytest.mark.parametrize("text", GARBAGE + BAD_STATES)
def test_damaged_status(root: Path, job: str, text: str) -> None:
    (root / job / "status.json").write_bytes(text.encode("latin-1"))
    assert jobs.status(job) is Status.UNKNOWN
    (detail,) = jobs.details(job)
    assert detail.startswith("status.json is damaged: ")
    told = jobs.info(job)
    assert told is not None
    assert (told.status, told.reason) == ("unknown", detail)
    assert jobs.wait(job, 5) is Status.UNKNOWN
    assert jobs.signal(job) is False
    assert jobs.listing() == [job]
    assert jobs.result_list(job) == ["made", "sub/made"]
    assert jobs.clean(job) == 10


@pytest.mark.parametrize("text", GARBAGE)
def test_damaged_job(root: Path, job: str, text: str) -> None:
    (root / job / "job.json").write_bytes(text.encode("latin-1"))
    assert jobs.status(job) is Status.UNKNOWN
    assert jobs.details(job)[0].startswith("job.json is damaged: ")
    assert jobs.info(job) is not None


@pytest.mark.parametrize("key", NAMES_OF_VALUES)
def test_values_of_a_wrong_type_never_raise(root: Path, job: str, key: str) -> None:
    status = json.loads((root / job / "status.json").read_text())
    values: list[Any] = ["x", None, [], {}, True, 1e300]
    for state, value in itertools.product(("completed", "running", "created"), values):
        (root / job / "status.json").write_text(json.dumps({**status, "state": state, key: value}))
        assert jobs.status(job) in set(Status)
        jobs.details(job)
        jobs.info(job)
        jobs.signal(job)


def test_an_empty_directory_is_no_job(root: Path) -> None:
    (root / ID).mkdir(parents=True)
    expect_nothing_known(ID)
    assert jobs.listing() == [ID]
    (root / ID / "job.json").mkdir()
    expect_nothing_known(ID)
    assert jobs.clean(older_than=0) == 0
    assert jobs.listing() == [ID]  # it cannot be read, so it might run
    assert jobs.clean(status="unknown") == 0
    assert jobs.listing() == []


def expect_nothing_known(jobid: str) -> None:
    assert jobs.status(jobid) is Status.UNKNOWN
    assert jobs.get_configuration(jobid) == ({}, None)
    assert jobs.stdout(jobid) == ""


# -- a status that was true once ------------------------------------------------------------------------


def pretend(root: Path, job: str, **changes: object) -> None:
    status = {"state": "running", "supervisor": [1 << 30, 1, identity.boot_id()], "command": None, "started": 1.0}
    (root / job / "status.json").write_text(json.dumps({**status, **changes}))


def test_a_pid_of_another(root: Path, job: str) -> None:
    pid, started, *boot = identity.own()
    pretend(root, job, supervisor=[pid, int(started) - 1, *boot], command=[pid, int(started) + 1, *boot])
    assert jobs.status(job) is Status.TERMINATED_BY_ERROR
    assert jobs.details(job) == ["its supervisor is gone: its exit status is not known"]
    assert jobs.signal(job) is False
    pretend(root, job, supervisor=[pid, started, *boot])
    assert jobs.status(job) is Status.RUNNING


def test_a_restarted_machine(root: Path, job: str) -> None:
    pid, _, _, *place = identity.own()
    pretend(root, job, supervisor=[pid, 1, "before", *place], command=[pid, 1, "before", *place])
    assert jobs.status(job) is Status.TERMINATED_BY_ERROR
    assert jobs.details(job) == ["the machine was restarted: its exit status is not known"]


def test_one_that_was_never_started(root: Path) -> None:
    root.mkdir(parents=True)
    gone = [1 << 30, 1, identity.boot_id()]
    for by, created, wanted in (
        (gone, 0.0, Status.TERMINATED_BY_ERROR),
        (identity.own(), 0.0, Status.CREATED),
        (gone, 1e11, Status.CREATED),
    ):
        directory, streams = jobdir.create(str(root), {"by": by, "created": created})
        for fd in (*streams,):
            os.close(fd)
        assert jobs.status(directory.id) is wanted
        directory.close()


TAKES_RIGHTS_AWAY = """
import os, sys, time
from bossworker import CommandHandler, jobs, run_command

mischief = f"sleep 0.05; mkdir below; echo x > below/file; {sys.argv[1]}"
result = run_command({"cmd": mischief, "shell": True, "keep": "all"})
print(result["status"], jobs.status(result["jobid"]), jobs.clean(result["jobid"]) > 0)
jobid = jobs.start(mischief, shell=True)
while not jobs.is_finished(jobid):  # the supervisor takes the rights back
    time.sleep(0.01)
print(jobs.status(jobid), jobs.clean(jobid) > 0)
CommandHandler(keep="none")({"cmd": mischief, "shell": True})
print(os.listdir(os.environ["BOSSWORKER_ROOT"]))
"""


@pytest.mark.parametrize("takes", ["chmod 0 below", "chmod 0 below ../files", "chmod 555 ..", "chmod 0 .."])
def test_a_command_that_takes_rights_away(takes: str) -> None:
    """From us, too: for the superuser there is nothing to be taken, so the test gives up what makes one."""
    as_anybody = ["setpriv", "--bounding-set=-all", "--inh-caps=-all"] if os.geteuid() == 0 else []
    if as_anybody and shutil.which("setpriv") is None:
        pytest.skip("no setpriv")
    argv = [*as_anybody, sys.executable, "-c", TAKES_RIGHTS_AWAY, takes]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60)
    assert told.stdout.splitlines() == ["completed completed True", "completed True", "[]"]


WITHOUT_DESCRIPTORS = """
import errno, os, resource, sys
from bossworker import jobs

def answer(ask):
    try:
        return str(ask(sys.argv[1]))
    except OSError as error:
        return errno.errorcode[error.errno]

resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
held, told = [], set()
try:
    while True:
        held.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
while len(told) < 2 or "EMFILE" in told:
    told = set(map(answer, [jobs.status, jobs.stdout, jobs.is_finished, lambda one: jobs.listing() == [one]]))
    print(*sorted(told))
    os.close(held.pop())
"""


def test_without_descriptors_nothing_is_said(root: Path) -> None:
    """Rather than that there is no such job."""
    jobid = jobs.start(["sleep", "60"])
    argv = [sys.executable, "-c", WITHOUT_DESCRIPTORS, jobid]
    told = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=60).stdout.splitlines()
    assert set(told) <= {"EMFILE", "EMFILE True", "EMFILE False True running", " False True running"}
    assert (told[0], told[-1]) == ("EMFILE", " False True running")
    jobs.clean(jobid)

"""Jobs of odd names, with odd metadata, in damaged directories: each command tells what is true, and spoils nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import jobs
from bossworker.tasks import TaskPool
from tests.cli.conftest import PROGRAM, Cli, start_program
from tests.conftest import wait_for

pytestmark = pytest.mark.usefixtures("all_leave")

BAD = "20260101-010101-000000-add00000000000000000"


@pytest.fixture
def ended(cli: Cli) -> str:
    """A job that has failed; its id."""
    jobid = cli("start", "--name", "ended", "--", "sh", "-c", "echo x; exit 3").out.strip()
    assert cli("wait", jobid).status == 3
    return jobid


@pytest.fixture
def damage(root: Path, ended: str) -> Callable[..., None]:
    """Makes a job BAD of the one that has ended, in which a file says something else."""

    def make(file: str, **changed: Any) -> None:
        shutil.rmtree(root / BAD, ignore_errors=True)
        shutil.copytree(root / ended, root / BAD)
        path = root / BAD / file
        path.write_text(json.dumps({**json.loads(path.read_text()), **changed}))

    return make


@pytest.mark.parametrize(
    ("file", "key", "value"),
    [
        ("job.json", "argv", 5),
        ("job.json", "meta", [1]),
        ("job.json", "created", 1e300),
        ("status.json", "started", 1e300),
        ("status.json", "elapsed", "x"),
        ("status.json", "exit_code", []),
    ],
)
def test_one_that_is_damaged_does_not_spoil_the_list(
    cli: Cli, damage: Callable[..., None], ended: str, file: str, key: str, value: object
) -> None:
    damage(file, **{key: value})
    assert [line.split()[2] for line in cli("ps").out.splitlines()[1:]] == ["unknown", "failed"]
    told = f"{file} is damaged: {key} is {value!r}"
    assert cli("wait", BAD)[::2] == (1, f"job {BAD}: unknown: {told}\n")
    assert json.loads(cli("show", "--json", BAD).out)["reason"] == told
    assert cli("log", BAD).out == "x\n"
    assert cli("kill", BAD).status == 1
    assert cli("show", "ended").status == 0


def test_what_ran_is_not_known(cli: Cli, damage: Callable[..., None], root: Path) -> None:
    damage("job.json")
    (root / BAD / "job.json").write_text("")
    said = cli("retry", BAD)
    told = "cannot be started again: what it ran is not known: job.json is damaged: not JSON"
    assert (said.status, said.out, said.err) == (1, "", f"bossworker retry: job {BAD} {told}\n")


def test_one_that_is_gone_is_told_of_alike(cli: Cli, damage: Callable[..., None], root: Path) -> None:
    damage("job.json")
    (root / BAD / "job.json").unlink()
    for command in ("show", "log", "wait", "kill", "pause", "resume", "stack", "retry"):
        said = cli(command, BAD)
        assert (said.status, said.out) == (125, ""), command
        assert said.err == f"bossworker {command}: there is no job {BAD} any more\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
def test_another_users_is_not_called_deleted(cli: Cli, damage: Callable[..., None], root: Path, ended: str) -> None:
    damage("job.json")
    os.chown(root / BAD, 65534, 65534)
    said = cli("clean", "--json", BAD, ended)
    assert (said.status, json.loads(said.out)) == (1, {"deleted": [ended]})
    assert said.err == f"bossworker clean: job {BAD} is not deleted: it is another user's\n"


def test_what_cannot_be_deleted_keeps_nothing_else(
    cli: Cli, damage: Callable[..., None], ended: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    damage("job.json")
    clean = jobs.clean

    def refuse(jobid: str) -> int:
        if jobid == ended:
            raise PermissionError(13, "Permission denied", ".name", None, "name")
        return clean(jobid)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "clean", refuse)
        said = cli("clean")
    assert (said.status, said.out) == (1, "1 deleted\n")
    assert said.err == f"bossworker clean: job {ended} cannot be deleted: Permission denied\n"


def test_metadata_of_programs(cli: Cli) -> None:
    """Its keys may be those that we use."""
    for meta in ("queue=high", "name=5", "name=null", "retry_of=[1]", "deep=" + "[" * 60_000, "number=NaN"):
        assert cli("start", "--meta", meta, "false").status == 0
    cli("wait", "all")
    found = [json.loads(line) for line in cli("ps", "--json").out.splitlines()]
    assert [one["name"] for one in found] == [None, "5", None, None, None, None]
    assert found[5]["meta"] == {"number": "NaN"}
    assert cli("ps", "-g", "high")[:2] == (0, "")
    assert len(cli("retry", "--failed").out.splitlines()) == 6
    cli("wait", "all")


def test_metadata_of_a_task(cli: Cli) -> None:
    task = TaskPool().spawn(["sleep", "600"], meta={"name": 5, "queue": 7})
    assert cli("ps").out.split()[7] == "5"
    assert cli("ps", "-g", "x").status == 0
    cli("clean", "5")
    assert cli("show", task.id).status == 125


@pytest.mark.parametrize("name", ["last", "all", "failed", ""])
def test_a_name_that_means_others(cli: Cli, name: str) -> None:
    for command in ("start", "add"):
        said = cli(command, "--name", name, "true")
        assert (said.status, said.out) == (2, "")
        assert f"argument --name: {name!r}: it is anything but nothing, and last, all and failed" in said.err


def test_a_name_comes_before_the_beginning_of_an_id(cli: Cli, damage: Callable[..., None], ended: str) -> None:
    damage("job.json")
    assert json.loads(cli("show", "--json", "add").out)["id"] == BAD
    named = cli("start", "--name", "add", "sleep", "600").out.strip()
    assert json.loads(cli("kill", "--json", "add").out) == {"id": named, "done": True}
    assert json.loads(cli("show", "--json", "add00000").out)["id"] == BAD


def test_clean_all_leaves_alone_what_runs(cli: Cli, ended: str) -> None:
    jobid = cli("start", "sleep", "600").out.strip()
    assert json.loads(cli("clean", "all", "--json").out) == {"deleted": [ended]}
    assert cli("clean", jobid).out == "1 deleted\n"


def test_a_queued_command_that_is_deleted_stays_so(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever sees to the queue has it in memory, and would keep a directory of one that never started."""
    monkeypatch.setenv("BOSSWORKER_QUEUE_IDLE", "0")  # it leaves once nothing is left to do, and not before
    running, waiting = (cli("add", "sleep", "600").out.strip() for _ in range(2))
    wait_for(lambda: jobs.status(running) == "running")
    said = cli("clean", waiting, running)
    assert (said.out, said.err) == ("2 deleted\n", "")
    last = cli("add", "true").out.strip()  # its turn comes when the queue has heard of the end of both
    assert cli("wait", last).status == 0
    assert [json.loads(line)["id"] for line in cli("ps", "--json").out.splitlines()] == [last]


def test_wait_tells_why(cli: Cli) -> None:
    jobid = cli("start", "--timeout", "0.1", "sleep", "600").out.strip()
    assert cli("wait", jobid)[::2] == (143, f"job {jobid}: failed (signal 15): timed out after 0.1 seconds\n")


def test_stdout_and_stderr_exclude_each_other(cli: Cli, ended: str) -> None:
    said = cli("log", "--stdout", "--stderr", ended)
    assert (said.status, "--stderr: not allowed with argument --stdout" in said.err) == (2, True)


def test_what_is_sent_is_sent_as_it_is(cli: Cli, ended: str) -> None:
    task = TaskPool().spawn(["cat"])
    assert cli("send", task.id, "\udcff").status == 0
    wait_for(lambda: task.stream("stdout").peek() == b"\xff\n")
    task.delete()
    said = cli("send", "--timeout", "5", "--json", ended, "x")
    assert (said.status, json.loads(said.out)) == (1, {"id": ended, "done": False})


def test_a_task_that_does_not_read_is_not_waited_for(cli: Cli) -> None:
    task = TaskPool().spawn(["sleep", "600"])
    said = cli("send", "--timeout", "0.1", "--json", task.id, "x" * (1 << 20))
    task.delete()
    assert (said.status, json.loads(said.out)) == (124, {"id": task.id, "done": False})
    assert "of 1048577 bytes: it does not read" in said.err


def test_no_home(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.delenv("BOSSWORKER_ROOT")
        patch.delenv("XDG_STATE_HOME", raising=False)
        patch.setenv("HOME", "relative")
        for command in (["start", "true"], ["ps"], ["wait", "last"], ["clean"], ["retry", "--failed"]):
            said = cli(*command)
            assert (said.status, said.out) == (1, "")
            assert "HOME is 'relative', which is no absolute path; set HOME" in said.err


def test_where_there_is_no_room_is_told_whole(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: object, **request: object) -> str:
        raise OSError(30, "Read-only file system", ".2026")  # relative to the root

    monkeypatch.setattr(jobs, "start", start)
    assert f"no job can be kept in {root}: Read-only file system; make room" in cli("start", "true").err


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize("argv", [["--help"], ["--version"], ["ps", "--help"], ["run", "--help"], []])
def test_nobody_reads_the_help(root: Path, argv: list[str], unbuffered: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unbuffered, it is argparse that writes the help of a command."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    reading, writing = os.pipe()
    os.close(reading)
    with start_program(*argv, stdout=writing) as program:
        os.close(writing)
        assert (program.communicate()[1], program.returncode) == ("", 141)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_output_that_is_lost_is_told_once(
    root: Path, cli: Cli, ended: str, unbuffered: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though Python, which buffers, tries again as it flushes."""
    monkeypatch.setenv("PYTHONUNBUFFERED", unbuffered)
    for argv in (["ps"], ["wait", "--json", ended]):
        with open("/dev/full", "wb") as full:
            program = subprocess.run([*PROGRAM, *argv], stdout=full, stderr=subprocess.PIPE, text=True, check=False)
        assert (program.returncode, program.stderr.count("No space left")) == (1, 1), argv


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")
def test_words_that_are_lost_change_no_exit_status(root: Path, cli: Cli, ended: str) -> None:
    for argv, status in ((["wait", ended], 3), (["wait", "nobody"], 125), (["start", "--nope"], 2), (["nope"], 2)):
        with open("/dev/full", "wb") as full:
            assert subprocess.run([*PROGRAM, *argv], stderr=full, check=False).returncode == status, argv


def test_names_are_listed_where_stdout_is_ascii(cli: Cli, all_leave: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """As it is where there is no UTF-8 (``LC_ALL=C PYTHONUTF8=0``)."""
    cli("start", "--name", "名é", "true")
    monkeypatch.setenv("PYTHONIOENCODING", "ascii:surrogateescape")
    with start_program("ps") as program:
        out, err = program.communicate()
    assert ("  ??  " in out, err, program.returncode) == (True, "", 0)


def test_log_ends_with_its_reader(cli: Cli) -> None:
    """Though nothing more is written."""
    jobid = cli("start", "sh", "-c", "echo x; sleep 600").out.strip()
    for argv in (["log", "-f", jobid], ["log", "-f", "--json", jobid]):
        with start_program(*argv) as program:
            assert program.stdout is not None
            assert program.stdout.readline()
            program.stdout.close()
            assert program.wait(60) == 141

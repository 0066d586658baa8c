"""Detached jobs and tasks on the command line, from ``start`` to ``clean``."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bossworker import jobs
from bossworker.cli.entries import short
from bossworker.cli.text_cells import cut
from bossworker.tasks import TaskPool
from tests.cli.conftest import Cli
from tests.conftest import wait_for

pytestmark = pytest.mark.usefixtures("all_leave")

FACTS = {  # of --json: what programs may rely on
    "id", "kind", "name", "status", "exit_code", "signal", "reason", "paused", "command", "shell", "cwd", "pid",
    "created", "started", "ended", "elapsed", "user_time", "system_time", "max_rss", "timeout", "meta", "directory",
}  # fmt: skip


@pytest.fixture
def start(cli: Cli) -> Callable[..., str]:
    """Starts a job; its id."""

    def call(*argv: str | Path) -> str:
        said = cli("start", *argv)
        assert said.status == 0, said.err
        return said.out.strip()

    return call


def test_where_no_job_can_be_kept(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(*args: object, **request: object) -> str:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(jobs, "start", start)
    told = "No space left on device; make room, or have BOSSWORKER_ROOT name another folder"
    assert cli("start", "true") == (1, "", f"bossworker start: no job can be kept in {root}: {told}\n")


def objects(text: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in text.splitlines()]


def test_a_job_from_its_start_to_its_end(cli: Cli, start: Callable[..., str], here: Path) -> None:
    jobid = start(
        "--name", "build", "--env", "A=b c", "--meta", "n=3", "--", "sh", "-c", "echo $A; pwd; echo e >&2; exit 7"
    )
    assert cli("wait", jobid[-20:-12]).status == 7
    said = cli("log", "build")
    assert (said.out, said.err) == (f"b c\n{here}\n", "e\n")
    (found,) = objects(cli("show", "--json", "last").out)
    assert set(found) == FACTS
    assert (found["id"], found["name"], found["exit_code"], found["meta"]) == (
        jobid,
        "build",
        7,
        {"n": 3, "name": "build"},
    )
    assert found["command"] == ["sh", "-c", "echo $A; pwd; echo e >&2; exit 7"]
    facts = {line[:12].strip(): line[13:] for line in cli("show", "last").out.splitlines()}
    assert (facts["meta"], facts["max_rss"].split()[1]) == ('{"n": 3, "name": "build"}', "MiB")
    shown = cli("ps").out.splitlines()
    assert shown[0].split() == ["ID", "NAME", "STATE", "STARTED", "TIME", "COMMAND"]
    assert "failed (7)" in shown[1]
    assert cli("clean", "last").out == "1 deleted\n"
    assert cli("ps").out == ""


@pytest.mark.parametrize(("which", "status"), [("all", 3), ("each", 125)])
def test_wait_waits_for_the_others_when_one_is_deleted(
    cli: Cli, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch, which: str, status: int
) -> None:
    """It is no error of one that was meant by ``all``."""
    other, deleted = start("-c", "sleep 0.2; exit 3"), start("true")
    wait = jobs.wait

    def delete(jobid: str, timeout: float | None) -> jobs.Status:
        jobs.clean(deleted)
        return wait(jobid, timeout)

    monkeypatch.setattr(jobs, "wait", delete)
    said = cli("wait", "--json", *([which] if which == "all" else [deleted, other]))
    assert (said.status, said.err) == (status, f"bossworker wait: there is no job {deleted} any more\n" * (status != 3))
    assert [(one["id"], one["exit_code"]) for one in objects(said.out)] == [(other, 3)]


def test_wait_tells_when_time_is_up(cli: Cli, start: Callable[..., str]) -> None:
    jobid = start("sleep", "600")
    said = cli("wait", jobid, "--timeout", "0.1", "--json")
    assert (said.status, objects(said.out)[0]["status"]) == (124, "running")
    assert cli("kill", "-s", "KILL", jobid).status == 0
    assert cli("wait", jobid).status == 137


@pytest.mark.parametrize("number", [9, 10])
def test_a_signal_by_its_number(cli: Cli, start: Callable[..., str], number: int) -> None:
    jobid = start("sleep", "600")
    wait_for(lambda: cli("kill", "-s", str(number), jobid).status == 0)
    assert cli("wait", jobid).status == 128 + number


def test_a_program_whose_name_has_a_space(cli: Cli, start: Callable[..., str], here: Path) -> None:
    (here / "my program").write_text("#!/bin/sh\nexit 3\n")
    (here / "my program").chmod(0o755)
    assert cli("wait", start("./my program")).status == 3


def test_log_gives_only_what_is_new(cli: Cli, start: Callable[..., str], here: Path) -> None:
    jobid = start("sh", "-c", "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two")
    wait_for(lambda: cli("log", jobid).out)
    (first,) = objects(cli("log", jobid, "--since", "0", "--json").out)
    assert (first["text"], first["next"], first["status"]) == ("one\n", 4, "running")
    (none,) = objects(cli("log", jobid, "--since", "4", "--json").out)
    assert (none["text"], none["next"]) == ("", 4)
    (here / "go").touch()
    assert cli("log", "-f", jobid).out == "one\ntwo\n"
    (last,) = objects(cli("log", jobid, "--since", "4", "--json").out)
    assert (last["text"], last["next"], last["exit_code"]) == ("two\n", 8, 0)
    assert cli("log", jobid, "--since", "-3").out == "wo\n"


def test_an_end_that_nobody_has_seen_is_told_as_such(cli: Cli, start: Callable[..., str]) -> None:
    jobid = start("sleep", "600")
    info = wait_for(lambda: (told := jobs.info(jobid)) and told.pid and told)
    assert info.supervisor_pid
    for pid in (info.supervisor_pid, info.pid):
        os.kill(pid, signal.SIGKILL)
    said = cli("wait", jobid)
    assert (said.status, said.err) == (
        1,
        f"job {jobid}: failed: its supervisor is gone: its exit status is not known\n",
    )


def test_a_cursor_never_stands_within_a_character(cli: Cli, start: Callable[..., str], here: Path) -> None:
    """Whoever polls puts the parts together again."""
    script = "printf 'a\\342\\202'; while [ ! -e go ]; do sleep 0.01; done; printf '\\254b'"
    jobid = start("sh", "-c", script)
    wait_for(lambda: jobs.stdout(jobid, text=False) == b"a\xe2\x82")
    first = json.loads(cli("log", jobid, "--since", "0", "--json").out)
    assert (first["text"], first["next"]) == ("a", 1)
    (here / "go").touch()
    assert cli("wait", jobid).status == 0
    second = json.loads(cli("log", jobid, "--since", "1", "--json").out)
    assert (second["text"], second["next"]) == ("\u20acb", 5)


def test_pause_resume_and_stack(cli: Cli, start: Callable[..., str]) -> None:
    jobid = start("-c", "sleep 600; true")
    wait_for(lambda: cli("stack", jobid).out.endswith(" S   sleep 600\n"))  # until then it is its shell's
    assert cli("pause", jobid).status == 0
    wait_for(lambda: objects(cli("ps", "--json").out)[0]["paused"])
    assert "paused" in cli("ps").out

    def states() -> list[tuple[int, str]]:
        (tree,) = objects(cli("stack", "--json", jobid).out)
        return [(one["depth"], one["state"]) for one in tree["processes"]]

    wait_for(lambda: states() == [(0, "T"), (1, "T")])  # each stops when it is next to run
    assert cli("resume", jobid).status == 0
    wait_for(lambda: not objects(cli("ps", "--json").out)[0]["paused"])
    assert cli("kill", jobid).status == 0
    assert cli("wait", jobid).status == 143
    assert cli("kill", jobid).status == 1
    assert "does not run" in cli("stack", jobid).err


def test_of_all_only_what_runs_is_steered(
    cli: Cli, start: Callable[..., str], tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """In silence: nobody has named those that have ended."""
    ended, failed = start("true"), start("false")
    cli("wait", "all")
    task = TaskPool(tmp_path / "tasks", mkdir_if_missing=True).spawn(["true"])
    request.addfinalizer(task.delete)
    task.wait()
    runs = start("sleep", "600")
    wait_for(lambda: cli("stack", "all").out.endswith(" S sleep 600\n"))
    assert cli("stack", "all").out == cli("stack", runs).out
    assert [one["id"] for one in objects(cli("stack", "--json", "all", "failed").out)] == [runs]
    for command in ("pause", "resume", "kill"):
        assert cli(command, "failed") == (0, "", "")
        assert cli("stack", "failed") == (0, "", "")
        assert cli(command, "all", "--json") == (0, json.dumps({"id": runs, "done": True}) + "\n", "")
    assert cli("wait", runs).status == 143
    for one in (ended, failed):
        for command in ("kill", "stack"):
            said = cli(command, "all", one, "failed")
            assert (said.status, said.out, said.err.count("does not run"), said.err.count(one)) == (1, "", 1, 1)


@pytest.mark.parametrize("command", ["kill", "pause"])
def test_what_is_about_to_start_gets_its_signal(
    cli: Cli, start: Callable[..., str], monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    jobid, send, calls = start("sleep", "600"), jobs.signal, []

    def send_later(*told: Any) -> bool:
        """As where its process is not there yet."""
        calls.append(told)
        return len(calls) > 2 and send(*told)

    with monkeypatch.context() as patch:
        patch.setattr(jobs, "signal", send_later)
        assert cli(command, jobid) == (0, "", "")
    assert len(calls) == 3


def is_paused(cli: Cli, jobid: str) -> bool:
    """Whether it is, now that we have said so; a job that does not run yet hears it the next time."""
    cli("pause", jobid)
    return bool(objects(cli("show", "--json", jobid).out)[0]["paused"])


def test_a_shell_that_is_stopped_before_its_child_has_begun(cli: Cli, start: Callable[..., str]) -> None:
    """Then the shell does not count as stopped, for the kernel: it waits for its child to execute."""
    for _ in range(5):
        jobid = start("-c", "sleep 600; true")
        wait_for(partial(is_paused, cli, jobid))
        assert cli("kill", "-s", "KILL", jobid).status == 0
        assert cli("wait", jobid).status == 137


def test_retry(cli: Cli, start: Callable[..., str], here: Path) -> None:
    start("sh", "-c", "test -e there")
    good = start("true")
    cli("wait", "all")
    (here / "there").touch()
    again = cli("retry", "--failed").out.split()
    assert len(again) == 1
    assert cli("wait", *again).status == 0
    assert cli("retry", "--failed").out == ""  # it was tried again
    (told,) = objects(cli("retry", "--json", good).out)
    assert told["retry_of"] == good
    cli("wait", "all")


def test_one_that_cannot_be_tried_again_keeps_no_other_from_it(cli: Cli, start: Callable[..., str], here: Path) -> None:
    (here / "gone").mkdir()
    lost = start("--wd", "gone", "false")
    found = start("false")
    cli("wait", "all")
    (here / "gone").rmdir()
    said = cli("retry", "--failed", "--json")
    assert [told["retry_of"] for told in objects(said.out)] == [found]
    assert (said.status, f"job {lost} cannot be started again: cwd must be a folder" in said.err) == (1, True)
    cli("wait", "all")


def test_what_run_has_kept_is_listed_and_started_again(cli: Cli, here: Path) -> None:
    cli("run", "-c", "echo {}; test -e there", ":::", "x")
    (found,) = objects(cli("ps", "--json").out)
    assert (found["status"], found["exit_code"], found["cwd"]) == ("terminated by error", 1, str(here))
    assert cli("log", "last").out == "x\n"
    (here / "there").touch()
    again = cli("retry", "failed").out.strip()
    assert cli("wait", again).status == 0
    assert cli("log", again).out == "x\n"
    assert cli("clean").out == "2 deleted\n"
    assert os.listdir(os.environ["BOSSWORKER_ROOT"]) == []


def test_ids_of_strangers_lead_nowhere(cli: Cli, start: Callable[..., str], root: Path) -> None:
    start("true")
    for evil in ("../../etc/passwd", "/etc/passwd", ".", "..", "", "*", "\0", "20", "zzz", "a" * 5000, "-- x"):
        for command in ("show", "log", "wait", "kill", "stack", "retry", "clean"):
            said = cli(command, "--", evil)
            assert (said.status, said.out) == (125, ""), (command, evil)
            assert "there is no job, task or pool" in said.err


def test_a_name_may_be_two_dashes(cli: Cli) -> None:
    started = cli("start", "--name=--", "true").out.strip()
    assert [one["name"] for one in objects(cli("ps", "--json").out)] == ["--"]
    assert cli("wait", "--", "--").status == 0
    assert cli("show", "--", started).status == 0
    refused = cli("wait", "--timeout=--", started)
    assert (refused.status, "argument --timeout: '--': it is a number" in refused.err) == (2, True)


def test_a_beginning_of_several_ids_is_told(cli: Cli, start: Callable[..., str]) -> None:
    first, _ = start("true"), start("true")
    said = cli("show", first[:5])
    assert said.status == 125
    assert "is the beginning of 2 ids" in said.err
    cli("wait", "all")


def test_clean_leaves_alone_what_runs(cli: Cli, start: Callable[..., str]) -> None:
    jobid = start("sleep", "600")
    done = start("true")
    cli("wait", done)
    assert cli("clean", "--older-than", "1h").out == "0 deleted\n"
    assert objects(cli("clean", "--json").out) == [{"deleted": [done]}]
    assert [one["id"] for one in objects(cli("ps", "--json").out)] == [jobid]


def test_tasks_are_in_the_same_list(cli: Cli, start: Callable[..., str]) -> None:
    start("true")
    pool = TaskPool(os.environ["BOSSWORKER_TASKS"], mkdir_if_missing=True)
    task = pool.spawn(["sh", "-c", "read line; echo got $line; read line"], meta={"name": "chat"})
    try:
        found = objects(cli("ps", "--json").out)
        assert [one["kind"] for one in found] == ["job", "task"]
        assert set(found[1]) == FACTS
        assert cli("send", "chat", "hello").status == 0
        wait_for(lambda: cli("log", "chat").out == "got hello\n")
        (told,) = objects(cli("log", "--since", "4", "--json", task.id).out)
        assert (told["text"], told["next"]) == ("hello\n", 10)
        assert cli("kill", "chat").status == 0
        assert cli("wait", "chat").status == 143
        assert "reads nothing" in cli("send", jobs.listing()[0], "x").err
        assert cli("clean", task.id).status == 0
        assert [one["kind"] for one in objects(cli("ps", "--json").out)] == ["job"]
    finally:
        task.delete()


def test_ps_chooses(cli: Cli, start: Callable[..., str]) -> None:
    start("--name", "a", "true")
    start("--name", "b", "false")
    cli("wait", "all")
    assert [one["name"] for one in objects(cli("ps", "--json", "--status", "failed").out)] == ["b"]
    assert [one["name"] for one in objects(cli("ps", "--json", "--name", "a").out)] == ["a"]


def test_tables_are_straight_whatever_letters_a_name_has(cli: Cli, start: Callable[..., str]) -> None:
    """Those of Chinese take two cells each, and an accent of its own takes none."""
    ids = {name: short(start("--name", name, "true")) for name in ("abcdef", "\u540d\u524d", "e\u0301")}
    cli("wait", "all")
    lines = {line.split()[0]: line for line in cli("ps").out.splitlines()[1:]}
    for name, spaces in zip(ids, (2, 4, 7), strict=True):
        assert f"  {name}{' ' * spaces}completed  " in lines[ids[name]]
    assert cut("\u540d\u524d!", 3) == "\u540d"


def test_what_makes_no_sense(cli: Cli) -> None:
    assert cli("start").status == 2
    assert cli("start", "--timeout", "soon", "true").status == 2
    assert cli("nonsense").status == 2
    assert cli("kill", "-s", "NOSUCH", "last").status == 2
    said = cli("log", "--since", "yesterday", "last")
    assert (said.status, "argument --since: 'yesterday': it is a whole number of at most 64 bits\n" in said.err) == (
        2,
        True,
    )
    assert cli("wait", "last").status == 125
    assert cli("start", "--env", "A", "true").status == 2


def test_a_job_is_listed_at_once(cli: Cli, start: Callable[..., str]) -> None:
    began = time.time()
    jobid = start("sleep", "600")
    (found,) = objects(cli("ps", "--json", "--status", "running").out)
    assert found["id"] == jobid
    assert found["created"] >= began - 1

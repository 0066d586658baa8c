"""``add`` and ``group``: queued commands, from the first to the last, through crashes."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bossworker import jobs
from bossworker.cli import queue_files
from bossworker.cli.main import main
from bossworker.cli.queue_files import QueueFolder, all_groups
from bossworker.commands import record
from bossworker.system import descendants
from tests.cli.conftest import Cli, start_program
from tests.cli.test_detached_jobs import FACTS, objects
from tests.conftest import alive, wait_for

Add = Callable[..., str]


@pytest.fixture(autouse=True)
def groups_leave(all_leave: None) -> Iterator[None]:
    """So do the processes of groups, before their jobs are cleaned away."""
    yield
    for folder in all_groups():
        end_process(folder, signal.SIGTERM)


def process_of(folder: QueueFolder) -> int | None:
    answer = folder._ask_once({})
    return None if answer is None else int(answer["pid"])


def end_process(folder: QueueFolder, number: int) -> None:
    """End the process of a group, and wait until it and all that it has started are gone."""
    pid = process_of(folder)
    if pid is not None:
        family = [pid, *descendants.descendants(pid)]
        os.kill(pid, number)
        wait_for(lambda: not any(map(alive, family)), 60)


@pytest.fixture
def add(cli: Cli) -> Add:
    """Adds a command; its id."""

    def call(*argv: str | Path) -> str:
        said = cli("add", *argv)
        assert (said.status, said.err) == (0, ""), said.err
        return said.out.strip()

    return call


RESTIC = """\
#!/bin/sh
case $1 in
    backup) mkdir -p repository; cat "$2" > repository/copy; echo snapshot saved;;
    check) test -e repository/copy && echo no errors were found;;
esac
"""


@pytest.fixture
def restic(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A repository, and what looks after it; a stand-in where restic is not installed."""
    monkeypatch.setenv("RESTIC_REPOSITORY", str(here / "repository"))
    monkeypatch.setenv("RESTIC_PASSWORD", "x")
    monkeypatch.setenv("RESTIC_CACHE_DIR", str(here / "cache"))
    (here / "precious").write_text("precious")
    if shutil.which("restic"):
        subprocess.run(["restic", "init", "--quiet"], check=True)
        return
    (here / "bin").mkdir()
    (here / "bin" / "restic").write_text(RESTIC)
    (here / "bin" / "restic").chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")


@pytest.mark.usefixtures("restic")
def test_a_backup_is_checked_once_it_is_made(cli: Cli, add: Add, here: Path) -> None:
    """Each call is what is typed: ``--after last`` is the one that was added just before."""
    first = add("-g", "backup", "restic", "backup", "precious")
    second = add("-g", "backup", "--after", "last", "restic", "check")
    assert cli("wait", second, "--timeout", "120").status == 0
    told = {entry["id"]: entry for entry in objects(cli("ps", "-g", "backup", "--json").out)}
    assert [told[one]["status"] for one in (first, second)] == ["completed", "completed"]
    assert told[first]["ended"] <= told[second]["started"]
    assert "no errors were found" in cli("log", "last", "-f").out
    add("-g", "backup", "sh", "-c", "exit 3")
    third = add("-g", "backup", "--after", "last", "restic", "forget")
    said = cli("wait", third, "--timeout", "120")
    assert said.status == 1
    assert "which it comes after, has failed (exit code 3)" in said.err


def test_a_queue_of_the_night(cli: Cli, add: Add, here: Path) -> None:
    """A sysadmin: as typed. Each is a process of its own, and none of a daemon was set up."""
    first = add("-g", "backup", "sh", "-c", "echo saved; until test -e go; do sleep 0.01; done")
    second = add("-g", "backup", "--after", "last", "--name", "check", "sh", "-c", "echo checked in $(pwd); exit 3")
    assert "queued" in cli("ps", "-g", "backup").out.splitlines()[2]
    (here / "go").touch()
    assert cli("log", "last", "-f").out == f"checked in {here}\n"
    assert cli("wait", "check").status == 3
    assert cli("wait", first).status == 0
    lines = cli("ps", "-g", "backup").out.splitlines()
    assert [line.split()[2] for line in lines[1:]] == ["completed", "failed"]
    assert cli("ps", "-g", "other").out == ""
    (told,) = objects(cli("show", "--json", second).out)
    assert set(told) == FACTS
    assert told["meta"]["queue"] == {"group": "backup", "priority": 0, "after": [first]}
    assert (told["exit_code"], told["cwd"]) == (3, str(here))
    assert cli("group").out.splitlines()[1].split() == ["backup", "1", "0", "0", "open"]
    assert cli("clean").out == "2 deleted\n"


def test_one_at_a_time_in_the_order_of_priorities(cli: Cli, add: Add, here: Path) -> None:
    assert cli("group", "default", "--pause").status == 0
    low, high, middle = (
        add("-o", str(priority), "-c", f"echo {priority} >> order; test ! -e busy && touch busy && sleep 0.1; rm busy")
        for priority in (-1, 5, 0)
    )
    assert [one["status"] for one in objects(cli("ps", "--json").out)] == ["queued"] * 3
    assert cli("ps").out.splitlines()[1].split()[2] == "paused"
    assert cli("wait", low, "--timeout", "0.1").status == 124
    assert cli("group", "default", "--resume").status == 0
    assert [cli("wait", jobid).status for jobid in (low, middle, high)] == [0, 0, 0]
    assert (here / "order").read_text().split() == ["5", "0", "-1"]


def test_slots(cli: Cli, add: Add, here: Path) -> None:
    assert cli("group", "wide", "--slots", "2").status == 0
    script = "touch $1; while test ! -e $2; do sleep 0.01; done"
    one = add("-g", "wide", "sh", "-c", script, "sh", "a", "b")
    other = add("-g", "wide", "sh", "-c", script, "sh", "b", "a")
    assert (cli("wait", one).status, cli("wait", other).status) == (0, 0)
    assert objects(cli("group", "wide", "--slots", "3", "--json").out)[0]["slots"] == 3
    third = [add("-g", "wide", "sh", "-c", script, "sh", f"c{n}", f"c{(n + 1) % 3}") for n in range(3)]
    assert [cli("wait", jobid).status for jobid in third] == [0, 0, 0]


def test_what_comes_after_a_failure_is_told_and_not_run(cli: Cli, add: Add, here: Path) -> None:
    first = add("sh", "-c", "sleep 0.2; exit 4")
    second = add("--after", first, "touch", "ran")
    third = add("--after", f"{second[-20:-12]},{first[-20:-12]}", "touch", "ran")
    said = cli("wait", third)
    assert said.status == 1
    why = f"not started: {second[-20:-12]}, which it comes after, was not started"
    assert said.err == f"job {third}: {why}\n"
    (told,) = objects(cli("show", "--json", second).out)
    assert (told["status"], told["exit_code"]) == ("terminated by error", None)
    assert told["reason"] == f"not started: {first[-20:-12]}, which it comes after, has failed (exit code 4)"
    assert told["command"] == ["touch", "ran"]
    assert (told["started"], told["elapsed"]) == (None, None)
    assert cli("log", third).err == f"bossworker: {why}\n"
    assert not (here / "ran").exists()
    detached = cli("start", "sleep", "0.2").out.strip()
    assert cli("wait", add("--after", detached, "-g", "elsewhere", "touch", "ran")).status == 0
    assert (here / "ran").exists()
    assert cli("add", "--after", "nothing", "true").status == 125


@pytest.mark.parametrize("command", [("ps", "--json"), ("show", "--json", "{}"), ("wait", "--json", "{}")])
def test_what_starts_while_we_look_is_told_once(
    cli: Cli, add: Add, here: Path, monkeypatch: pytest.MonkeyPatch, command: tuple[str, ...]
) -> None:
    """It is queued as we look at the queue, and a job as we look at the jobs."""
    assert cli("group", "default", "--pause").status == 0
    jobid = add("touch", "ran")

    def look_when_it_has_started(*args: Any) -> list[str]:
        if not jobs.is_finished(jobid):
            assert main(["group", "default", "--resume"]) == 0
            wait_for(lambda: jobs.is_finished(jobid))
        return listing(*args)

    listing = record.listing
    monkeypatch.setattr(record, "listing", look_when_it_has_started)
    said = cli(*(one.format(jobid) for one in command))
    assert (said.status, said.err) == (0, "")
    (told,) = objects(said.out)
    assert (told["id"], told["status"]) == (jobid, "completed")


def test_a_delay(cli: Cli, add: Add) -> None:
    begin = time.time()
    later, soon, tonight = add("--delay", "0.7", "true"), add("true"), add("--delay", "8h", "true")
    told = objects(cli("show", "--json", tonight).out)[0]
    assert told["status"] == "queued"
    assert told["reason"].startswith("not before ")
    assert cli("wait", soon).status == cli("wait", later).status == 0
    assert objects(cli("show", "--json", later).out)[0]["started"] >= begin + 0.7
    assert cli("clean", tonight).out == "1 deleted\n"
    assert tonight not in cli("ps", "--json").out


def is_cancelled(jobid: str) -> bool:
    info = jobs.info(jobid)
    return info is not None and info.status == "terminated by request"


def test_queued_ones_are_cancelled_and_tried_again(cli: Cli, add: Add, here: Path) -> None:
    running = add("sleep", "600")
    queued = add("--env", "A=1", "--name", "second", "sh", "-c", "echo $A $PWD")
    held = add("--after", running, "true")
    wait_for(lambda: objects(cli("show", "--json", running).out)[0]["status"] == "running")
    said = cli("pause", queued)
    assert (said.status, said.err) == (
        1,
        f"bossworker pause: job {queued} has not started: bossworker group default --pause\n",
    )
    assert cli("kill", queued, held).status == 0
    for jobid in (queued, held):
        wait_for(partial(is_cancelled, jobid))
    assert cli("ps").out.splitlines()[2].split()[2:5] == ["cancelled", "-", "-"]
    assert cli("kill", running).status == 0
    assert cli("wait", running).status == 143
    later = add("--after", queued, "true")
    assert (
        cli("wait", later).err == f"job {later}: not started: {queued[-20:-12]}, which it comes after, was cancelled\n"
    )
    assert cli("clean", later).status == 0
    (failed,) = cli("retry", "--failed").out.split()  # nothing that was cancelled
    (told,) = objects(cli("show", "--json", failed).out)
    assert told["meta"]["retry_of"] == running
    wait_for(lambda: objects(cli("show", "--json", failed).out)[0]["status"] == "running")
    assert cli("kill", failed).status == 0
    assert cli("wait", failed).status == 143
    again = cli("retry", "second").out.strip()
    assert again not in ("", queued)
    assert cli("wait", again).status == 0
    (told,) = objects(cli("show", "--json", again).out)
    assert (told["meta"]["retry_of"], told["meta"]["queue"]["group"]) == (queued, "default")
    assert cli("log", again).out == f"1 {here}\n"


def test_it_runs_in_the_environment_of_whoever_adds_it(cli: Cli, add: Add, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEASON", "winter")
    first = add("sh", "-c", "echo $SEASON $MORE")
    monkeypatch.setenv("SEASON", "spring")
    second = add("--env", "MORE=yes", "sh", "-c", "echo $SEASON $MORE")
    assert cli("wait", first, second).status == 0
    assert (cli("log", first).out, cli("log", second).out) == ("winter\n", "spring yes\n")
    assert objects(cli("show", "--json", second).out)[0]["meta"].keys() == {"queue"}


def test_a_crash_loses_nothing_and_runs_nothing_twice(cli: Cli, add: Add, here: Path) -> None:
    """All processes are killed, as by a power cut; the next look takes up what was left."""
    running = add("sh", "-c", "echo begun >> runs; sleep 600")
    queued = [add("sh", "-c", f"echo {number} >> runs") for number in range(3)]
    held = add("--after", queued[-1], "sh", "-c", "echo held >> runs")
    wait_for(lambda: (here / "runs").exists() and (here / "runs").read_text() == "begun\n")
    end_process(QueueFolder("default"), signal.SIGKILL)
    statuses = [one["status"] for one in objects(cli("ps", "--json").out)]
    assert statuses[0] == "terminated by error"
    assert cli("wait", held).status == 0
    assert (here / "runs").read_text().split() == ["begun", "0", "1", "2", "held"]
    assert objects(cli("show", "--json", running).out)[0]["reason"] != ""
    assert [cli("wait", jobid).status for jobid in queued] == [0, 0, 0]
    wait_for(lambda: QueueFolder("default").waiting_ids() == [])


def test_who_waits_sees_to_it_that_somebody_attends(cli: Cli, add: Add, here: Path) -> None:
    add("sh", "-c", "touch begun; sleep 600")
    queued = add("true")
    wait_for((here / "begun").exists)
    waiting = start_program("wait", queued)
    pid = process_of(QueueFolder("default"))
    assert pid is not None
    os.kill(descendants.children(pid)[0], signal.SIGKILL)
    assert waiting.wait(60) == 0
    waiting.communicate()


def test_a_queue_that_cannot_start_says_why(cli: Cli, add: Add) -> None:
    folder = QueueFolder("default")
    Path(folder.path).mkdir(parents=True)
    Path(folder.journal).write_bytes(b"no database" * 1000)
    jobid = add("true")

    def reason() -> str:
        return str(objects(cli("show", "--json", jobid).out)[0]["reason"])

    wait_for(lambda: "JournalError" in reason())
    Path(folder.journal).unlink()
    assert cli("wait", jobid).status == 0


def test_what_was_paused_when_it_was_stopped_stays_so(cli: Cli, add: Add, here: Path) -> None:
    cli("group", "default", "--pause")
    jobid = add("touch", "ran")
    assert process_of(QueueFolder("default")) is None  # nobody is needed to keep it
    cli("group", "default", "--resume")
    wait_for((here / "ran").exists)
    assert cli("wait", jobid).status == 0


def test_those_who_add_at_the_same_time_start_one_process(root: Path, here: Path, cli: Cli) -> None:
    adding = [start_program("add", "sh", "-c", f"echo $PPID > worker{number}") for number in range(6)]
    ids = []
    for program in adding:
        out, err = program.communicate(timeout=120)
        assert (program.returncode, err) == (0, "")
        ids.append(out.strip())
    assert cli("wait", *ids).status == 0
    assert len({path.read_text() for path in here.glob("worker*")}) == 1
    assert (root / ".queue" / "default" / "log").read_text() == ""


def test_its_process_leaves_when_nothing_is_left_and_comes_again(
    cli: Cli, add: Add, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = QueueFolder("default")
    monkeypatch.setenv("BOSSWORKER_QUEUE_IDLE", "0.2")
    assert cli("wait", add("true")).status == 0
    wait_for(lambda: process_of(folder) is None)
    for _ in range(3):
        assert cli("wait", add("true")).status == 0
        time.sleep(0.15)
    wait_for(lambda: process_of(folder) is None)
    assert (Path(folder.path) / "log").read_text() == ""
    assert folder.waiting_ids() == []


def test_a_command_that_cannot_be_run(cli: Cli, add: Add) -> None:
    jobid = add("no-such-program-anywhere")
    assert cli("wait", jobid).status == 127
    for wrong in (["-g", "../x", "true"], ["--delay", "soon", "true"], ["-o", "high", "true"], []):
        with suppress(SystemExit):
            assert cli("add", *wrong).status == 2
    assert cli("group", "--slots", "2").status == 2
    assert cli("group", "x", "--slots", "0").status == 2
    assert cli("group", "x", "--pause", "--resume").status == 2
    assert json.loads(cli("add", "--json", "-g", "x", "true").out)["group"] == "x"
    assert cli("wait", "last").status == 0


ASLEEP = """
import os, select, signal, threading, time

def send(main):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})
    states = "?"
    while states != "SSS" or not os.path.exists("BEGUN"):
        time.sleep(0.01)
        with open(f"/proc/self/task/{main}/stat") as stat:
            states = (states + stat.read().rpartition(")")[2].split()[0])[-3:]
    os.kill(os.getpid(), signal.SIGTERM)

def select_as_it_comes(*args):
    if args[3] > 60 and threading.active_count() == 1:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        threading.Thread(target=send, args=(threading.get_native_id(),)).start()
    return select_alone(*args)

select_alone, select.select = select.select, select_as_it_comes
"""


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc to see that a thread is asleep")
def test_a_signal_that_comes_as_it_goes_to_sleep_ends_it(add: Add, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not interrupt the system call, as when it comes just before that: another thread gets it."""
    program = ASLEEP.replace("BEGUN", str(here / "begun"))
    monkeypatch.setattr(queue_files, "_PROGRAM", f"exec({program!r}); {queue_files._PROGRAM}")
    add("sh", "-c", "touch begun; sleep 600")
    folder = QueueFolder("default")
    lock = os.open(folder.lock, os.O_RDWR)
    try:
        wait_for((here / "begun").exists)
        wait_for(lambda: is_free(lock), 60)
    finally:
        os.close(lock)


def is_free(lock: int) -> bool:
    """Whether the process that has it is gone."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True

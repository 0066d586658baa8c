"""`run --journal`: whatever is killed, the same command line goes on, and runs nothing twice."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, jobs, journal
from bossworker.errors import JournalError
from bossworker.system import processes
from tests.cli.conftest import Cli, Said, start_program
from tests.commands.disk import fill, small_disk
from tests.conftest import wait_for

__all__ = ["small_disk"]

MANY = [str(number) for number in range(1, 25)]
SLEEPY = "echo x >> ran.{}; sleep 0.1"


def journalled(script: str, *args: str) -> list[str]:
    return ["run", "-j2", "--journal", "j", "--joblog", "log", "-c", script, ":::", *args]


def again(command: list[str]) -> Said:
    """As a program: the lock of a test's own process would be its own."""
    program = start_program(*command)
    out, err = program.communicate(timeout=120)
    return Said(program.returncode, out, err)


def times_run(here: Path) -> dict[str, int]:
    return {path.name.removeprefix("ran."): len(path.read_text().split()) for path in here.glob("ran.*")}


def exit_values(here: Path) -> dict[str, list[str]]:
    """Of the joblog, by argument."""
    found: dict[str, list[str]] = {}
    for line in (here / "log").read_text().splitlines()[1:]:
        fields = line.split("\t")
        found.setdefault(fields[8].partition("ran.")[2].partition(";")[0], []).append(fields[6])
    return found


def host_of(program: subprocess.Popen[str]) -> int:
    (host,) = wait_for(lambda: processes.children(program.pid))
    return int(host)


def end_all(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.mark.parametrize("killed", ["run", "all", "commands too"])
def test_a_run_that_was_killed_goes_on(root: Path, here: Path, killed: str) -> None:
    command = journalled(SLEEPY, *MANY)
    program = start_program(*command)
    host = host_of(program)
    wait_for(lambda: sum(times_run(here).values()) >= 6)
    os.kill(program.pid, signal.SIGSTOP)  # so that no other host takes over meanwhile
    commands = [pid for child in processes.children(host) for pid in (child, *processes.children(child))]
    end_all([host] if killed != "run" else [])
    end_all(commands if killed == "commands too" else [])
    program.kill()
    program.communicate()
    said = again(command)
    end_all(commands)
    interrupted = {number for number, values in exit_values(here).items() if values == ["-1"]}
    assert len(interrupted) <= 2  # as many as ran
    assert said.status == len(interrupted)
    assert said.err.count("interrupted ") == len(interrupted) + (1 if interrupted else 0)
    ran = times_run(here)
    assert set(ran.values()) == {1}
    assert set(MANY) - interrupted <= ran.keys()
    assert exit_values(here) == {one: ["-1"] if one in interrupted else ["0"] for one in MANY}
    assert again(command).status == len(interrupted)  # it stays so
    said = again([*command[:1], "--interrupted", "rerun", *command[1:]])
    assert said.status == 0
    assert exit_values(here) == {one: ["0"] for one in MANY}
    assert {one for one, count in times_run(here).items() if count == 2} <= interrupted


def test_a_host_that_was_killed_is_replaced_and_the_journal_right(root: Path, here: Path) -> None:
    command = journalled(SLEEPY, *MANY)
    program = start_program(*command)
    wait_for(lambda: sum(times_run(here).values()) >= 6)
    os.kill(host_of(program), signal.SIGKILL)
    _, err = program.communicate(timeout=60)
    lost = {number for number, values in exit_values(here).items() if values == ["-1"]}
    assert program.returncode == len(lost) <= 2
    assert err.count("when the process that runs commands was killed (signal 9, SIGKILL)") == len(lost)
    ran = times_run(here)
    assert set(ran.values()) == {1}
    assert set(MANY) - lost <= ran.keys()
    assert again(command).status == len(lost)
    assert times_run(here) == ran
    assert again([*command[:1], "--resume-failed", *command[1:]]).status == 0
    assert sum(times_run(here).values()) == sum(ran.values()) + len(lost)


def test_what_has_ended_is_not_run_again_though_the_list_has_changed(cli: Cli, here: Path) -> None:
    script = "echo x >> ran.{}; exit $(( {} == 3 ))"
    assert cli(*journalled(script, "1", "2", "3")).status == 1
    said = cli(*journalled(script, "0", "3", "2", "2", "1"))
    assert said.status == 1
    assert "going on with j: 3 ended before, 1 of them failed\nfailed 2: " in said.err
    assert "exit code 1, in an earlier run" in said.err
    assert times_run(here) == {"0": 1, "1": 1, "2": 2, "3": 1}  # one that is there twice is run twice
    assert exit_values(here) == {"0": ["0"], "1": ["0"], "2": ["0", "0"], "3": ["1"]}
    said = cli("run", "--resume-failed", *journalled("echo x >> ran.{}; exit $(( {} == 3 ))", "3", "1")[1:])
    assert said.status == 1
    assert times_run(here)["3"] == 2
    assert cli(*journalled(script, "3", "1")).err.endswith("::: 3 1\n")  # the command that runs it once more


def test_other_slots_and_another_folder(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = ["run", "-j2", "--journal", str(here / "j"), "-c", "echo x >> ran.{}; : {%}", ":::", "1", "2", "3"]
    assert cli(*command).status == 0
    assert "nothing to do: all of it is in the journal" in cli(*command).err
    assert cli("run", "-j1", *command[2:]).out == ""
    (here / "other").mkdir()
    monkeypatch.chdir(here / "other")
    assert cli(*command).status == 0
    assert times_run(here) == times_run(here / "other") == dict.fromkeys("123", 1)


def test_after_a_restart_of_the_machine_all_that_was_given_may_have_run(root: Path, here: Path) -> None:
    command = journalled("echo x >> ran.{}; sleep 600", *MANY)
    program = start_program(*command)
    wait_for(lambda: sum(times_run(here).values()) == 2)
    program.kill()
    program.communicate()
    host_is_gone(here)
    with sqlite3.connect("j") as database:
        database.execute("UPDATE meta SET value = 'before' WHERE name = 'boot'")
    database.close()
    said = again(journalled("echo x >> ran.{}; sleep 600", "1", "2"))
    assert said.status == 2
    assert said.err.count("it may have run: the machine was restarted before its end was known") == 2


def host_is_gone(here: Path) -> None:
    def is_free() -> bool:
        return subprocess.run(["flock", "-n", here / "j-lock", "true"], check=False).returncode == 0

    wait_for(is_free)


def test_long_commands_are_given_to_the_host_no_sooner_than_they_can_start(root: Path, here: Path) -> None:
    """For all that was given may have run after a restart of the machine."""
    program = start_program(*journalled("echo x >> ran.{}; sleep 600", *MANY))
    wait_for(lambda: sum(times_run(here).values()) == 2)
    program.kill()
    program.communicate()
    host_is_gone(here)
    with sqlite3.connect("j") as database:
        assert database.execute("SELECT count(*) FROM commands").fetchone() == (2,)
    database.close()


def test_what_ctrl_c_has_stopped_is_interrupted(root: Path, here: Path) -> None:
    command = journalled("echo x >> ran.{}; test -e go || sleep 600", *MANY)
    program = start_program(*command)
    wait_for(lambda: sum(times_run(here).values()) == 2)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)
    assert program.returncode == 130
    (here / "go").touch()
    said = again(command)
    assert (said.status, said.err.count("it was running when its run was stopped")) == (2, 2)
    assert times_run(here) == dict.fromkeys(MANY, 1)


def test_a_second_run_at_the_same_time_is_refused(root: Path, here: Path) -> None:
    command = journalled("touch begun; test -e go || sleep 600", "1")
    program = start_program(*command)
    wait_for((here / "begun").exists)
    said = again(command)
    assert said.status == 255
    assert f"belongs to another program: process {program.pid}" in said.err
    (here / "go").touch()
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)


def test_in_json_and_for_ci(root: Path, here: Path) -> None:
    command = ["run", "-j2", "--journal", "j", "--json", "--junit", "x.xml", "-c", "touch {}; sleep 600", ":::", "a"]
    program = start_program(*command)
    wait_for((here / "a").exists)
    program.kill()
    program.communicate()
    said = again(command)
    told = json.loads(said.out)
    assert (said.status, told["error"], told["exit_code"], told["ok"]) == (1, "interrupted", None, False)
    assert 'tests="1" failures="1"' in (here / "x.xml").read_text()


HANDLER = """
import os, time
def handle(job):
    with open(f"ran.{job['line']}", "a") as file:
        file.write("x\\n")
    while not os.path.exists("go") and job["line"] in "78":
        time.sleep(0.01)
    return {"got": job["line"]}
"""


def test_a_handler_in_python(root: Path, here: Path) -> None:
    (here / "handlers.py").write_text(HANDLER)
    command = ["run", "-j2", "--journal", "j", "-f", "handlers:handle", ":::", *map(str, range(20))]
    program = start_program(*command)
    wait_for(lambda: {"7", "8"} <= times_run(here).keys())
    wait_for(lambda: journal.open("j").counts()["done"] == len(times_run(here)) - 2)  # which it was shown before
    program.kill()
    out, _ = program.communicate()
    (here / "go").touch()
    said = again(command)
    assert said.status == 2
    assert said.err.count("it was running when its run was stopped") == 2
    assert times_run(here) == dict.fromkeys(map(str, range(20)), 1)
    got = [json.loads(line).get("got") for line in (out + said.out).splitlines()]
    assert sorted(map(int, got)) == [number for number in range(20) if number not in (7, 8)]


def test_a_dry_run_tells_what_is_left(cli: Cli) -> None:
    assert cli("run", "--journal", "j", "echo", ":::", "1", "2").status == 0
    for _ in range(2):
        said = cli("run", "--journal", "j", "--dry-run", "echo", ":::", "1", "3", "2")
        assert (said.status, said.out) == (0, "echo 3\n")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--journal", "j", "--resume"], "--journal resumes by itself"),
        (["--interrupted", "rerun"], "--interrupted needs --journal"),
        (["--journal", "j", "--resume-failed"], "there is no journal 'j' yet"),
        (["--journal", "no/j"], "the journal"),
        (["--journal", "."], "cannot be opened: it is no regular file"),
        (["--journal", "text"], "file is not a database"),
        (["--journal", "other.db"], "is the database of something else"),
    ],
)
def test_what_makes_no_sense(cli: Cli, here: Path, options: list[str], told: str) -> None:
    (here / "text").write_text("no database, but a text that somebody needs\n" * 100)
    with sqlite3.connect("other.db") as other:
        other.execute("CREATE TABLE needed (x)")
    other.close()
    before = {path.name: path.read_bytes() for path in (here / "text", here / "other.db")}
    try:
        said = cli("run", *options, "touch", ":::", "ran")
    except SystemExit as ended:
        said = Said(int(str(ended.code)), "", told)
    assert said.status == 255
    assert told in said.err
    assert "Traceback" not in said.err
    assert not (here / "ran").exists()
    assert before == {path.name: path.read_bytes() for path in (here / "text", here / "other.db")}


def test_a_full_disk_ends_the_run_before_it_runs_what_is_not_recorded(root: Path, here: Path, small_disk: Path) -> None:
    command = [
        "run",
        "-j2",
        "--journal",
        str(small_disk / "j"),
        "-c",
        "mkdir ran.{}.$$",
        ":::",
    ]  # a mark is there or not, whatever is killed
    assert again([*command, "1", "2"]).status == 0
    fill(small_disk)
    said = again([*command, *map(str, range(1, 3000))])
    assert said.status == 255
    assert f"{small_disk / 'j'}" in said.err
    assert "No space left on device" in said.err
    os.unlink(small_disk / "ballast")
    wait_for(lambda: again([*command, *map(str, range(1, 50))]).status in (0, 1, 2))
    assert set(Counter(path.name.split(".")[1] for path in here.glob("ran.*")).values()) == {1}


SCRIPT = "echo {}; test {} != 3 || exit 3"


def test_journal_open_reads_it(cli: Cli, here: Path) -> None:
    command = ["run", "-j1", "--journal", "j", "-c", SCRIPT, ":::", "1", "3", "2"]
    assert cli(*command).status == 1
    found = journal.open("j")
    assert {status: count for status, count in found.counts().items() if count} == {"done": 2, "failed": 1}
    assert [(job.status, job.error, job.error_kind, job.retrieved) for job in found.jobs()] == [
        ("done", None, None, True),
        ("failed", "exit code 3", "reported", True),
        ("done", None, None, True),
    ]
    (failed,) = found.jobs("failed")
    assert failed.started_at is not None
    assert failed.added_at == failed.started_at <= (failed.finished_at or 0.0) <= time.time()
    assert found.job(failed.id) == {"command": SCRIPT.replace("{}", "3")}
    result = found.result(failed.id)
    assert result is not None
    assert (result.ok, result.job, result.error, result.error_kind) == (False, found.job(2), "exit code 3", "reported")
    assert (result["exit_code"], result["signal"], result["stdout_bytes"]) == (3, None, 2)
    assert result.duration == pytest.approx(result["elapsed"], abs=1e-6)
    assert jobs.stdout(result["jobid"]) == "3\n"
    good = found.result(1)
    assert good is not None
    assert (good.ok, good["exit_code"], good["jobid"]) == (True, 0, None)
    assert found.size() > 0
    with pytest.raises(KeyError, match="there is no job 4"):
        found.result(4)
    with pytest.raises(JournalError, match="the same command line, with --resume-failed"):
        found.retry(2)


def test_what_is_forgotten_is_run_again(cli: Cli, here: Path) -> None:
    command = ["run", "-j1", "--journal", "j", "-c", "echo x >> ran.{}", ":::", "1", "2"]
    assert cli(*command).status == 0
    found = journal.open("j")
    assert found.forget(older_than=3600) == 0
    assert found.forget(status="failed") == 0
    assert found.forget() == 2
    assert list(found.jobs()) == []
    assert cli(*command).status == 0
    assert times_run(here) == {"1": 2, "2": 2}


def test_journal_open_reads_it_while_it_goes_on_and_when_it_was_killed(root: Path, here: Path) -> None:
    command = journalled("echo x >> ran.{}; test {} = 1 || test -e go || sleep 600", *MANY)
    program = start_program(*command)
    wait_for(lambda: sum(times_run(here).values()) == 3)
    found = journal.open("j")

    def statuses() -> list[str]:
        return [job.status for job in found.jobs()]

    wait_for(lambda: statuses()[:3] == ["done", "running", "running"])
    assert found.counts()["running"] == 2
    assert found.result(2) is None
    assert set(statuses()[3:]) <= {"queued"}
    program.kill()
    program.communicate()
    host_is_gone(here)
    assert statuses() == ["done", "interrupted", "interrupted"]
    assert [job.error for job in found.jobs("interrupted")] == ["it was running when its run was stopped"] * 2
    (here / "go").touch()
    assert again(command).status == 2
    assert found.counts() == {**dict.fromkeys(found.counts(), 0), "done": len(MANY) - 2, "interrupted": 2}


def do_nothing(job: dict[str, Any]) -> None:
    pass


def test_journals_are_told_apart(cli: Cli, here: Path) -> None:
    assert cli("run", "--journal", "j", "true", ":::", "1").status == 0
    with pytest.raises(JournalError, match="it is the journal of `bossworker run`"):
        BossWorker(do_nothing, worker_count=1, journal="j")
    with BossWorker(do_nothing, worker_count=1, journal="pool.db"):
        pass
    said = cli("run", "--journal", "pool.db", "true", ":::", "1")
    assert (said.status, said.out) == (255, "")
    assert "is a pool's journal; name another file" in said.err
    assert journal.open("pool.db").counts()["done"] == 0

"""One command under a supervisor, from its start to the last word."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from bossworker.commands import jobdir, safe_files
from bossworker.commands.jobdir import JobDirectory
from bossworker.system import identity, proc, program
from tests.commands.disk import fill
from tests.commands.supervised import escaping, read_status, supervise
from tests.conftest import alive, wait_for


def run(root: Path, *argv: str, **order: Any) -> tuple[Path, dict[str, Any]]:
    directory, pid = supervise(root, list(argv), **order)
    assert os.waitpid(pid, 0)[1] == 0
    return directory, read_status(directory)


@pytest.mark.parametrize(
    ("script", "state", "exit_code", "number"),
    [
        ("exit 0", jobdir.COMPLETED, 0, None),
        ("exit 5", jobdir.BY_ERROR, 5, None),
        ("kill -9 $$", jobdir.BY_ERROR, None, 9),
        ("kill -TERM $$", jobdir.BY_ERROR, None, 15),
    ],
)
def test_ends(tmp_path: Path, script: str, state: str, exit_code: int | None, number: int | None) -> None:
    directory, status = run(tmp_path, "sh", "-c", f"echo out; echo err >&2; touch made; {script}")
    assert (status["state"], status["exit_code"], status["signal"]) == (state, exit_code, number)
    assert status["ended"] >= status["started"]
    assert status["max_rss"] > 100_000
    assert (directory / "stdout").read_text() == "out\n"
    assert (directory / "stderr").read_text() == "err\n"
    assert os.listdir(directory / "files") == ["made"]
    assert not any(name.startswith(".") for name in os.listdir(directory))


def test_what_cannot_run_has_ended_and_says_why(tmp_path: Path) -> None:
    directory, status = run(tmp_path, "no-such-program")
    assert (status["state"], status["exit_code"]) == (jobdir.BY_ERROR, 127)
    assert (directory / "stderr").read_text() == "cannot run 'no-such-program': No such file or directory\n"


def test_a_second_is_never_told_as_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However busy the machine is when the command has just been started."""
    start = program.start

    def late(*args: Any, **more: Any) -> int:
        pid = start(*args, **more)
        time.sleep(0.5)
        return pid

    monkeypatch.setattr(program, "start", late)
    _, status = run(tmp_path, "sleep", "1")
    assert status["elapsed"] >= 1
    assert status["ended"] == status["started"] + status["elapsed"] <= time.time()


def test_both_identities_are_on_record_while_it_runs(tmp_path: Path) -> None:
    directory, pid = supervise(tmp_path, ["sleep", "60"])
    status = wait_for(lambda: (now := read_status(directory))["state"] == jobdir.RUNNING and now)
    assert status["supervisor"] == identity.of(pid)
    assert identity.holds(status["command"])
    os.kill(int(status["command"][0]), signal.SIGKILL)
    os.waitpid(pid, 0)
    assert not identity.holds(status["command"])


def test_a_timeout_ends_the_whole_tree(tmp_path: Path) -> None:
    mark = tmp_path / "grandchild"
    escaped = escaping(f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    script = f'"$@" & while [ ! -s {mark} ]; do sleep 0.01; done; sleep 60'
    directory, status = run(tmp_path / "root", "sh", "-c", script, "sh", *escaped, timeout=1.0)
    assert (status["state"], status["reason"]) == (jobdir.BY_REQUEST, "timed out after 1 seconds")
    assert status["signal"] == signal.SIGTERM
    assert not alive(int(mark.read_text()))
    assert os.listdir(directory / "files") == []


def test_the_whole_tree_ends_where_the_kernel_lists_no_children(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As without CONFIG_PROC_CHILDREN."""
    monkeypatch.setattr(proc, "CHILDREN", "no-such-file")
    test_a_timeout_ends_the_whole_tree(tmp_path)


def test_who_ignores_term_gets_kill(tmp_path: Path) -> None:
    command = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(60)"
    _, status = run(tmp_path, sys.executable, "-c", command, timeout=0.5, grace=0.3)
    assert (status["state"], status["signal"]) == (jobdir.BY_REQUEST, signal.SIGKILL)


def test_who_is_stopped_hears_term(tmp_path: Path) -> None:
    _, status = run(tmp_path, "sh", "-c", "kill -STOP $$", timeout=0.2, grace=30.0)
    assert (status["state"], status["signal"]) == (jobdir.BY_REQUEST, signal.SIGTERM)


def test_a_long_grace_is_not_waited_for(tmp_path: Path) -> None:
    _, status = run(tmp_path, "sleep", "60", timeout=0.1, grace=100.0)
    assert status["elapsed"] < 10


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_that_was_asked_for(tmp_path: Path, number: int) -> None:
    directory, pid = supervise(tmp_path, ["sleep", "60"])
    status = wait_for(lambda: (now := read_status(directory))["state"] == jobdir.RUNNING and now)
    folder = safe_files.open_folder(str(directory))
    jobdir.request_signal(folder, number)
    os.close(folder)
    assert identity.send(status["command"], number)
    os.waitpid(pid, 0)
    status = read_status(directory)
    assert (status["state"], status["signal"]) == (jobdir.BY_REQUEST, number)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_the_last_word_is_said_once(tmp_path: Path, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever has heard it may delete the directory."""
    said, say = tmp_path / "said", JobDirectory.write_last_status

    def count(directory: JobDirectory, status: dict[str, Any]) -> None:
        with said.open("a") as file:
            file.write(status["state"] + "\n")
        say(directory, status)

    monkeypatch.setattr(JobDirectory, "write_last_status", count)
    directory, pid = supervise(tmp_path / "root", ["sleep", "60"])
    command = wait_for(lambda: read_status(directory).get("command"))
    folder = safe_files.open_folder(str(directory))
    jobdir.request_signal(folder, number)
    os.close(folder)
    identity.send(command, number)
    os.waitpid(pid, 0)
    assert said.read_text() == "terminated by request\n"


def test_what_a_requested_kill_leaves_is_ended(tmp_path: Path) -> None:
    mark = tmp_path / "grandchild"
    escaped = escaping(f"open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)")
    directory, pid = supervise(tmp_path / "root", ["sh", "-c", '"$@" & sleep 60', "sh", *escaped])
    wait_for(lambda: mark.exists() and mark.read_text())
    folder = safe_files.open_folder(str(directory))
    for number in (9, 15, 18):  # what others ask for does not take it back
        jobdir.request_signal(folder, number)
    os.close(folder)
    identity.send(read_status(directory)["command"], 9)
    os.waitpid(pid, 0)
    assert not alive(int(mark.read_text()))
    assert read_status(directory)["state"] == jobdir.BY_REQUEST


def test_a_daemon_outlives_the_command_that_ended_by_itself(tmp_path: Path) -> None:
    mark = tmp_path / "daemon"
    then = f"sys.stdout.flush(); open({str(mark)!r}, 'w').write(str(os.getpid())); time.sleep(60)"
    _, status = run(tmp_path / "root", *escaping(then))
    assert status["state"] == jobdir.COMPLETED
    daemon = int(wait_for(lambda: mark.exists() and mark.read_text()))
    assert alive(daemon)
    os.kill(daemon, signal.SIGKILL)


def test_orphans_of_the_command_are_reaped_while_it_runs(tmp_path: Path) -> None:
    directory, pid = supervise(
        tmp_path, ["sh", "-c", "for i in 1 2 3 4 5; do (true &) ; done; echo done; exec sleep 60"]
    )
    wait_for((directory / "stdout").read_text)
    wait_for(lambda: Path(f"/proc/{pid}/task/{pid}/children").read_text().split() == [str(command(directory))])
    os.kill(command(directory), signal.SIGKILL)
    os.waitpid(pid, 0)


def command(directory: Path) -> int:
    """Its pid; the command may run before its supervisor has said so."""
    return int(wait_for(lambda: read_status(directory).get("command"))[0])


def test_a_disk_that_is_full_from_the_start_starts_nothing(small_disk: Path, capfd: pytest.CaptureFixture[str]) -> None:
    mark = small_disk.parent / "ran"
    root = small_disk / "root"
    root.mkdir()
    fill(small_disk, leave=4096)  # enough for job.json, not for the status
    directory, pid = supervise(root, ["touch", str(mark)])
    assert os.waitpid(pid, 0)[1] != 0
    assert "No space left" in capfd.readouterr().err
    assert not mark.exists()
    assert not (directory / "status.json").exists()


def test_a_disk_that_fills_up_does_not_keep_the_end_from_being_told(small_disk: Path) -> None:
    directory, status = run(small_disk / "root", "sh", "-c", "cat /dev/zero")
    assert (status["state"], status["exit_code"]) == (jobdir.BY_ERROR, 1)
    assert (directory / "stdout").stat().st_size > 0


def test_reading_while_it_is_written(tmp_path: Path) -> None:
    directory, streams = jobdir.create(str(tmp_path), {"argv": []})
    for fd in streams:
        os.close(fd)
    directory.write_status({"number": -1})
    pid = os.fork()
    if pid == 0:
        for number in range(1000):
            directory.write_status({"number": number, "filling": "x" * (number % 5000)})
        os._exit(0)
    seen = []
    while not os.waitpid(pid, os.WNOHANG)[0]:
        seen.append(safe_files.read_json(directory.fd, jobdir.STATUS)["number"])
    directory.close()
    assert seen == sorted(seen)
    assert len(set(seen)) > 10  # it was read while it was written

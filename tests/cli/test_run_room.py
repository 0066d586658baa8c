"""`run` where there is no room, or no stream to write to; and how little it leaves and holds."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bossworker.cli import runner
from bossworker.system import processes
from bossworker.system.memory import resident
from tests.cli.conftest import PROGRAM, Cli, start_program
from tests.cli.test_run import inodes
from tests.conftest import wait_for

# -- where nothing can be written ---------------------------------------------------------------------------


@pytest.mark.parametrize("how", [(), ("--line-buffer",), ("--json",)])
def test_a_full_disk_under_stdout_is_told_of(root: Path, here: Path, how: tuple[str, ...]) -> None:
    with open("/dev/full", "w") as full:
        program = start_program("run", "-j2", *how, "echo", ":::", *map(str, range(50)), stdout=full)
        _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (
        255,
        "bossworker run: [Errno 28] No space left on device: 'standard output'\n",
    )


@pytest.mark.parametrize("option", ["--joblog", "--junit"])
def test_a_file_that_cannot_be_written_is_named(cli: Cli, option: str) -> None:
    said = cli("run", option, "/dev/full", "true", ":::", "1")
    assert said.status == 255
    assert "/dev/full" in said.err
    assert "No space left on device" in said.err


def test_without_room_for_failures_the_run_goes_on(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "file").touch()
    monkeypatch.setenv("BOSSWORKER_ROOT", str(here / "file" / "jobs"))
    said = cli("run", "-j1", "-c", "echo {}; exit {}", ":::", "0", "3", "4", "0")
    assert (said.status, said.out.split()) == (2, ["0", "3", "4", "0"])
    assert said.err.count("what fails is not kept") == 1
    assert "failed 3: echo 4; exit 4: exit code 4" in said.err
    assert "rerun them" not in said.err


@pytest.mark.parametrize("how", ["--group", "--line-buffer", "--ungroup"])
def test_standard_streams_that_are_closed_lead_nowhere(root: Path, here: Path, how: str) -> None:
    """Not into whatever is opened first: the joblog, or the line between our processes."""
    script = (
        f"exec {sys.executable} -m bossworker run {how} --joblog log -c 'echo {{}} >&2; echo {{}}' ::: 1 2 <&- >&- 2>&-"
    )
    assert subprocess.run(["/bin/sh", "-c", script], timeout=60, check=False).returncode == 0
    lines = (here / "log").read_text().splitlines()
    assert [line.split("\t")[6:] for line in sorted(lines[1:])] == [
        ["0", "0", f"echo {n} >&2; echo {n}"] for n in (1, 2)
    ]


def test_a_parent_that_ignores_the_ends_of_children(root: Path, here: Path) -> None:
    """What it ignores, we inherit."""
    script = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    )
    command = [
        sys.executable,
        "-c",
        script,
        sys.executable,
        "-m",
        "bossworker",
        "run",
        "-c",
        "exit {}",
        ":::",
        "0",
        "3",
    ]
    assert subprocess.run(command, timeout=60, check=False, stderr=subprocess.DEVNULL).returncode == 1


def test_output_that_waits_goes_with_a_run_that_is_killed(root: Path, here: Path) -> None:
    """It is long, and stands in files until its turn has come."""
    script = "if [ {} = 0 ]; then sleep 600; else seq 100000; touch {}.done; fi"
    program = start_program("run", "-j2", "-k", "-c", script, ":::", "0", "1", "2")
    wait_for(lambda: len(list(here.glob("*.done"))) == 2)
    folder = wait_for(lambda: [name for name in os.listdir(os.environ["TMPDIR"]) if "bossworker-run" in name])
    assert len(folder) == 1
    program.kill()
    program.communicate()
    wait_for(lambda: not (Path(os.environ["TMPDIR"]) / folder[0]).exists())


# -- little is left, and little is held -----------------------------------------------------------------------


def lines_in(path: Path) -> int:
    return path.read_bytes().count(b"\n") if path.exists() else 0


def test_inodes_and_memory_do_not_grow_with_the_number_of_commands(root: Path, here: Path) -> None:
    """40,000 commands leave at most 10 + 3 for each that failed; fewer leave as few."""
    reading, writing = os.pipe()
    program = start_program("run", "-j2", "--quiet", "--joblog", "log", "test", "{}", "-ge", "3", stdin=reading)
    os.close(reading)
    time.sleep(2 * runner._SETTLES)  # by then, all is loaded that may be needed later
    held = []
    for begin in range(0, 1200, 300):
        os.write(writing, "".join(f"{number}\n" for number in range(begin, begin + 300)).encode())
        wait_for(lambda: lines_in(here / "log") == begin + 301)  # noqa: B023
        processes_of_it = [program.pid, *processes.children(program.pid)]
        held.append(sum(resident(pid) for pid in processes_of_it))
    os.close(writing)
    program.communicate()
    assert program.returncode == 3
    assert len(processes_of_it) == 2
    assert held[-1] - held[0] < 1 << 20
    assert inodes(root) + inodes(here) <= 10 + 3 * 3


@pytest.mark.parametrize("command", [["doctor"], ["ps"], ["run", "echo", ":::", "1"]])
def test_a_full_disk_under_the_output_of_any_command_is_told_of_in_a_line(
    root: Path, here: Path, command: list[str]
) -> None:
    subprocess.run([*PROGRAM, "start", "true"], check=True, stdout=subprocess.DEVNULL)
    with open("/dev/full", "w") as full:
        program = start_program(*command, stdout=full)
        _, err = program.communicate(timeout=60)
    assert program.returncode in (1, 255)
    assert err.startswith(f"bossworker {command[0]}: [Errno 28] No space left on device")
    assert err.count("\n") == 1
    subprocess.run([*PROGRAM, "clean"], check=True, stdout=subprocess.DEVNULL)

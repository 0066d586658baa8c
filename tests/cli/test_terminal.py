"""`run` on a terminal: its bar, its colours, and the keys that end it; and `top` without Textual."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from bossworker import jobs
from bossworker.system import processes
from tests.cli.conftest import PROGRAM
from tests.conftest import wait_for


class Terminal:
    """What was drawn on it, and its keys."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.text = ""

    def read(self) -> str:
        """All that has been drawn by now."""
        try:
            while processes.await_fd(self.fd, 1, 0) and (data := os.read(self.fd, 1 << 16)):
                self.text += data.decode()
        except OSError:  # nobody has it any more
            pass
        return self.text

    def press(self, key: bytes) -> None:
        os.write(self.fd, key)


@contextmanager
def on_terminal(
    *argv: str, name: str = "run", **environment: str
) -> Iterator[tuple[subprocess.Popen[bytes], Terminal]]:
    """A run, or another command, that has a terminal for itself, as a shell's foreground job has."""
    ours, theirs = pty.openpty()
    script = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
    told = {**os.environ, "TERM": "xterm", **environment}
    command = [PROGRAM[0], "-c", script, *PROGRAM, name, *argv]
    program = subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True, env=told)
    os.close(theirs)
    try:
        yield program, Terminal(ours)
    finally:
        program.kill()
        program.wait()
        os.close(ours)


def end_of(program: subprocess.Popen[bytes], terminal: Terminal) -> str:
    """All that was drawn until it ended."""
    wait_for(lambda: (terminal.read(), program.poll() is not None)[1])
    return terminal.read()


def test_the_bar(root: Path, here: Path) -> None:
    """It is there while jobs run, gone when something else is printed, and no wider than the terminal."""
    script = "while [ ! -e {}.go ]; do sleep 0.01; done; echo out {}; exit {}"
    with on_terminal("-j", "2", "-c", script, ":::", "0", "1", "2") as (program, terminal):
        wait_for(lambda: "\r0/3  0 %\x1b[K" in terminal.read())
        (here / "1.go").touch()
        wait_for(lambda: re.search(r"\r1/3  33 %  1 failed  ETA \d\d:\d\d  [\d,]+/min\x1b\[K", terminal.read()))
        assert "\r\x1b[Kout 1\r\n" in terminal.text
        for name in ("0.go", "2.go"):
            (here / name).touch()
        text = end_of(program, terminal)
    assert program.returncode == 2
    assert "\x1b[1;31mfailed\x1b[0m 2: " in text


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_without_colours(root: Path, here: Path, variable: str, value: str) -> None:
    with on_terminal("-j2", "-c", "sleep 0.3; exit {}", ":::", "0", "3", **{variable: value}) as (program, terminal):
        text = end_of(program, terminal)
    assert "failed 2: sleep 0.3; exit 3: exit code 3" in text
    assert "\x1b[1" not in text
    assert ("\x1b[K" in text) == (variable == "NO_COLOR")


@pytest.mark.parametrize("times", [1, 2])
def test_ctrl_c_typed(root: Path, here: Path, times: int) -> None:
    """The terminal sends it to all processes of the run, and none counts it twice."""
    script = "trap 'exit 1' TERM; touch {}.begun; while :; do sleep 0.01; done"
    with on_terminal("-j2", "-c", script, ":::", "a", "b", "c") as (program, terminal):
        wait_for(lambda: len(list(here.glob("*.begun"))) == 2)
        terminal.press(b"\x03")
        if times == 2:
            wait_for(lambda: "^C" in terminal.read())
            terminal.press(b"\x03")
        text = end_of(program, terminal)
    assert program.returncode == 128 + signal.SIGINT
    assert "stopped by SIGINT: " in text
    assert not (here / "c.begun").exists()
    if times == 1:
        assert "stopped by SIGINT: 3 of its jobs were interrupted or not begun" in text


@pytest.mark.usefixtures("all_leave")
def test_a_long_name_leaves_room_for_the_state(here: Path) -> None:
    jobid = jobs.start(["true"], meta={"name": "a-name-that-is-rather-long-for-this"})
    jobs.wait(jobid)
    for width, name in (("40", "a-name-t…"), ("80", "a-name-that-is-…")):
        with on_terminal(name="ps", COLUMNS=width) as (program, terminal):
            text = end_of(program, terminal)
        assert f"  {name}  completed" in text
        assert max(map(len, text.splitlines())) <= int(width)


@pytest.mark.parametrize("command", ["ps", "top"])
@pytest.mark.usefixtures("all_leave")
def test_what_the_terminal_has_no_letters_for(here: Path, command: str) -> None:
    jobs.wait(jobs.start(["true"], meta={"name": "\u540d\u524d\xe9"}))
    argv = [*PROGRAM, command, *(["-n", "1"] if command == "top" else [])]
    environment = {**os.environ, "PYTHONIOENCODING": "latin-1"}
    said = subprocess.run(argv, env=environment, capture_output=True, check=True)
    assert said.stderr == b""
    assert b"  ??\xe9  completed" in said.stdout


def test_top_without_textual_says_on_each_picture_what_is_missing(root: Path, here: Path) -> None:
    (here / "textual.py").write_text("raise ImportError")
    with on_terminal(name="top", PYTHONPATH=os.pathsep.join([str(here), *sys.path])) as (program, terminal):
        wait_for(lambda: terminal.read().count("\x1b[2J") > 1, 30)
        last = terminal.text.split("\x1b[2J")[1].splitlines()
        assert last[1] == "no keys without Textual: pip install 'bossworker[top]'"
        terminal.press(b"\x03")
        assert program.wait(30) == 130

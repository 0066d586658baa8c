"""The command line, called in this process, or as a program."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from bossworker import jobs
from bossworker.cli.main import main
from bossworker.commands.supervision import launching
from bossworker.pool.door import addresses

PROGRAM = [sys.executable, "-m", "bossworker"]
_PATIENT = """
import sys
from bossworker.cli import command_crew
from bossworker.cli.main import main
from bossworker.commands.hosting import host
host.GRACE = command_crew._GRACE = 60.0
sys.exit(main(sys.argv[1:]))
"""
PATIENT = [sys.executable, "-c", _PATIENT]
"""The same, whose commands have as long to tidy up as they need, also where the machine is busy."""


class Said(NamedTuple):
    """What came of a command."""

    status: int
    out: str
    err: str


Cli = Callable[..., Said]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder for job directories."""
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    return tmp_path / "jobs"


@pytest.fixture
def all_leave(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test has started goes with it."""
    monkeypatch.setenv("BOSSWORKER_TASKS", str(tmp_path / "tasks"))
    yield
    for jobid in jobs.listing():
        jobs.clean(jobid)
    launching.close_launcher()


@pytest.fixture(autouse=True)
def runtime_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pools of the user, and of tests that run at the same time, are not those of this test."""
    (tmp_path / "run").mkdir(mode=0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setattr(addresses, "runtime_folders", lambda: [str(tmp_path / "run" / "bossworker")])


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder."""
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    return folder


@pytest.fixture
def cli(root: Path, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> Iterator[Cli]:
    """Calls `main`; stdin is a file with this text."""
    before = os.dup(0)

    def call(*argv: str | Path, stdin: str = "") -> Said:
        capfdbinary.readouterr()
        reading, writing = os.pipe()
        os.write(writing, stdin.encode())
        os.close(writing)
        os.dup2(reading, 0)
        os.close(reading)
        status = main([str(one) for one in argv])
        out, err = capfdbinary.readouterr()
        return Said(status, out.decode(), err.decode())

    yield call
    os.dup2(before, 0)
    os.close(before)


def start_program(*argv: str | Path, program: list[str] = PROGRAM, **settings: object) -> subprocess.Popen[str]:
    """The same as a process of its own."""
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([*program, *map(str, argv)], **{**pipes, **settings})  # type: ignore[call-overload, no-any-return]

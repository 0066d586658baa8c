"""The package is deleted under a run, as an upgrade does: the run goes on, and tells the truth to its end."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import bossworker
from bossworker import jobs
from bossworker.system.descendants import children
from tests.cli.conftest import start_program
from tests.conftest import wait_for

_PROGRAM = """
import sys
from bossworker.cli import run_later
from bossworker.cli.main import main
load = run_later.load
run_later.load = lambda: (load(), open("loaded", "w").close())
sys.exit(main())
"""
WAIT = "until test -e go; do sleep 0.01; done; "

Run = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def run(root: Path, here: Path, tmp_path: Path) -> Run:
    """Starts a run by a copy of the package, whose first command waits for `go`, and deletes the copy meanwhile."""
    shutil.copytree(Path(bossworker.__file__).parent, tmp_path / "copy" / "bossworker")
    program = [sys.executable, "-c", _PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "copy"), "PYTHONDONTWRITEBYTECODE": "1"}

    def run(*argv: str) -> subprocess.Popen[str]:
        running = start_program("run", *argv, program=program, env=environment)
        wait_for((here / "loaded").exists)
        wait_for(lambda: host_of(running) is not None)
        shutil.rmtree(tmp_path / "copy")
        return running

    return run


def host_of(running: subprocess.Popen[str]) -> int | None:
    """Once it has its title, and all that it may need."""
    names = {pid: Path(f"/proc/{pid}/comm").read_text() for pid in children(running.pid)}
    return next((pid for pid, name in names.items() if name == "bossworker host\n"), None)


def test_what_fails_is_kept_and_told(run: Run, here: Path) -> None:
    """As if nothing had happened."""
    running = run("-j1", "-c", WAIT + "echo out; echo err >&2; exit 3 # {}", ":::", "a")
    (here / "go").touch()
    out, err = running.communicate(timeout=120)
    assert (running.returncode, out) == (1, "out\n")
    (jobid,) = jobs.listing()
    info = jobs.info(jobid)
    assert info is not None
    assert (info.exit_code, jobs.stdout(jobid), jobs.stderr(jobid)) == (3, "out\n", "err\n")
    assert f"all of it: bossworker log {jobid}\nrerun them: bossworker run --retry-failed" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("options", "command", "told"),
    [
        (["--timeout", "5"], "sleep 60", "timed out"),
        (["--halt", "now,fail=1", "-j2"], "test {} = 1 && exit 7; sleep 60", "exit code 7"),
        ([], "head -c 500000 /dev/zero; exit 9", "exit code 9"),
        (["--json"], "kill -9 $$", "signal 9 (SIGKILL)"),
        (["--keep-order"], "exit 5", "exit code 5"),
        (["--junit", "report"], "exit 5", "exit code 5"),
        (["--results", "results"], "head -c 500000 /dev/zero; exit 5", "exit code 5"),
    ],
    ids=["timeout", "halt", "long output", "killed", "in order", "report", "files"],
)
def test_however_it_fails(run: Run, here: Path, options: list[str], command: str, told: str) -> None:
    running = run(*options, "-c", WAIT + command, ":::", "1", "2")
    (here / "go").touch()
    _, err = running.communicate(timeout=120)
    assert running.returncode
    assert told in err, err
    assert "Traceback" not in err, err
    assert "rerun them: " in err


def test_a_host_that_is_killed_is_replaced(run: Run, here: Path) -> None:
    running = run("--json", "-j1", "-c", WAIT + "exit {}", ":::", "0", "0", "6")
    host = host_of(running)
    assert host is not None
    os.kill(host, signal.SIGKILL)
    (here / "go").touch()
    out, err = running.communicate(timeout=120)
    assert "Traceback" not in err, err
    told = [json.loads(line) for line in out.splitlines()]
    assert not told[0]["ok"]  # whether it was ended, or has ended by itself, and its output is lost
    assert [one["exit_code"] for one in told[1:]] == [0, 6], out
    assert running.returncode == 2
    assert len(jobs.listing()) == 1


_WHAT_IS_NOT_LOADED = """
import ast, sys
from bossworker.commands.hosting import host, later_modules, preparing
later_modules.load(later_modules.OF_HOST)
names = [name for name in sys.modules if name.startswith("bossworker")]
files = [file for name in names if (file := sys.modules[name].__file__).endswith(".py")]
functions = [one for file in files for one in ast.walk(ast.parse(open(file).read())) if hasattr(one, "args")]
for one in {one for function in functions for one in ast.walk(function) if isinstance(one, ast.ImportFrom)}:
    for alias in one.names if one.module.startswith("bossworker") else ():
        if not (hasattr(sys.modules.get(one.module), alias.name) or f"{one.module}.{alias.name}" in sys.modules):
            print(one.module, alias.name)
"""


def test_nothing_is_missing_that_a_host_may_need() -> None:
    """No function, in all that is loaded by then, loads more of the package."""
    program = [sys.executable, "-c", _WHAT_IS_NOT_LOADED]
    ended = subprocess.run(program, capture_output=True, text=True, timeout=120, check=False)
    assert tuple(vars(ended).values())[1:] == (0, "", "")

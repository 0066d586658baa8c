"""CPython's own tests of process pools pass with ours; see `cpython_suite.py`.

They come with some Pythons only; one that has them is looked for here. A few run each time, all with ``--long``.
"""

from __future__ import annotations

import glob
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import cloudpickle
import pytest

import bossworker

SUITE = Path(__file__).with_name("cpython_suite.py")
SOME = ("test_submit", "test_map", "test_hang_gh83386", "test_cancel_futures", "test_first_completed", "test_crash_big")
TIMEOUT = 900


def pythons() -> Iterator[str]:
    """This one first, then the newest."""
    yield sys.executable
    for minor in range(16, 10, -1):
        if found := shutil.which(f"python3.{minor}"):
            yield found
    root = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    yield from sorted(glob.glob(f"{root}/versions/3.1[1-9].*/bin/python3"), reverse=True)


@cache
def python_with_tests() -> str | None:
    for python in pythons():
        command = [python, "-c", "import test.test_concurrent_futures"]
        if subprocess.run(command, capture_output=True, check=False, cwd="/").returncode == 0:
            return python
    return None


def run_suite(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    python = python_with_tests()
    if python is None:
        pytest.skip("no Python here has test.test_concurrent_futures")
    for package in (bossworker, cloudpickle):
        home = Path(package.__file__ or "").parent
        (folder / home.name).symlink_to(home)
    environment = os.environ | {"PYTHONPATH": str(folder)}
    return subprocess.run(
        [python, SUITE, *arguments], capture_output=True, text=True, check=False, env=environment, timeout=TIMEOUT
    )


def check(told: subprocess.CompletedProcess[str], least: int) -> None:
    assert told.returncode == 0, told.stdout + told.stderr
    counts = re.search(r"(\d+) passed, (\d+) failed, .* left out$", told.stdout.rstrip())
    assert counts is not None, told.stdout
    assert int(counts[1]) >= least
    assert counts[2] == "0"


def test_some_of_cpythons_tests(tmp_path: Path) -> None:
    check(run_suite(tmp_path, "--methods", "fork", *SOME), 10)


@pytest.mark.timeout(TIMEOUT)
def test_all_of_cpythons_tests(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    if not request.config.getoption("--long"):
        pytest.skip("takes some three minutes: --long")
    check(run_suite(tmp_path), 80)

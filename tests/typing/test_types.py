"""Programs that use the package are type-checked as a user's are: what is right passes, and mistakes are found."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent
PROJECT = FOLDER.parents[1]
PROMISED = re.compile(r"# error: ([\w, -]+)$")
FOUND = re.compile(r"^tests/typing/(\w+\.py):(\d+): error: .*\[([\w-]+)\]$")


def promised(path: Path) -> set[tuple[str, int, str]]:
    """The errors that a file says are in it, as (file, line, code)."""
    lines = enumerate(path.read_text().splitlines(), 1)
    marked = ((number, PROMISED.search(line)) for number, line in lines)
    return {(path.name, number, code) for number, mark in marked if mark for code in mark[1].split(", ")}


def found(lines: Iterable[str]) -> set[tuple[str, int, str]]:
    errors = [line for line in lines if ": error: " in line]
    matches = [FOUND.match(line) for line in errors]
    assert all(matches), errors
    return {(match[1], int(match[2]), match[3]) for match in matches if match}


@pytest.mark.once("mypy is told which Python it is for")
@pytest.mark.timeout(300)  # where nothing is in its cache, mypy reads all of typeshed first
def test_what_mypy_says() -> None:
    paths = [FOLDER / "usage.py", FOLDER / "mistakes.py"]
    command = [sys.executable, "-m", "mypy", *(str(path.relative_to(PROJECT)) for path in paths)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.stderr == ""
    assert found(ended.stdout.splitlines()) == promised(FOLDER / "mistakes.py")

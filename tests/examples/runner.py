"""Runs programs that use the library as a stranger would: in a process of their own, with warnings as errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import bossworker

PROJECT = Path(__file__).parents[2]
LIBRARY = Path(bossworker.__file__).parents[1]
SECONDS = 60.0  # no program here needs more than a few


def command(script: Path | str, *args: object) -> list[str]:
    """A Python program's argv."""
    return [sys.executable, "-W", "error", str(script), *map(str, args)]


def environment() -> dict[str, str]:
    """Ours, with the library under test first on the path."""
    return {**os.environ, "PYTHONPATH": str(LIBRARY), "PYTHONIOENCODING": "utf-8"}


def run(script: Path | str, *args: object, **settings: Any) -> subprocess.CompletedProcess[str]:
    """Run a Python program to its end, and take down what it says."""
    settings = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | settings
    if "input" in settings:
        del settings["stdin"]
    settings.setdefault("env", environment())
    return subprocess.run(command(script, *args), text=True, timeout=SECONDS, check=False, **settings)


def check_clean(ended: subprocess.CompletedProcess[str]) -> None:
    """It ended well, and nothing was written to stderr: no traceback, no warning."""
    assert (ended.returncode, ended.stderr or "") == (0, ""), ended.stderr


def check_refused(ended: subprocess.CompletedProcess[str], message: str) -> None:
    """It refused its arguments, and said why; no traceback."""
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("usage: ")
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr

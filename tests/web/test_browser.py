"""The page in a real browser: see browser_checks.py, which runs in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.web.browsers import BROWSERS, find_browser

PROJECT = Path(__file__).parents[2]
SECONDS = 270  # for all of them; alone on a machine they take some twenty

if find_spec("playwright") is None:
    pytest.skip("playwright is not installed", allow_module_level=True)

if find_browser() is None:
    pytest.skip(f"there is no browser: none of {', '.join(BROWSERS)}", allow_module_level=True)


@pytest.mark.early
@pytest.mark.once("the page's own JavaScript; what it asks for, the other tests here ask for, too")
@pytest.mark.parametrize(
    ("part", "least"),
    [
        ("quickly", 7),
        pytest.param("thoroughly", 10, marks=pytest.mark.thorough("it is the same page, in the same browser")),
    ],
)
def test_in_a_browser(tmp_path: Path, part: str, least: int) -> None:
    """Many checks in one test, so that tests that run side by side start one browser."""
    places = {"XDG_RUNTIME_DIR": "run", "BOSSWORKER_ROOT": "jobs", "BOSSWORKER_TASKS": "tasks"}
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), **{key: str(tmp_path / places[key]) for key in places}}
    (tmp_path / "run").mkdir(mode=0o700, exist_ok=True)
    command = [sys.executable, "-m", "tests.web.browser_checks", part]
    ran = subprocess.run(
        command, check=False, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    wrong = "\n\n".join(f"{one['name']}: {one['wrong']}" for one in told if one["wrong"])
    assert not wrong, wrong
    assert len(told) >= least, ran.stderr[-5000:]

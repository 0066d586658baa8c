"""The page in a real browser: see browser_checks.py, which runs once, in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
NAMES = (
    "nothing_leaves_the_machine",
    "six_tabs_stay_live",
    "nothing_of_a_job_is_html",
    "a_killed_worker_is_seen",
    "a_wrong_token_is_refused",
    "narrow_screens",
    "the_keyboard_is_enough",
    "jobs_are_cancelled_and_run_again",
    "a_hundred_thousand_jobs",
    "output_is_live_and_tasks_are_steered",
    "everybody_can_read_it",
    "empty_and_trouble",
)
SECONDS = 250  # for all of them; they take some twenty

if find_spec("playwright") is None:
    pytest.skip("playwright is not installed", allow_module_level=True)

from tests.web import browser_checks  # noqa: E402 - which needs playwright

if browser_checks.find_browser() is None:
    pytest.skip(f"there is no browser: none of {', '.join(browser_checks.BROWSERS)}", allow_module_level=True)


@cache
def results(folder: Path) -> dict[str, str]:
    """What went wrong in each, or nothing."""
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    places = {"XDG_RUNTIME_DIR": "run", "BOSSWORKER_ROOT": "jobs", "BOSSWORKER_TASKS": "tasks"}
    for variable, name in places.items():
        environment[variable] = str(folder / name)
    (folder / "run").mkdir(mode=0o700)
    command = [sys.executable, "-m", "tests.web.browser_checks"]
    ran = subprocess.run(
        command, check=False, cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=SECONDS
    )
    told = [json.loads(line) for line in ran.stdout.splitlines()]
    assert told, ran.stderr[-5000:]
    return {one["name"]: one["wrong"] for one in told}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("b")


def test_all_are_run() -> None:
    assert set(NAMES) == set(browser_checks.CHECKS)


@pytest.mark.parametrize("name", NAMES)
def test_in_a_browser(name: str, folder: Path) -> None:
    assert results(folder)[name] == ""

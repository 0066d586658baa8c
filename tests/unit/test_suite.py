"""The suite itself: what its conftest.py promises to each test, however the suite is started."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.once("the suite's own set-up")
PROJECT = Path(__file__).parents[2]
COLLECTING = """
import copyreg, pytest

class Plugin:
    def pytest_collection_finish(self, session):
        self.found = {item.nodeid for item in session.items}

plugin = Plugin()
assert not pytest.main(["--collect-only", "-qq", "-n0", "--thorough", "tests"], [plugin])
print("loaded:", [kind.__name__ for kind in copyreg.dispatch_table if issubclass(kind, BaseException)])
print("costly, and gone:", set(open("tests/costly.txt").read().splitlines()) - plugin.found)
"""


def outcomes_of(tests: str, folder: Path, *before: str) -> dict[str, list[str]]:
    """Of each test in a file: what junit calls its outcome, which is nothing if it has passed."""
    report = folder / "report.xml"
    command = [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", f"--junitxml={report}", tests]
    subprocess.run([*before, *command], cwd=PROJECT, check=False, stdout=subprocess.DEVNULL)
    return {case.attrib["name"]: [told.tag for told in case] for case in ElementTree.parse(report).iter("testcase")}


def test_each_test_finds_signals_as_usual(tmp_path: Path) -> None:
    """Also if a shell has started the suite in the background, and whatever a test has left, which fails."""
    background = ["sh", "-c", 'trap "" INT QUIT HUP; exec "$@"', "sh"]
    assert outcomes_of("tests/unit/signals_left.py", tmp_path, *background) == {
        "test_heard": [],
        "test_heard_by_programs": [],
        "test_leaves_one_ignored": ["error"],
        "test_leaves_one_blocked": ["error"],
        "test_finds_them_as_they_were": [],
    }


def test_collecting() -> None:
    """Nothing is loaded that changes pickles, as ``distributed`` does with those of exceptions.

    And what a quick run leaves out is there.
    """
    found = subprocess.run([sys.executable, "-c", COLLECTING], cwd=PROJECT, check=True, stdout=-1, text=True)
    assert found.stdout.splitlines()[-2:] == ["loaded: []", "costly, and gone: set()"]

"""Fixtures of the tests of commands."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from bossworker.commands.supervision import launching
from tests.commands.disk import small_disk

__all__ = ["small_disk"]


@pytest.fixture(autouse=True)
def launcher_leaves() -> Iterator[None]:
    """This process's launcher, if a test has started one, goes with the test."""
    yield
    launching.close_launcher()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where job directories go in this test."""
    root = tmp_path / "state" / "jobs"
    monkeypatch.setenv("BOSSWORKER_ROOT", str(root))
    return root

"""What tests of tasks get: a pool in a directory of its own, whose tasks end with the test."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from bossworker.commands.supervision.launching import close_launcher
from bossworker.tasks import TaskPool
from tests.conftest import alive, wait_for


@pytest.fixture(autouse=True)
def no_launcher() -> Iterator[None]:
    """The process that forks supervisors leaves with the test."""
    yield
    close_launcher()


@pytest.fixture
def pool(tmp_path: Path, no_launcher: None) -> Iterator[TaskPool]:
    """An empty pool. After the test, deleting all its tasks must leave no file and no process."""
    made = TaskPool(tmp_path / "tasks", mkdir_if_missing=True)
    yield made
    tasks = made.search()
    for task in tasks:
        task.delete()
    assert os.listdir(made.path) == []
    for task in tasks:
        wait_for(lambda pid=task.pid: not alive(pid), what=f"supervisor {task.pid} to end")  # type: ignore[misc]

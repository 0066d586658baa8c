"""Commands that the tests run."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bossworker.tasks import Task
from tests.conftest import wait_for

SLEEP = ["sleep", "3600"]
CAT = ["cat"]


def python(text: str, *args: object) -> list[str]:
    """A Python program, which knows no package but the standard library's, and ours."""
    return [sys.executable, "-c", text, *map(str, args)]


def shell(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


def nested(depth: int) -> dict[str, Any]:
    """Metadata, so deep."""
    made: dict[str, Any] = {}
    for _ in range(depth - 1):
        made = {"in": made}
    return made


def in_itself() -> list[Any]:
    """A list whose members are itself, twice."""
    made: list[Any] = []
    made += [made, made]
    return made


def state(pid: int) -> str:
    """Of a process, a letter as in ps: T if it has stopped."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def wait_for_info(task: Task, holds: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    """Ask until the info is as wanted."""
    wait_for(lambda: holds(task.info(fresh=True)), what=f"the info of {task}")
    return task.info()


def wait_for_output(task: Task, wanted: bytes, stream: str = "stdout") -> None:
    """Wait until a stream holds these bytes."""
    wait_for(lambda: wanted in task.stream(stream).peek(), what=f"{wanted!r}")

"""A crew, as a run has one: scripts for it, and how they have ended."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bossworker.cli.command_crew import CommandCrew
from bossworker.cli.outcomes import Ended, Planned
from bossworker.cli.replacements import Row
from bossworker.commands.hosting.hosting_wire import GROUP, HostSettings
from bossworker.system import processes
from tests.conftest import wait_for


@contextmanager
def crew(folder: Path, slots: int = 2, **settings: Any) -> Iterator[CommandCrew]:
    told = HostSettings(
        slots, str(folder / "long"), settings.pop("how", GROUP), True, settings.pop("env", {}), **settings
    )
    made = CommandCrew(told, "test")
    try:
        yield made
    finally:
        made.close(force=True)


def plan(script: str, place: int, folder: Path) -> Planned:
    return Planned(Row(place + 1, ()), script, place, "", (["/bin/sh", "-c", script], str(folder), "", {}))


def ends(made: CommandCrew, count: int, seconds: float = 60.0) -> dict[int, Ended | None]:
    """How the next so many ended, by their places."""
    found: dict[int, Ended | None] = {}
    until = time.monotonic() + seconds
    while len(found) < count:
        assert processes.await_fd(made.fileno(), 1, until - time.monotonic())
        found |= {plan.place: ended for plan, ended in made.receive()}
    return found


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def pid_in(path: Path) -> int:
    return int(wait_for(lambda: path.exists() and path.read_text().strip()) or 0)

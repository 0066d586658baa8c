"""Who runs the jobs of a run: a host of commands, or a pool for a handler in Python."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from bossworker.cli.outcomes import Ended, Planned
from bossworker.system.records import Protocol

CANCELLED, TIMEOUT = "cancelled", "timeout"


class Crew(Protocol):
    """What a run asks of it."""

    ahead: int
    """Jobs a slot that may be with it at once."""

    def add(self, plans: Sequence[Planned]) -> None:
        """Have them run, in this order."""

    def fileno(self) -> int:
        """Readable when something may have ended."""

    def receive(self) -> list[tuple[Planned, Ended | None]]:
        """What has ended by now, without waiting; None for what was cancelled."""

    def cancel(self, places: Collection[int], kind: str = CANCELLED, queued_only: bool = False) -> None:
        """Stop those with these places. `kind`: whether they are cancelled, or their time is up. `queued_only`: of what
        has not begun, alone.
        """

    def running(self) -> list[tuple[Planned, float]]:
        """What runs, and for how many seconds."""

    def close(self, force: bool = False) -> None:
        """End it, and all that its jobs have left running; `force`: at once."""

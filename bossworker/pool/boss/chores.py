"""What the boss does now and again, besides what its ledger has it do: only while there is something to be done."""

from __future__ import annotations

from typing import Protocol


class Chore(Protocol):
    """One such thing. Whatever has no work for the time being is best not among the boss's chores."""

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until it is due; None: it is not."""

    def attend(self, now: float) -> None:
        """Something is due by the clock: this, or something else."""

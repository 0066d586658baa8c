"""Whether and when a command that has ended is started again: decisions only."""

from __future__ import annotations

NEVER, ON_FAILURE, ALWAYS = POLICIES = ("never", "on-failure", "always")

STEADY_SECONDS = 60.0  # a command that ran this long starts the backoff anew: this end is not one of a series


class Restarts:
    """The policy of one task and its count.

    The wait before the n-th restart of a series is ``backoff * 2 ** (n - 1)``, at most `backoff_max`. An end that
    somebody asked for, through the task, is never followed by a restart of our own.
    """

    __slots__ = ("backoff", "backoff_max", "count", "limit", "policy", "series")

    def __init__(self, policy: str, limit: int | None, backoff: float, backoff_max: float) -> None:
        self.policy = policy
        self.limit = limit
        self.backoff = backoff
        self.backoff_max = backoff_max
        self.count = 0
        """Restarts of our own so far."""
        self.series = 0

    def delay(self, *, failed: bool, requested: bool, ran_seconds: float) -> float | None:
        """Seconds to wait before the next start, for a command that has just ended; None: it stays ended."""
        wanted = self.policy == ALWAYS or (self.policy == ON_FAILURE and failed)
        if requested or not wanted or (self.limit is not None and self.count >= self.limit):
            return None
        if ran_seconds >= STEADY_SECONDS:
            self.series = 0
        exponent = min(self.series, 64)  # further doubling could only overflow
        return min(self.backoff * 2.0**exponent, self.backoff_max)

    def started(self) -> None:
        """The command was started again, as `delay` had said."""
        self.count += 1
        self.series += 1

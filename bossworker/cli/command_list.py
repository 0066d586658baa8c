"""Commands: those that wait in queues, and those that are jobs, in one list."""

from __future__ import annotations

from collections.abc import Iterator

from bossworker.cli.job_entries import JobEntry, QueuedEntry, queued_entries
from bossworker.commands import record


class CommandList:
    """All of them as they are now: the newest first, each once."""

    def __init__(self, take_up: bool = True) -> None:
        """
        Args:
            take_up: Where nobody sees to a queue, have somebody do so.
        """
        # Queued ones first: what starts meanwhile is a job, and so is not passed over.
        self._queued = _queued(take_up)
        there = record.listing()
        self.ids = sorted({*there, *self._queued} if self._queued else there, reverse=True)  # they begin with the time

    def __iter__(self) -> Iterator[JobEntry | QueuedEntry]:
        return map(self.entry, self.ids)

    def entry(self, jobid: str) -> JobEntry | QueuedEntry:
        """The one of this id, whether or not there is such a job. A queued one tells, too, once it has started."""
        return self._queued.get(jobid) or JobEntry(jobid)


def _queued(take_up: bool) -> dict[str, QueuedEntry]:
    return {entry.id: entry for entry in queued_entries(take_up)}

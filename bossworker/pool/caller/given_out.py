"""Which results of a pool with a journal the program has got."""

from __future__ import annotations

import time
from collections.abc import Iterable

from bossworker.journal.ranges import Ranges
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.wire.segments import Segment

CHEAP_SECONDS = 0.0001  # a look which results the program has got may take this long each time;
LOOK_SHARE = 20  # after a longer one, the next is not due for this many times as long


class GivenOut:
    """A result counts as got when the program asks for another one, or shuts the pool down in order: so what it was
    busy with when it died comes again. Whoever tells of them tells, at each look, what was found at the one before.

    Several threads may be in here at once, and Ctrl-C may cut each of them off anywhere. So an id is put into the next
    set before it is taken out of the one that it was in, each by one call of the set's own: it may be found twice, or
    told of twice, which does no harm. None is left out.
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._here: set[int] = set()  # ids of jobs whose results have come, and that were not found yet
        self._found: set[int] = set()  # ids of those that the program has got, as of the last look
        self._next_look = 0.0

    def arrived(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._here.update(range(segment.first_id, segment.first_id + segment.jobs))

    @property
    def due(self) -> bool:
        """Whether there may be a look now: where it takes long, it is seldom."""
        return time.monotonic() >= self._next_look

    def look(self) -> None:
        """Find those that the program has got by now."""
        began = time.thread_time()  # of this thread alone: on a busy machine it stands still now and then
        found = self._inbox.given_out(list(self._here))
        # Into the next set before out of this one: Ctrl-C in between, or a second thread that looks, finds an id twice.
        # Told of twice, it does no harm; left out, its result would come again after a restart.
        self._found.update(found)
        self._here.difference_update(found)
        cost = time.thread_time() - began
        self._next_look = time.monotonic() + LOOK_SHARE * cost if cost > CHEAP_SECONDS else 0.0

    def found(self) -> list[int]:
        """Ids of those that the program has got, as of the last look, and that were not told of yet."""
        return sorted(self._found)

    def told(self, ids: list[int]) -> None:
        """These have been told of. (Another thread may have found more meanwhile.)"""
        self._found.difference_update(ids)


def as_ranges(ids: Iterable[int]) -> Ranges:
    """The same ids."""
    return Ranges(range(job_id, job_id + 1) for job_id in ids)

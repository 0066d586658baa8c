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
    """

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._here = Ranges()  # ids of jobs whose results have come, and that were not found yet
        self.found: list[range] = []  # ids of those that the program has got, as of the last look
        self._next_look = 0.0

    def arrived(self, segments: Iterable[Segment]) -> None:
        for segment in segments:
            self._here.add(segment.first_id, segment.first_id + segment.jobs)

    @property
    def due(self) -> bool:
        """Whether there may be a look now: where it takes long, it is seldom."""
        return time.monotonic() >= self._next_look

    def look(self) -> None:
        """Find those that the program has got by now."""
        began = time.thread_time()  # of this thread alone: on a busy machine it stands still now and then
        here = [job_id for ids in self._here for job_id in ids]
        for one in Ranges(range(job_id, job_id + 1) for job_id in self._inbox.given_out(here)):
            self._here.remove(one.start, one.stop)
            self.found.append(one)
        cost = time.thread_time() - began
        self._next_look = time.monotonic() + LOOK_SHARE * cost if cost > CHEAP_SECONDS else 0.0

    def told(self, count: int) -> None:
        """The first of those that were found have been told of. (Another thread may have found more.)"""
        self.found = self.found[count:]

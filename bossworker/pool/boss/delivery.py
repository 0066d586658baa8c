"""Results on their way from the boss to whoever added the jobs: as many at a time as it takes, the rest waits here.

To the caller, they go behind what the pool's log says, and behind what their jobs have printed.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from bossworker.errors import CANCELLED
from bossworker.failure import KIND_BITS, Outcome, encode_text
from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.failed_jobs import FailedJobs
from bossworker.pool.boss.notes import Notes
from bossworker.pool.boss.output_relay import OutputRelay
from bossworker.pool.boss.poller import Poller
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import DOOR_BITS, FIRST_CLIENT_ID, Kind
from bossworker.pool.wire.parcel import Held
from bossworker.pool.wire.segments import END, Segment, split

RESULTS_BYTES = 1 << 20  # a frame of results is closed at this size, so that the first are out early

_OK, _OK_WHOLE = int(Outcome.OK), int(Outcome.OK | Outcome.WHOLE)  # as enums, they are slow


class CallerGone(Exception):
    """The caller hung up or died: end everything."""


class Undelivered:
    """What waits for the caller, or for a door."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self.waiting: deque[Segment] = deque()

    @property
    def unsent(self) -> bool:
        return bool(self.waiting or self._link.unsent)

    def put(self, segment: Segment) -> None:
        """Have results sent."""
        self.waiting.append(segment)

    def send(self) -> None:
        """Pass on what the other end takes now. Raises LinkClosed."""
        if not self._link.unsent or self._link.flush():
            while self.waiting and self._send_frame():
                pass

    def _send_frame(self) -> bool:
        segments: list[Segment] = []
        size = 0
        file = None
        while self.waiting and size < RESULTS_BYTES and file is None:
            segment = self.waiting.popleft()
            segments.append(segment)
            size += segment.size
            file = segment.beside
        head = b"".join([segment.head() for segment in segments])
        body = segment.body() if len(segments) == 1 else [part for segment in segments for part in segment.body()]
        return self._link.send(Kind.RESULTS, head, body, file.copies() if isinstance(file, Held) else ())


class Delivery(Undelivered):
    """What waits for the caller, and how much of what was noted ended well; what waits for each of the `doors`."""

    def __init__(
        self,
        caller: Link,
        poller: Poller,
        notes: Notes,
        ring: EventRing,
        failures: FailedJobs,
        keep: Callable[[Segment], None] | None = None,
    ) -> None:
        """`keep` is told of results that are about to go to the caller."""
        super().__init__(caller)
        self.notes = notes
        self.output: OutputRelay | None = None  # where workers' output goes, if it is relayed
        self.ring = ring
        self.failures = failures
        self.doors: dict[int, Undelivered] = {}  # a DoorResults each
        self.done = 0
        self.failed = 0
        self._poller = poller
        self._keep = keep

    @property
    def unsent(self) -> bool:
        return bool(self.waiting or self._link.unsent or (self.output is not None and self.output.waiting))

    @property
    def holds_up_output(self) -> bool:
        """Whether what workers print is not read just now, as the caller does not take it: they may wait for that."""
        return self.output is not None and self.output.paused

    def deliver(self) -> None:
        """Send what the caller takes now; the poller tells when it takes more. Raises CallerGone."""
        try:
            if self.notes.held:
                self.notes.release()
            if self.output is not None:
                self.output.send()
            if self.output is None or not self.output.waiting:  # or results would overtake their jobs' lines
                self.send()
        except LinkClosed:
            raise CallerGone from None
        if self._link.unsent:
            self._poller.refresh(self._link)

    def note(self, segment: Segment, cancelled: set[int]) -> None:
        """Results of jobs; those of cancelled ones become that."""
        if not cancelled or cancelled.isdisjoint(range(segment.first_id, segment.first_id + segment.jobs)):
            self.add(segment)
            return
        for one in split(segment):
            self.add(_cancellation(one) if one.first_id in cancelled else one)

    def add(self, segment: Segment) -> None:
        if segment.jobs:
            outcomes = bytes(segment.outcomes)
            good = outcomes.count(_OK) + outcomes.count(_OK_WHOLE)
            self.done += good
            if good < segment.jobs:
                self.failed += segment.jobs - good
                self.failures.note(segment, outcomes)
            if segment.first_id < FIRST_CLIENT_ID:
                self.waiting.append(segment)
                if self._keep is not None:
                    self._keep(segment)
            elif (door := self.doors.get(segment.first_id >> DOOR_BITS)) is not None:  # else nobody wants it any more
                door.put(segment)
            self.ring.ended(segment)


def _cancellation(segment: Segment) -> Segment:
    """The same job's result, as cancelled; what a handler had to say in spite of that stays."""
    said = segment.outcomes[0]
    if said & Outcome.GIVEN:
        return segment._replace(outcomes=bytes((Outcome.CANCELLED | (said & ~KIND_BITS),)))
    outcome = bytes((Outcome.CANCELLED | Outcome.TEXT,))
    payload = encode_text(CANCELLED)
    ends = END.pack(len(payload))
    return segment._replace(base=0, ends=ends, outcomes=outcome, payload=payload, beside=None)

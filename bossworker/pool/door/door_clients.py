"""A client of a door: what it has unfinished, what waits for it, and how much of that it takes now."""

from __future__ import annotations

import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

from bossworker.pool.door.door_protocol import WINDOW, Pieces
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.client_jobs import MOST_BYTES, Allowance
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.parcel import give_back, with_data
from bossworker.pool.wire.segments import Segment


@dataclass(slots=True)
class Keepsake:
    """What is kept for the next client of an identity: batches of which a result may not have been taken."""

    batches: dict[int, Batch] = field(default_factory=dict)  # by first id
    left: dict[int, set[int]] = field(default_factory=dict)  # of each, the ids whose results have not been taken
    results: dict[int, Segment] = field(default_factory=dict)  # by first id

    def add(self, batch: Batch) -> None:
        self.batches[batch.first_id] = batch
        self.left[batch.first_id] = set(batch.ids)

    def take(self, ids: Iterable[int]) -> None:
        """The client's program has got these results."""
        gone = set(ids)
        for first, left in list(self.left.items()):
            left.difference_update(gone)
            if not left:
                del self.left[first], self.batches[first]
        open_ids = set().union(*self.left.values())
        for first, segment in list(self.results.items()):
            if open_ids.isdisjoint(range(first, first + segment.jobs)):
                del self.results[first]

    def taken(self) -> list[int]:
        """Ids in the batches whose results have been taken."""
        return [
            job_id for first, batch in self.batches.items() for job_id in batch.ids if job_id not in self.left[first]
        ]


class DoorClient(Allowance):
    """See the module. Ids are the client's own."""

    def __init__(self, number: int, identity: str, told: dict[str, Any], journaled: bool = False) -> None:
        super().__init__()
        self.number = number
        self.journaled = journaled  # the pool's journal has its jobs
        self.call: list[tuple[Batch, int]] = []  # jobs that it wants to be taken as a whole, and their bytes
        self.identity = identity
        self.form: str = told["form"]
        self.program: str = told["program"]
        self.pid: int = told["pid"]
        self.since = time.time()
        self.route: bytes | None = None  # None: it is away, and what it has is kept
        self.line: Link | None = None  # of its own, beside ZeroMQ
        self.expects_line = False  # it was offered one, and has not said that it does without
        self.holds_up = False  # it does not take all that is sent over its line
        self.keepsake: Keepsake | None = Keepsake() if told["keep"] else None
        self.counted_by_boss = False  # it has a line to the boss, which knows what it has unfinished
        self.next_id = 1  # above all ids that it has used
        self.outgoing: deque[Segment] = deque()
        self.waiting_bytes = 0
        self.sent = 0  # bytes of results, since it came
        self.credited = 0  # of these, what it has taken in
        self.requests = 0  # that wait for an answer
        self.closing = False  # it adds nothing more
        self.pieces = Pieces()

    def why_not(self, batch: Batch, size: int) -> str:
        """Why these jobs are too many, if it is for the door to say; empty when they are not."""
        return "" if self.counted_by_boss else self.why_full(batch, size, self.waiting_bytes)

    def why_none(self, call: list[tuple[Batch, int]]) -> str:
        """The same for a call, which is taken as a whole."""
        unfinished, job_bytes = self.unfinished, self.job_bytes
        try:
            for batch, size in call:
                if why := self.why_not(batch, size):
                    return why
                self.add(batch.count, size)
            return ""
        finally:
            self.unfinished, self.job_bytes = unfinished, job_bytes

    def submit(self, batch: Batch, size: int) -> None:
        """Jobs were added."""
        if not self.counted_by_boss:
            self.add(batch.count, size)
        self.next_id = max(self.next_id, batch.first_id + batch.count)
        if self.keepsake is not None:
            self.keepsake.add(batch)

    @property
    def takes_too_little(self) -> bool:
        """Whether so much waits for it that it has to go. (Of others, no more jobs are taken then.)"""
        return self.counted_by_boss and self.waiting_bytes > MOST_BYTES

    def take_over_figures(self, told: dict[str, Any]) -> None:
        """The boss has no line to it any more: all goes by the door from now on."""
        if self.counted_by_boss:
            self.counted_by_boss = False
            self.unfinished, self.done = told.get("unfinished", 0), told.get("done", self.done)

    def receive(self, segment: Segment) -> None:
        """Results have come."""
        self.count(segment.jobs)
        self._queue(segment)
        if self.keepsake is not None:
            self.keepsake.results[segment.first_id] = segment

    def _queue(self, segment: Segment) -> None:
        self.outgoing.append(segment)
        self.waiting_bytes += segment.size

    @property
    def takes_file(self) -> bool:
        """Whether a memory file can go to it now: it never waits here, where it would take a descriptor."""
        return self.line is not None and self.keepsake is None and not self.holds_up and not self.outgoing

    def ready(self) -> Iterator[Segment]:
        """Results to be sent now. Whoever sends one adds its bytes to `sent` before it takes the next."""
        while self.route is not None and not self.expects_line and self.outgoing and self.sent < self.credited + WINDOW:
            segment = self.outgoing.popleft()
            self.waiting_bytes -= segment.size
            yield segment

    def take(self, ids: Iterable[int]) -> None:
        """Its program has got these results."""
        if self.keepsake is not None:
            self.keepsake.take(ids)

    def drop_results(self) -> None:
        """It wants nothing more."""
        self.outgoing.clear()
        self.waiting_bytes = 0
        self.keepsake = None

    def credit(self, total: int) -> None:
        """It has taken in this many bytes of results, since it came."""
        self.credited = max(self.credited, min(total, self.sent))

    @property
    def through(self) -> bool:
        """Whether it has all that it will get."""
        return self.closing and not self.unfinished and not self.outgoing

    def come(self, route: bytes, told: dict[str, Any]) -> None:
        """It is here, or here again: then it gets what it has not taken."""
        self.route = route
        self.program, self.pid, self.since = told["program"], told["pid"], time.time()
        self.sent = self.credited = self.requests = 0
        self.closing = False
        self.call = []
        self.pieces = Pieces()
        if self.keepsake is not None:
            self.outgoing.clear()
            self.waiting_bytes = 0
            for segment in self.keepsake.results.values():
                self._queue(segment)

    def describe(self, told: dict[str, Any] | None = None) -> dict[str, Any]:
        """For ``Door.clients``. `told`: the boss's figures, of one that it counts."""
        figures = told or {"unfinished": self.unfinished, "done": self.done}
        return {
            "identity": self.identity,
            "program": self.program,
            "pid": self.pid,
            "since": self.since,
            "connected": self.route is not None,
            "unfinished": figures["unfinished"],
            "waiting": sum(segment.jobs for segment in self.outgoing),
            "done": figures["done"],
        }


class ClientList:
    """All clients of a door."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._last = 0
        self.by_number: dict[int, DoorClient] = {}
        self.by_route: dict[bytes, DoorClient] = {}
        self.by_identity: dict[str, DoorClient] = {}

    def __len__(self) -> int:
        return len(self.by_number)

    def new(self, identity: str, told: dict[str, Any]) -> DoorClient:
        """One that was not here before. Numbers are used again as late as can be."""
        while True:
            self._last = self._last % self._most + 1
            if self._last not in self.by_number:
                break
        client = DoorClient(self._last, identity, told)
        self.take_in(client)
        return client

    def take_in(self, client: DoorClient) -> None:
        self.by_number[client.number] = self.by_identity[client.identity] = client

    def attach(self, client: DoorClient, route: bytes, told: dict[str, Any]) -> None:
        client.come(route, told)
        self.by_route[route] = client

    def detach(self, client: DoorClient) -> None:
        """It is away."""
        if client.route is not None:
            self.by_route.pop(client.route, None)
            client.route = None

    def remove(self, client: DoorClient) -> None:
        """Nothing of it is left."""
        self.detach(client)
        self.by_number.pop(client.number, None)
        self.by_identity.pop(client.identity, None)


def whole_segment(segment: Segment, file: int) -> Segment:
    """A large result whose data came in a file."""
    try:
        payload = with_data(segment.payload, file)
    except OSError:
        payload = bytes(segment.payload)  # the table alone: its reader finds that the data is missing
    give_back(file)
    return segment._replace(payload=payload, base=0, ends=array("Q", [len(payload)]).tobytes(), beside=None)

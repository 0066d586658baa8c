"""Jobs of clients that come by a door and are in the journal: where they come from, and where their results go.

They run as those of the program do. Their results go to the door where the client of that identity is, or was last; and
wait here for it where it is nowhere.
"""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Iterable, Iterator
from itertools import count

from bossworker.journal.adding_side import AddCall, Cancel
from bossworker.journal.client_table import FIRST_OF_CLIENTS, ids_of
from bossworker.journal.database import Database, DiskFull
from bossworker.journal.door_side import DoorSide
from bossworker.journal.handing_over import stored_results
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import CLIENT_BITS, Kind
from bossworker.pool.wire.segments import Segment

FIRST_REQUEST = 1 << 62  # numbers of requests that we ask the boss for doors: the program's are below
FAREWELL_SECONDS = 1.0  # for doors to take the last results


class DoorJobs:
    """See the module. `cancel` is called with the number of a request, ids, and how."""

    def __init__(self, store: Database, cancel: Callable[[int, list[int], bytes], None]) -> None:
        self.sides: list[DoorSide] = []
        self._store = store
        self._cancel = cancel
        self._places: dict[int, DoorSide] = {}  # where the clients are, by their numbers
        self._requests: dict[int, tuple[DoorSide, int]] = {}  # of doors, by the numbers that the boss knows
        self._numbers = count(FIRST_REQUEST)

    # -- what comes -------------------------------------------------------------------------------------

    def read(self, ready: set[int], opened: Iterable[Link]) -> None:
        """Take in what has come; `opened`: lines to doors that were opened just now."""
        for side in self.sides:
            if side.is_ready(ready):
                side.read()
        self.sides += map(DoorSide, opened)

    def take_calls(self) -> list[AddCall]:
        return [call for side in self.sides for call in side.take_calls()]

    def take_retrieved(self) -> list[range]:
        return [ids for side in self.sides for ids in side.take_retrieved()]

    def take_cancels(self) -> list[Cancel]:
        return [cancel for side in self.sides for cancel in side.take_cancels()]

    def why_not(self, call: AddCall, taken: Ranges) -> str:
        """Why a call's jobs cannot be taken; `taken`: the ids of those that are being taken now."""
        for batch in call.batches:
            ids = batch.ids
            if ids.start < FIRST_OF_CLIENTS or ids.stop - 1 >> CLIENT_BITS != ids.start >> CLIENT_BITS:
                return f"a client has no job {ids.start}"
            if taken.within(ids.start, ids.stop) or self._store.jobs.has_any(ids):
                return f"ids from {ids.start & messages.OWN_ID} on were used before"
            taken.add(ids.start, ids.stop)
        return ""

    # -- what goes to them ------------------------------------------------------------------------------

    def send_theirs(self, segments: list[Segment]) -> list[Segment]:
        """Send results to the clients whose they are; the others."""
        if not any(segment.first_id >= FIRST_OF_CLIENTS for segment in segments):
            return segments
        for segment in segments:
            side = self._places.get(segment.first_id >> CLIENT_BITS)
            if segment.first_id >= FIRST_OF_CLIENTS and side is not None:
                side.send_results([segment])
        return [segment for segment in segments if segment.first_id < FIRST_OF_CLIENTS]

    def number_for(self, cancel: Cancel) -> int:
        """Of a door's request, as the boss is to know it."""
        number = next(self._numbers)
        self._requests[number] = cancel.line, cancel.number  # type: ignore[assignment]
        return number

    def divert(self, frames: Iterable[Frame]) -> Iterator[Frame]:
        """Frames of the boss, but for answers to what doors have asked: those go to them."""
        for frame in frames:
            if frame.kind is Kind.REPLY and self._requests:
                side, number = self._requests.pop(messages.REQUEST.unpack(frame.head)[0], (None, 0))
                if side is not None:
                    if number:
                        side.send(Kind.REPLY, messages.REQUEST.pack(number), [frame.body])
                    continue
            yield frame

    # -- who comes and goes -----------------------------------------------------------------------------

    def see_off(self) -> None:
        """Those that leave, once their calls are accepted."""
        for side in self.sides:
            for number, client in side.take_leaving():
                self._leave(side, number, client)

    def welcome(self, got: Ranges) -> None:
        """Those that come, once all results that are on the disk were sent to where the clients were.

        `got`: ids of jobs whose results were got; it is not on the disk yet that they were.
        """
        for side in self.sides:
            for number, identity in side.take_hellos():
                self._introduce(side, number, identity, got)
        if any(side.ended for side in self.sides):
            self.sides = [side for side in self.sides if not side.ended]
            self._places = {client: side for client, side in self._places.items() if not side.ended}

    def _leave(self, side: DoorSide, number: int, client: int) -> None:
        """A client is gone; with a request, what it has is nobody's any more."""
        if self._places.get(client) is side:
            del self._places[client]
        if not number:
            return
        ids = ids_of(client)
        unfinished = self._store.unfinished(ids)
        self._places[client] = side  # it waits for the ends of these
        side.note_retrieved(self._store.jobs.ids_within(ids))
        self._cancel(self.number_for(Cancel(side, number, [], b"")), [one for run in unfinished for one in run], b"")

    def _introduce(self, side: DoorSide, number: int, identity: str, got: Ranges) -> None:
        """Tell a door which client that is, and what there is of it: jobs, results, and which of them it has got."""
        try:
            client = self._number_of(identity)
        except DiskFull as problem:
            side.reply(number, {"refused": f"the journal of the pool has no room: {problem}"})
            return
        if client is None:
            side.reply(number, {"refused": "the journal of the pool has too many clients"})
        elif self._places.get(client, side) is not side:
            side.reply(number, {"refused": "a client of this identity is at another door of the pool"})
        else:
            self._places[client] = side
            taken = self._give_back(side, ids_of(client), got)
            told = [[one.start & messages.OWN_ID, len(one)] for one in taken]
            side.reply(number, {"number": client, "next_id": self._store.clients.next_id(client), "taken": told})

    def _number_of(self, identity: str) -> int | None:
        number = self._store.clients.number_of(identity)
        if number is None:
            with self._store.transaction:
                number = self._store.clients.add(identity)
        return number

    def _give_back(self, side: DoorSide, ids: range, got: Ranges) -> Ranges:
        """Jobs of which some results were not got, and those results; the jobs of these whose were."""
        taken, store = Ranges(), self._store
        retrieved = Ranges((*store.retrieved.within(ids), *store.forgotten.within(ids), *got))
        finished = Ranges(store.results.ids_within(ids))
        for row in store.jobs.rows_within(ids):
            left = retrieved.missing(row.first_id, row.ids.stop)
            if not left:
                continue
            side.recall(store.jobs.filled(store.jobs.batch(row), row.seq))
            for one in retrieved.within(row.first_id, row.ids.stop):
                taken.add(one.start, one.stop)
            for one in (found for some in left for found in finished.within(some.start, some.stop)):
                for segment in stored_results(store, one):
                    side.send_results([segment])
        return taken

    # -- the end ----------------------------------------------------------------------------------------

    def say_farewell(self) -> None:
        """The pool is through: the doors get what they have not taken, if they take it soon."""
        for side in self.sides:
            side.send(Kind.CLOSED)
        deadline = time.monotonic() + FAREWELL_SECONDS
        while time.monotonic() < deadline:
            waiting = [side for side in self.sides if side.link.unsent and not side.ended]
            if not waiting:
                return
            poll = select.poll()
            for side in waiting:
                side.register(poll)
            poll.poll(100)
            for side in waiting:
                side.read()

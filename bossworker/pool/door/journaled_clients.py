"""Clients whose jobs the pool's journal keeps: those with ``keep=True``, where the pool has one.

What such a client adds goes to the journal's scribe, in calls that are taken as a whole, and from there to the boss;
its results come the same way. So both are on the disk before the client hears of them, and are there for the next
client of its identity, also when this door, its pool and their machine have ended meanwhile. What the door knows of a
client is told by the scribe as it comes; it then keeps it in memory, as of other clients with ``keep=True``.
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable, Iterable
from typing import Any

from bossworker.pool.door import door_protocol
from bossworker.pool.door.boss_line import BossLine, decoded
from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.door_clients import ClientList, DoorClient
from bossworker.pool.door.door_poller import DoorPoller
from bossworker.pool.door.greeting import Refused, check_hello, identity_of
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import CLIENT_BITS, LAST_CLIENT, OWN_ID, Kind, ProtocolError
from bossworker.pool.wire.segments import Segment, read_segments


class JournaledClients:
    """See the module. `on_results` takes results of clients that are known here."""

    def __init__(
        self,
        line: Link,
        poller: DoorPoller,
        clients: ClientList,
        mail: ClientMail,
        on_results: Callable[[list[Segment], None], None],
    ) -> None:
        self.line = BossLine(line, poller)
        self.over = False  # nothing more will come
        self._poller = poller
        self._clients = clients
        self._mail = mail
        self._on_results = on_results
        self._recalled: dict[int, list[Batch]] = {}  # of clients that are being asked for, by their numbers
        self._results: dict[int, list[Segment]] = {}
        poller.watch(self.line.fileno(), self._read)

    # -- who comes --------------------------------------------------------------------------------------

    def fetch(
        self, told: dict[str, Any], key: str, on_known: Callable[[], None], on_refused: Callable[[Refused], None]
    ) -> bool:
        """Whether it is asked for what there is of a client, which says this of itself: then `on_known` is called.

        Refused: as by `Reception.let_in`.
        """
        check_hello(told, self._mail.form)
        if not told["keep"]:
            return False
        told["identity"] = told["identity"] or f"{told['program']}-{told['pid']}-{time.monotonic_ns()}"
        identity = identity_of(told, key)
        if identity in self._clients.by_identity:
            return False
        if self.over:
            raise Refused("the pool is being shut down")
        if len(self._clients) >= door_protocol.MOST_CLIENTS:
            raise Refused(f"{len(self._clients)} clients are here, or have something here, and no more are let in")

        def found(answer: dict[str, Any]) -> None:
            if "refused" in answer:
                on_refused(Refused(answer["refused"]))
                return
            batches = self._recalled.pop(answer["number"], [])
            segments = self._results.pop(answer["number"], [])
            if identity not in self._clients.by_identity:  # else another one came in between, and has them
                self._make(identity, told, answer, batches, segments)
            on_known()

        self.line.ask(Kind.CLIENTS, b"", f"{self._mail.form}:{identity}".encode(), decoded(found))
        return True

    def _make(
        self,
        identity: str,
        told: dict[str, Any],
        answer: dict[str, Any],
        batches: list[Batch],
        segments: list[Segment],
    ) -> None:
        """A client as the journal knows it; for now, it is away."""
        client = DoorClient(answer["number"], identity, told, journaled=True)
        self._clients.take_in(client)
        for batch in batches:
            client.submit(batch, len(batch.payload))
        taken = [job_id for first, jobs in answer["taken"] for job_id in range(first, first + jobs)]
        for segment in segments:
            client.receive(segment)
        client.count(len(taken))
        client.take(taken)
        client.next_id = answer["next_id"]

    def leave(self, client: DoorClient) -> None:
        """It is gone, and nothing of it is here any more. What it does not want to be kept is nobody's."""
        if client.keepsake is None:
            self.line.forget(client.number, lambda answer: None)
        self.line.tell(Kind.LINE_END, messages.COUNT.pack(client.number))

    def holds_up_end(self) -> bool:
        """Whether results may still come for a client that is here."""
        return not self.over and any(client.journaled for client in self._clients.by_route.values())

    # -- what they add ----------------------------------------------------------------------------------

    def record(self, client: DoorClient, on_told: Callable[[list[Batch], dict[str, Any]], None]) -> None:
        """Have what a client has sent accepted, as a whole; `on_told` hears of the jobs, and why they were not."""
        call, client.call = client.call, []
        batches = [batch for batch, _ in call]
        if why := client.why_none(call):
            on_told(batches, {"refused": why})
            return

        def answered(told: dict[str, Any]) -> None:
            if "refused" not in told:
                for batch, size in call:
                    client.submit(batch, size)
            on_told(batches, told)

        for batch in batches:
            head = bytearray(batch.head())
            head[:8] = _whole(client, batch.first_id).to_bytes(8, "little")
            self.line.tell(Kind.SUBMIT, bytes(head), *batch.body())
        self.line.ask(Kind.RECORD, b"", b"", decoded(answered))

    def taken(self, client: DoorClient, ids: Iterable[int]) -> None:
        """Its program has got these results. ProtocolError: it has no such jobs."""
        whole = array("Q", [_whole(client, job_id) for job_id in ids])
        self.line.tell(Kind.TAKEN, b"", whole.tobytes())

    # -- what comes from the journal --------------------------------------------------------------------

    def _read(self) -> None:
        try:
            self.line.receive_each(self._on_frame)
        except LinkClosed:
            self.over = True
            self._poller.forget(self.line.fileno())

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULTS:
                for segment in read_segments(frame.head, frame.body):
                    self._on_segment(segment)
            case Kind.RECALL:
                batch = Batch.read(frame.head, frame.body)
                number, batch.first_id = batch.first_id >> CLIENT_BITS & LAST_CLIENT, batch.first_id & OWN_ID
                self._recalled.setdefault(number, []).append(batch)
            case Kind.CLOSED:
                self.over = True

    def _on_segment(self, segment: Segment) -> None:
        number = segment.first_id >> CLIENT_BITS & LAST_CLIENT
        if number in self._recalled:
            own = segment._replace(first_id=segment.first_id & OWN_ID)
            self._results.setdefault(number, []).append(own)
        else:
            self._on_results([segment], None)


def _whole(client: DoorClient, own_id: int) -> int:
    """The id that the journal knows a job by."""
    if not 0 < own_id <= OWN_ID:
        raise ProtocolError(f"a job with id {own_id}")
    return client.number << CLIENT_BITS | own_id

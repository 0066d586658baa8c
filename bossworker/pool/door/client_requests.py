"""What clients ask a door for, in frames or JSON: checked, and passed on to the boss under the ids that it knows.

Whatever here is no proper request raises ProtocolError, or what Python makes of nonsense; the message is dropped then.
"""

from __future__ import annotations

import os
import re
import time
from array import array
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from bossworker.failure import Outcome, encode_text
from bossworker.pool.door import json_form
from bossworker.pool.door.boss_line import BossLine, decoded
from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.door_clients import DoorClient
from bossworker.pool.door.door_protocol import MOST_REQUESTS
from bossworker.pool.door.greeting import client_number
from bossworker.pool.door.journaled_clients import JournaledClients
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.client_jobs import read_batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import CLIENT_BITS, OWN_ID, Kind, ProtocolError
from bossworker.pool.wire.parcel import give_back, into_file, is_parcel, with_data
from bossworker.pool.wire.segments import Segment, single
from bossworker.watch.event_records import DOWN, ENDED, FROM_NOW, LOG, PROGRESS, QUEUED, STARTED, UP

MOST_LENT = 64  # jobs of a door that the boss has with a file each; more go without, as it has many descriptors
JOB_RECORDS = (QUEUED, STARTED, ENDED, PROGRESS, LOG)
ALL_OWN = 0  # in the place of a job's id, which are from 1 on: all jobs of the client that asks
_TITLES = re.compile(r"^(worker \d+, process \d+: job )(\d+)(?= for )", re.MULTILINE)  # of stacks: boss/stacks.py
_OWNERS = "that is for the program that made the pool"


class ClientRequests:
    """See the module. `door` is the number above the clients' in all ids; `lose` drops a client that leaves."""

    def __init__(
        self,
        boss: BossLine,
        mail: ClientMail,
        door: int,
        default: JobOptions,
        lose: Callable[[DoorClient], None],
        journal: JournaledClients | None,
    ) -> None:
        self._boss = boss
        self._mail = mail
        self._door = door
        self._journal = journal
        self._default = default
        self._lose = lose
        self._lent: set[int] = set()  # ids, in the boss's terms, of jobs that went with a file
        self.submitted = False  # whether jobs have come, whose results may come within the instant

    def on_frame(self, client: DoorClient, frame: Frame) -> None:
        match frame.kind:
            case Kind.PIECE:
                if (whole := client.pieces.add(frame)) is not None:
                    self.on_frame(client, whole)
            case Kind.SUBMIT:
                batch = read_batch(frame, client.line is not None and client.keepsake is None)
                self._submit(client, batch, len(frame.body), frame.fd)
            case Kind.RECORD if client.journaled:
                self._record(client, *messages.unpack(messages.REQUEST, frame.head))
            case Kind.CREDIT:
                self._credit(client, *messages.unpack(messages.CREDIT, frame.head))
            case Kind.CANCEL:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                queued_only = bytes(frame.head[messages.REQUEST.size :]) == messages.QUEUED_ONLY
                self._cancel(client, number, array("Q", bytes(frame.body)), queued_only)
            case Kind.STATS | Kind.STACK | Kind.EVENTS as kind:
                self._on_question(client, kind, frame)
            case Kind.TAKEN:
                self._take(client, array("Q", bytes(frame.body)))
            case Kind.CLOSE | Kind.STOP | Kind.FORGET as kind:
                self._leave(client, kind.name.lower())
            case kind if len(frame.head) >= messages.REQUEST.size:  # a request of the owner's: it must have an answer
                (number,) = messages.REQUEST.unpack_from(frame.head)
                self._mail.refuse(client, number, _OWNERS)
            case kind:
                raise ProtocolError(f"a frame of kind {kind!r} from a client")

    def _on_question(self, client: DoorClient, kind: Kind, frame: Frame) -> None:
        (number,) = messages.REQUEST.unpack_from(frame.head)
        more = frame.head[messages.REQUEST.size :]
        match kind:
            case Kind.STATS:
                self._stats(client, number)
            case Kind.STACK:
                self._stack(client, number, *messages.unpack(messages.JOB, more))
            case Kind.EVENTS:
                asked = messages.EVENTS.pack(*messages.unpack(messages.EVENTS, more))
                self._ask(client, number, Kind.EVENTS, asked, b"", lambda told: told)

    def on_json(self, client: DoorClient, told: dict[str, Any]) -> None:
        match told.get("op"):
            case "submit":
                self._submit_json(client, told)
            case "record" if client.journaled:
                self._record(client, _whole(told["request"]))
            case "credit":
                self._credit(client, _whole(told["bytes"]))
            case "cancel":
                ids = array("Q", told["ids"])
                self._cancel(client, _whole(told.get("request", 0)), ids, bool(told.get("queued_only")))
            case "stats":
                self._stats(client, _whole(told["request"]))
            case "stack":  # not of all workers: other clients' code may be there
                job = told.get("job")
                self._stack(client, _whole(told["request"]), ALL_OWN if job is None else _whole(job))
            case "events":
                self._events(client, _whole(told["request"]), told.get("seen"), bool(told.get("wait")))
            case "taken":
                self._take(client, array("Q", told["ids"]))
            case "close" | "stop" | "forget" as op:
                self._leave(client, op)
            case _ if "request" in told:
                self._mail.refuse(client, _whole(told["request"]), _OWNERS)
            case op:
                raise ProtocolError(f"op {str(op)[:50]!r} from a client")

    def _submit_json(self, client: DoorClient, told: dict[str, Any]) -> None:
        for batch in list(json_form.jobs_from_json(told, self._default)):
            self._submit(client, batch, len(batch.payload))
        if client.journaled and not told.get("more"):
            self._record(client, _whole(told.get("request", 0)))

    # -- jobs ---------------------------------------------------------------------------------------------

    def _submit(self, client: DoorClient, batch: Batch, size: int, file: int | None = None) -> None:
        """Pass jobs on to the boss; those for which there is no room have a result at once, which says so.

        Those that go to the journal wait for the rest of their call.
        """
        if client.journaled:
            client.call.append((batch, size))
            return
        if file is not None:
            size += os.fstat(file).st_size
        if why := client.why_not(batch, size):
            self._turn_away(client, batch, why)
            return
        body, fds = _body(batch, file, len(self._lent) < MOST_LENT)
        client.submit(batch, size)
        head = bytearray(batch.head())
        first_id = self._whole_id(client, batch.first_id)
        head[:8] = first_id.to_bytes(8, "little")
        if fds:
            self._lent.add(first_id)
        self._boss.tell(Kind.SUBMIT, bytes(head), *body, fds=fds)
        self.submitted = True

    def _record(self, client: DoorClient, number: int) -> None:
        """What has come of a journaled client is a call."""
        assert self._journal is not None
        route = client.route

        def on_told(batches: list[Batch], told: dict[str, Any]) -> None:
            if not number and "refused" in told:  # nobody is told in any other way
                for batch in batches:
                    self._turn_away(client, batch, told["refused"])
            elif client.route == route:
                self._mail.reply(client, number, told)

        self._journal.record(client, on_told)

    def _take(self, client: DoorClient, ids: array[int]) -> None:
        """A client has got these results."""
        if self._journal is not None and client.journaled:
            self._journal.taken(client, ids)
        client.take(ids)

    def returned(self, segment: Segment) -> None:
        """The boss has these results, and holds no files of their jobs."""
        if self._lent:
            self._lent.difference_update(range(segment.first_id, segment.first_id + segment.jobs))

    def forget(self, client: DoorClient) -> None:
        """The boss does not hold its files any more, or soon."""
        whose = self._whole_id(client, 0) >> CLIENT_BITS
        self._lent = {job_id for job_id in self._lent if job_id >> CLIENT_BITS != whose}

    def _turn_away(self, client: DoorClient, batch: Batch, why: str) -> None:
        now, text = time.monotonic(), encode_text(f"BossWorkerAsync: not taken: {why}")
        client.unfinished += batch.count
        for job_id in batch.ids:
            client.receive(single(job_id, 0, 0, now, now, Outcome.BAD_JOB | Outcome.TEXT, text))
        self._mail.pass_on(client)

    def _whole_id(self, client: DoorClient, own_id: int) -> int:
        return client_number(client, self._door) << CLIENT_BITS | own_id

    def _line_of(self, client: DoorClient) -> BossLine:
        """By which a client's jobs go."""
        return self._journal.line if self._journal is not None and client.journaled else self._boss

    def _credit(self, client: DoorClient, total: int) -> None:
        client.credit(total)
        self._mail.pass_on(client)

    # -- questions ----------------------------------------------------------------------------------------

    def _cancel(self, client: DoorClient, number: int, ids: array[int], queued_only: bool) -> None:
        if ids and max(ids) > OWN_ID:
            raise ProtocolError(f"a job with id {max(ids)}")
        how = messages.QUEUED_ONLY if queued_only else b""
        whole = array("Q", [self._whole_id(client, own_id) for own_id in ids])
        self._ask(client, number, Kind.CANCEL, how, whole.tobytes(), lambda told: told, self._line_of(client))

    def _stats(self, client: DoorClient, number: int) -> None:
        """The pool's; of other clients' jobs not even the ids."""

        def own(told: dict[str, Any]) -> dict[str, Any]:
            for worker in told["workers"]:
                job_id = worker["job_id"] or 0
                is_ours = job_id >> CLIENT_BITS == self._whole_id(client, 0) >> CLIENT_BITS
                worker["job_id"] = job_id & OWN_ID if is_ours else None
                worker["progress"] = worker["progress"] if is_ours else None
            return told

        self._ask(client, number, Kind.STATS, b"", b"", own)

    def _stack(self, client: DoorClient, number: int, job_id: int) -> None:
        """Of one of its jobs, of ALL_OWN, or of EVERY_JOB: of whatever workers do."""
        every = job_id == messages.EVERY_JOB
        if job_id > OWN_ID and not every:
            raise ProtocolError(f"a job with id {job_id}")
        whole = job_id if every else self._whole_id(client, job_id)
        first = self._whole_id(client, 0)

        def own_title(title: re.Match[str]) -> str:
            """With its own id of a job of its own."""
            found = int(title[2])
            return f"{title[1]}{found - first if found >> CLIENT_BITS == first >> CLIENT_BITS else found}"

        def own(told: dict[str, Any]) -> dict[str, Any]:
            return {"text": _TITLES.sub(own_title, told["text"])}

        self._ask(client, number, Kind.STACK, messages.JOB.pack(whole), b"", own)

    def _events(self, client: DoorClient, number: int, seen: object, wait: bool) -> None:
        """Of its own jobs, under its own ids, and of the workers: whoever speaks JSON need not be trusted."""
        asked = messages.EVENTS.pack(FROM_NOW if seen is None else _whole(seen), wait)
        whose = self._whole_id(client, 0) >> CLIENT_BITS

        def own(told: dict[str, Any]) -> dict[str, Any]:
            told["records"] = [of_client(one) for one in told["records"] if concerns(one, whose)]
            return told

        self._ask(client, number, Kind.EVENTS, asked, b"", own)

    def _ask(
        self,
        client: DoorClient,
        number: int,
        kind: Kind,
        more: bytes,
        body: bytes,
        make_own: Callable[[dict[str, Any]], dict[str, Any]],
        line: BossLine | None = None,
    ) -> None:
        """Ask the boss in a client's name, by its line or another one."""
        if client.requests >= MOST_REQUESTS:
            self._mail.refuse(client, number, f"{client.requests} requests of this client wait for their answers")
            return
        client.requests += 1
        route = client.route

        def on_answer(told: dict[str, Any]) -> None:
            if client.route == route:  # not so if it has left meanwhile, and may be here again
                client.requests -= 1
                self._mail.reply(client, number, make_own(told))

        (line or self._boss).ask(kind, more, body, decoded(on_answer))

    # -- the end ------------------------------------------------------------------------------------------

    def _leave(self, client: DoorClient, op: str) -> None:
        """``close``: nothing more will come. ``stop``: all that it has is to end. ``forget``: it is gone."""
        if op == "forget":
            client.keepsake = None
            self._lose(client)
        elif op == "stop":
            self._stop(client)
        else:
            self._close(client)

    def _close(self, client: DoorClient) -> None:
        """It is told when it has had its last result."""

        def ended(told: dict[str, Any]) -> None:
            client.take_over_figures(told)
            client.closing = True
            self._mail.pass_on(client)

        if client.counted_by_boss:
            self._boss.ask(Kind.LINE_END, messages.COUNT.pack(client.number), b"", decoded(ended))
        else:
            ended({})

    def _stop(self, client: DoorClient) -> None:
        """Drop what it has queued, cancel what runs; it is told when that is through."""

        def stopped(told: dict[str, Any]) -> None:
            client.take_over_figures(told)
            if not client.journaled:  # each of those jobs has a result, which may be here by now
                client.unfinished = told["count"]  # those that run, each of which has a result yet to come
            client.closing = True
            self._mail.pass_on(client)

        client.drop_results()
        self._line_of(client).forget(client.number, decoded(stopped))


def concerns(record: list[Any], whose: int) -> bool:
    """Whether a record of events is of the workers, or of this client's jobs."""
    kind, job_id = record[0], record[3] if len(record) > 3 else None
    return kind in (UP, DOWN) or (kind in JOB_RECORDS and job_id is not None and job_id >> CLIENT_BITS == whose)


def of_client(record: list[Any]) -> list[Any]:
    """The same with the client's own ids."""
    kind, first, count, *facts = record
    if kind in JOB_RECORDS:
        facts[0] &= OWN_ID
    if kind == ENDED and facts[4] >= 0:
        facts[4] = facts[4] & OWN_ID
    return [kind, first, count, *facts]


def _whole(value: object) -> int:
    """A number from JSON."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 63:
        raise ProtocolError("a number that is none")
    return value


def _body(batch: Batch, file: int | None, in_file: bool) -> tuple[Sequence[Any], tuple[int, ...]]:
    """What goes to the boss; a large job's data in a file beside it, where `in_file`: it need not touch it then.

    `file`: where it is already, if it came so. ProtocolError: it is not there.
    """
    if file is not None:
        return _body_beside(batch, file, in_file)
    if in_file and batch.count == len(batch.counts) == 1 and is_parcel(memoryview(batch.payload)):
        lent = into_file(memoryview(batch.payload))
        if lent is not None:
            table, fd = lent
            return _of_one(table), (fd,)
    return batch.body(), ()


def _body_beside(batch: Batch, file: int, in_file: bool) -> tuple[Sequence[Any], tuple[int, ...]]:
    if in_file:
        with suppress(OSError):  # no descriptor is left
            return batch.body(), (os.dup(file),)
    try:
        payload = with_data(batch.payload, file)
    except OSError as error:
        raise ProtocolError(f"a job whose data is not in its file: {error}") from None
    give_back(file)
    return _of_one(payload), ()


def _of_one(payload: bytes) -> Sequence[Any]:
    """The body of a batch of one job."""
    return array("I", [1]).tobytes(), array("Q", [len(payload)]).tobytes(), payload

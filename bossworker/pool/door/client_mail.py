"""What a door sends to its clients, in the form that they speak: frames or JSON."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable
from typing import Any

from bossworker.pool.door import door_protocol, json_form
from bossworker.pool.door.direct_lines import DirectLines
from bossworker.pool.door.door_clients import DoorClient
from bossworker.pool.door.door_protocol import FRAMES, in_pieces, message_of
from bossworker.pool.door.door_router import DoorRouter
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import pack
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment

_ENDS = {"closed": Kind.CLOSED, "goodbye": Kind.GOODBYE, "closing": Kind.CLOSE}


class ClientMail:
    """See the module. `suspect` is called for a client to which nothing can be sent any more."""

    def __init__(self, router: DoorRouter, form: str, suspect: Callable[[DoorClient], None]) -> None:
        self._router = router
        self.lines: DirectLines  # set by the door
        self._suspect = suspect
        self.form = form

    def send(self, client: DoorClient, message: bytes) -> bool:
        """Send one, in pieces if need be; False when the client is gone."""
        if not self._sent(client, message):
            # Only suspected: what it has sent before it hung up may still lie here, and counts.
            self._suspect(client)
            return False
        return True

    def _sent(self, client: DoorClient, message: bytes) -> bool:
        if client.line is not None:
            return self.lines.send(client, [(memoryview(message), ())])
        route = client.route
        pieces = in_pieces(message) if self.form == FRAMES else (message,)
        return route is not None and all(self._router.send(route, piece) for piece in pieces)

    def send_file(self, client: DoorClient, segment: Segment, file: int) -> None:
        """Send a large result over its own line: `file` has the data, and is the line's from now on."""
        body = segment.body()
        client.sent += len(segment.head()) + sum(map(len, body))
        if not self.lines.send(client, pack(Kind.RESULTS, segment.head(), body, (file,))):
            self._suspect(client)

    def send_to(self, route: bytes, told: dict[str, Any]) -> None:
        """Send JSON to whoever it is."""
        self._router.send(route, door_protocol.encode(told))

    def is_gone(self, client: DoorClient) -> bool:
        """Whether it has hung up."""
        if client.line is not None:
            return self.lines.is_over(client.line)
        ping = message_of(Kind.PING) if self.form == FRAMES else door_protocol.encode({"op": "ping"})
        return client.route is None or not self._router.send(client.route, ping)

    def reply(self, client: DoorClient, number: int, content: dict[str, Any]) -> None:
        """Answer a request; number 0 wants no answer."""
        if number and self.form == FRAMES:
            self.send(client, message_of(Kind.REPLY, messages.REQUEST.pack(number), json.dumps(content).encode()))
        elif number:
            self.send(client, door_protocol.encode({"op": "reply", "request": number, **content}))

    def refuse(self, client: DoorClient, number: int, why: str) -> None:
        """Say that a request has no answer; not to one that takes none, as they would pile up here without end."""
        if not client.holds_up:
            self.reply(client, number, {"refused": why})

    def pass_on(self, client: DoorClient) -> None:
        """Send what the client takes now of its results, and tell it when there will be no more."""
        for segment in client.ready():
            if self.form == FRAMES:
                message = message_of(Kind.RESULTS, segment.head(), *segment.body())
            else:
                message = json_form.results_message([segment])
            client.sent += len(message)
            if not self.send(client, message):
                return
        if client.through and client.route is not None:
            client.closing = False
            self.say(client, "closed")

    def say(self, client: DoorClient, op: str, reason: str = "") -> None:
        """Tell of an end: ``closing``, ``closed`` or ``goodbye``."""
        if client.route is not None:
            told = message_of(_ENDS[op], b"", reason.encode())
            if self.form != FRAMES:
                told = door_protocol.encode({"op": op, "reason": reason})
            self._sent(client, told)

    def give_back(self, client: DoorClient) -> None:
        """To a client that is here again: the jobs whose results it has not taken. These come after."""
        if client.keepsake is None or not client.keepsake.batches:
            return
        for batch in client.keepsake.batches.values():
            if self.form == FRAMES:
                self.send(client, message_of(Kind.RECALL, batch.head(), *batch.body()))
            else:
                self.send(client, door_protocol.encode({**json_form.jobs_to_json(batch), "op": "recall"}))
        taken = client.keepsake.taken()
        if self.form == FRAMES:
            self.send(client, message_of(Kind.TAKEN, b"", array("Q", taken).tobytes()))
        else:
            self.send(client, door_protocol.encode({"op": "taken", "ids": taken}))

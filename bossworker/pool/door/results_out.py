"""Results, from the boss to the clients whose jobs they are of."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress

from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.door_clients import ClientList, DoorClient, whole_segment
from bossworker.pool.wire.messages import CLIENT_BITS, LAST_CLIENT, OWN_ID
from bossworker.pool.wire.parcel import give_back
from bossworker.pool.wire.segments import Segment


class ResultsOut:
    """See the module. `lose` drops a client that takes too little."""

    def __init__(self, clients: ClientList, mail: ClientMail, lose: Callable[[DoorClient], None]) -> None:
        self._clients = clients
        self._mail = mail
        self._lose = lose

    def hand_out(self, segments: list[Segment], file: int | None) -> None:
        """To each client its own, under its own ids. `file` has the data of the last one."""
        concerned: dict[int, DoorClient] = {}
        for segment in segments:
            client = self._clients.by_number.get(segment.first_id >> CLIENT_BITS & LAST_CLIENT)
            if client is not None:
                concerned[client.number] = client
                own = segment._replace(first_id=segment.first_id & OWN_ID)
                self._hand_one(client, own, file if segment is segments[-1] else None)
            elif file is not None and segment is segments[-1]:
                give_back(file)
        for client in concerned.values():
            self._mail.pass_on(client)
            if client.takes_too_little:
                self._mail.say(client, "goodbye", "it has not taken its results")
                self._lose(client)

    def _hand_one(self, client: DoorClient, segment: Segment, file: int | None) -> None:
        """A large one's file goes to the client itself, if that takes it."""
        if file is None:
            client.receive(segment)
            return
        with suppress(OSError):
            if client.takes_file:
                self._mail.send_file(client, segment, os.dup(file))
                client.count(segment.jobs)
                return
        client.receive(whole_segment(segment, file))

"""Those who come to a door: each is let in, as a client or as an operator, or told why not."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Any

from bossworker.pool.door.boss_line import BossLine
from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.door_clients import DoorClient
from bossworker.pool.door.door_protocol import OPERATOR
from bossworker.pool.door.greeting import Reception, Refused
from bossworker.pool.door.journaled_clients import JournaledClients
from bossworker.pool.door.operators import Operators
from bossworker.pool.wire.messages import INFO

NOTE_SECONDS = 1.0  # between lines in the log about what was dropped or refused


class Arrivals:
    """See the module. `suspect` is told of a client that seems to be gone."""

    def __init__(
        self,
        reception: Reception,
        operators: Operators,
        journal: JournaledClients | None,
        mail: ClientMail,
        boss: BossLine,
        address: str,
        suspect: Callable[[DoorClient], None],
    ) -> None:
        self._reception = reception
        self._operators = operators
        self._journal = journal
        self._mail = mail
        self._boss = boss
        self._address = address
        self._suspect = suspect
        self.refused = 0  # how many were not let in
        self._note_at = 0.0
        self._late: list[tuple[bytes, dict[str, Any], str]] = []  # hellos for the place of one that seems to be gone

    def greet(self, route: bytes, told: dict[str, Any], key: str, user: int | None = None) -> None:
        """Let one in, or say why not, or wait until the one is lost whose place it takes: then `greet_late` does it."""
        try:
            if told.get("form") == OPERATOR:
                self._operators.greet(route, told, user)
            else:
                self._greet_client(route, told, key)
        except Refused as why:
            self._turn_away(route, told, why)

    def greet_late(self) -> None:
        """Those are lost that seemed to be gone: whoever has waited for that takes their place."""
        late, self._late = self._late, []
        for hello in late:
            self.greet(*hello)

    def _greet_client(self, route: bytes, told: dict[str, Any], key: str) -> None:
        """The same for one that adds jobs. Refused."""
        if (before := self._reception.gone_before(told, key)) is not None:
            self._suspect(before)
            # Not let in yet: what the one before has sent must be read to its end, or its jobs and this one's would
            # mix.
            self._late.append((route, told, key))
            return
        again, refused = partial(self.greet, route, told, key), partial(self._turn_away, route, told)
        if self._journal is not None and self._journal.fetch(told, key, again, refused):
            return
        client = self._reception.let_in(route, told, key)
        self._boss.note(f"client came: identity={client.identity!r} program={client.program!r} pid={client.pid}", INFO)

    def _turn_away(self, route: bytes, told: dict[str, Any], why: Refused) -> None:
        if told.get("form") in (self._mail.form, OPERATOR):  # our own clients try the other form next
            self.note_refused(1, str(why), str(told.get("program"))[:100])
        else:
            self.refused += 1
        self._mail.send_to(route, {"op": "refused", "reason": str(why), "form": self._mail.form})

    def note_refused(self, clients: int, reason: str, program: str = "") -> None:
        """Some were not let in: told of now and then."""
        self.refused += clients
        if time.monotonic() >= self._note_at:
            self._note_at = time.monotonic() + NOTE_SECONDS
            whose = f" program={program!r}" if program else ""
            self._boss.note(f"client refused: reason={reason!r}{whose} door={self._address!r} refused={self.refused}")

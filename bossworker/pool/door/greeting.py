"""How a client is let in: what it says of itself, and what it is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bossworker.pool.door import door_protocol
from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.door_clients import ClientList, DoorClient
from bossworker.pool.door.door_protocol import DOOR_VERSION, FRAMES, JSON, MOST_IDENTITY, WINDOW
from bossworker.pool.wire.client_jobs import MOST_JOBS
from bossworker.pool.wire.messages import CLIENT_BITS, DOOR_BITS, VERSION, ProtocolError
from bossworker.system import identity as processes_identity

_ACCEPTS = {FRAMES: "pickle", JSON: "json"}


class Refused(Exception):
    """A client is not let in; the text is for it."""


class Reception:
    """Lets clients in. `lose` drops one that is gone."""

    def __init__(
        self, clients: ClientList, mail: ClientMail, settings: dict[str, Any], lose: Callable[[DoorClient], None]
    ) -> None:
        self._clients = clients
        self._mail = mail
        self._settings = settings
        self._lose = lose
        self.closed = False  # nobody more is let in

    def gone_before(self, told: dict[str, Any], key: str) -> DoorClient | None:
        """The client of the same identity, if it has hung up, and that has not been noticed."""
        identity = told.get("identity")
        before = self._clients.by_identity.get(identity_of(told, key)) if isinstance(identity, str) else None
        return before if before is not None and before.route is not None and self._mail.is_gone(before) else None

    def let_in(self, route: bytes, told: dict[str, Any], key: str) -> DoorClient:
        """The client that says this of itself. Refused."""
        check_hello(told, self._mail.form)
        if self.closed:
            raise Refused("the pool is being shut down")
        client = self._client_for(told, identity_of(told, key))
        self._clients.attach(client, route, told)
        # Frames go over a line, and pickles in them: whoever speaks JSON gets none, whatever it asks for.
        offered = self._mail.lines.offer(client) if told["line"] and self._mail.form == FRAMES else None
        self._mail.send_to(route, {**welcome(client, self._settings), "line": offered})
        if offered is None:
            self.begin(client)
        return client

    def begin(self, client: DoorClient) -> None:
        """It is known how it is to be spoken to: tell it what is kept for it."""
        self._mail.give_back(client)
        self._mail.pass_on(client)

    def _client_for(self, told: dict[str, Any], identity: str) -> DoorClient:
        """The one of this identity, if it is away or makes way; else a new one."""
        client = self._clients.by_identity.get(identity)
        if client is not None and client.route is not None:
            self._make_way(client, told)
        client = self._clients.by_identity.get(identity)  # not, if nothing of it is kept
        if client is not None:
            return client
        if len(self._clients) >= door_protocol.MOST_CLIENTS:
            raise Refused(f"{len(self._clients)} clients are here, or have something here, and no more are let in")
        return self._clients.new(identity, told)

    def _make_way(self, client: DoorClient, told: dict[str, Any]) -> None:
        if not told["take_over"]:
            raise Refused(f"identity {told['identity']!r} is in use, by {client.program} (process {client.pid})")
        self._mail.say(client, "goodbye", "another client of this identity has taken over")
        self._lose(client)


def check_hello(told: dict[str, Any], form: str) -> None:
    """Refused says why this client cannot be let in. ProtocolError when this is no hello."""
    if told.get("op") != "hello":
        raise ProtocolError(f"a stranger's op {str(told.get('op'))[:50]!r} before its hello")
    if told.get("version") != DOOR_VERSION:
        raise Refused(f"this pool speaks version {DOOR_VERSION} of the protocol, not {told.get('version')!r}")
    if told.get("form") != form:
        raise Refused(
            f'this pool was opened with accept="{_ACCEPTS[form]}", and the client speaks {told.get("form")!r}'
        )
    for name, kinds, default in _FIELDS:
        if not isinstance(told.setdefault(name, default), kinds):
            raise Refused(f"{name} of the hello is {str(told[name])[:50]!r}")
    if told["identity"] is not None and not 0 < len(told["identity"]) <= MOST_IDENTITY:
        raise Refused(f"an identity has 1 to {MOST_IDENTITY} characters")
    if form == FRAMES and told.get("wire") != VERSION:
        raise Refused(
            f"this pool's messages are of version {VERSION}, not {told.get('wire')!r}: take the same bossworker"
        )
    if form == FRAMES and told.get("python") != door_protocol.python_version():
        ours = f"this pool runs Python {door_protocol.python_version()}, and the client {told.get('python')!r}"
        raise Refused(f'{ours}: pickled functions do not travel between them; open the pool with accept="json"')


_FIELDS: tuple[tuple[str, Any, Any], ...] = (
    ("identity", str | None, None),
    ("keep", bool, False),
    ("take_over", bool, False),
    ("program", str, ""),
    ("pid", int, 0),
    ("line", bool, False),
)


def identity_of(told: dict[str, Any], key: str) -> str:
    """Under which the client is known: with keys, nobody gets at what another key's client has."""
    name = told["identity"] or f"{told.get('program')}-{told.get('pid')}-{time.monotonic_ns()}"
    return f"{key}:{name}" if key else name


def welcome(client: DoorClient, settings: dict[str, Any]) -> dict[str, Any]:
    """What a client that is let in is told."""
    kept = client.keepsake.left if client.keepsake is not None else {}
    return {
        "op": "welcome",
        "version": DOOR_VERSION,
        "identity": client.identity,
        "pool": settings["pool"],
        "boss_pid": settings["boss_pid"],
        "options": settings["options"],
        "commands": settings["commands"],
        "next_id": client.next_id,
        "number": client_number(client, settings["door"]),  # above our ids, in events
        "journal": client.journaled,  # jobs are to be recorded by `record`, which is answered
        "kept": sum(map(len, kept.values())),  # jobs of which it will be told, and whose results will come
        "window": WINDOW,
        "most_jobs": MOST_JOBS,
        "monotonic": time.monotonic(),
        "machine": machine(),
    }


def client_number(client: DoorClient, door: int) -> int:
    """What stands above a client's own ids of jobs, in the whole pool."""
    return client.number if client.journaled else door << DOOR_BITS - CLIENT_BITS | client.number


def machine() -> list[str | int]:
    """What monotonic times depend on: boot and time namespace."""
    return processes_identity.own()[2:]

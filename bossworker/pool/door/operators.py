"""Operators at a door: programs of the pool's own user that look at the whole pool and steer it, and add no jobs.

``bossworker ps``, ``top`` and the page are such. They speak JSON whatever the door's clients speak, so no pickle is
loaded at either end, and any version of Python can look at a pool. They are let in by the user id that the kernel tells
of them, so only at a door with a path: whoever has the same id could stop the pool's processes anyway.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from bossworker.pool.door import door_protocol
from bossworker.pool.door.boss_line import BossLine
from bossworker.pool.door.door_protocol import DOOR_VERSION, MOST_REQUESTS
from bossworker.pool.door.door_router import DoorRouter
from bossworker.pool.door.greeting import Refused, machine
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind, ProtocolError

MOST_OPERATORS = 64
MANY_OPERATORS = 16  # with this many, those that have hung up are looked for before another is let in
MOST_TEXT = 100  # characters of a program's name
_ROOT = 0

Describe = Callable[[Callable[[list[dict[str, Any]]], None]], None]


class _Operator:
    """One that was let in."""

    def __init__(self, route: bytes, program: str) -> None:
        self.route = route
        self.program = program
        self.requests = 0  # that wait for an answer


class Operators:
    """See the module. `describe_clients` tells of the door's clients; `settings` are the door's."""

    def __init__(
        self, boss: BossLine, router: DoorRouter, settings: dict[str, Any], describe_clients: Describe
    ) -> None:
        self._boss = boss
        self._router = router
        self._settings = settings
        self._describe_clients = describe_clients
        self.by_route: dict[bytes, _Operator] = {}

    def greet(self, route: bytes, told: dict[str, Any], user: int | None) -> None:
        """Let one in whose user id is `user`, as the kernel says; None: it is not known. Refused."""
        if told.get("op") != "hello" or told.get("version") != DOOR_VERSION:
            raise Refused(f"this pool speaks version {DOOR_VERSION} of the protocol, not {told.get('version')!r}")
        if user not in (os.geteuid(), _ROOT):
            raise Refused("a pool is looked at and steered by its own user alone, at a door with a path")
        if len(self.by_route) >= MANY_OPERATORS:
            self._drop_who_is_gone()
        if len(self.by_route) >= MOST_OPERATORS:
            raise Refused(f"{len(self.by_route)} programs look at this pool, and no more are let in")
        self.by_route[route] = _Operator(route, str(told.get("program"))[:MOST_TEXT])
        self._send(route, self._welcome())

    def _welcome(self) -> dict[str, Any]:
        ours = self._settings
        about = {key: ours[key] for key in ("pool", "boss_pid", "owner_pid", "program", "since", "accept", "options")}
        return {"op": "welcome", "version": DOOR_VERSION, **about, "monotonic": time.monotonic(), "machine": machine()}

    def _drop_who_is_gone(self) -> None:
        for route in list(self.by_route):
            self._send(route, {"op": "ping"})

    def _send(self, route: bytes, told: dict[str, Any]) -> None:
        self._send_encoded(route, door_protocol.encode(told))

    def _send_encoded(self, route: bytes, message: bytes) -> None:
        if not self._router.send(route, message):
            self.by_route.pop(route, None)

    def on_message(self, route: bytes, data: bytes) -> None:
        """A request. ProtocolError, or what Python makes of nonsense, when it is none."""
        operator, told = self.by_route[route], door_protocol.decode(data)
        number = _number(told["request"])
        if operator.requests >= MOST_REQUESTS:
            self._reply(route, number, {"refused": f"{operator.requests} requests wait for their answers"})
            return
        if told["op"] == "clients":
            self._describe_clients(lambda clients: self._reply(route, number, {"clients": clients}))
            return

        def on_answer(answer: bytes) -> None:
            operator.requests -= 1
            if route in self.by_route:
                self._send_encoded(route, _reply_with(number, answer))

        kind, more, body = Kind.OPERATE, b"", b""
        if told["op"] == "events":
            kind, more = Kind.EVENTS, messages.EVENTS.pack(_number(told["seen"]), bool(told["wait"]))
        else:  # the boss knows what makes sense (boss/operations.py), and refuses what does not
            body = door_protocol.encode({**told, "by": told.get("by") or operator.program})
        operator.requests += 1
        self._boss.ask(kind, more, body, on_answer)

    def _reply(self, route: bytes, number: int, content: dict[str, Any]) -> None:
        self._send(route, {"op": "reply", "request": number, **content})


def _reply_with(number: int, content: bytes) -> bytes:
    """A reply with what the boss has answered, which is an object of JSON: as it is, for it may be long."""
    head = door_protocol.encode({"op": "reply", "request": number})
    return b"%s,%s" % (head[:-1], content[1:]) if len(content) > len(b"{}") else head


def _number(value: object) -> int:
    """One from JSON."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 1 << 64:
        raise ProtocolError("a number that is none")
    return value

"""Answers to requests: each request has a number, which its answer repeats; the caller may ask, or a door."""

from __future__ import annotations

import json
from collections.abc import Callable

from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind

Reply = Callable[[int, dict[str, object]], None]
"""Called with the number of a request, and the answer to it; number 0 wants none."""


def send_reply(send: Callable[[Kind, bytes, list[bytes]], object], number: int, content: dict[str, object]) -> None:
    """Answer what was asked over a line, by its `send`."""
    if number:
        send(Kind.REPLY, messages.REQUEST.pack(number), [json.dumps(content).encode()])

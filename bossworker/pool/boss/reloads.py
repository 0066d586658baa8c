"""Orders to reload the handlers, one after the other: to the fork server, which needs them, and to the ledger.

The program sends all handlers, packed. An operator names a work handler, which the workers look up; the others stay.
"""

from __future__ import annotations

import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bossworker.pool.boss.actions import Actions
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.replying import Reply
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Buffer
from bossworker.pool.wire.messages import Kind

MOST_ERROR = 10_000  # characters of an error that operators are told of with every look

Tell = Callable[[Kind, bytes, Sequence[Buffer]], None]


class _Order(NamedTuple):
    request: int  # of the program, answered once they have been tried; 0: an operator's
    name: str  # of the work handler, as pkg.mod:fn; empty where it has none
    handlers: bytes  # empty: those of before, but for the one that is named


class Reloads:
    """See the module. What it returns is to be performed.

    `tell` speaks to the fork server; `reply` answers a request of the caller's; `handler` is the name of the pool's
    first work handler.
    """

    def __init__(
        self,
        ledger: Ledger,
        tell: Tell,
        reply: Reply,
        handler: str = "",
    ) -> None:
        self._ledger = ledger
        self._tell = tell
        self._reply = reply
        self._waiting: deque[_Order] = deque()  # the first is being tried
        self.last = 0  # generation
        self._handler = handler
        self._base = b""  # the handlers that the program has sent last; empty: those that it began with
        self._error = ""  # of the last that was tried

    def add(self, request: int, name: str, handlers: bytes) -> Actions:
        """Have all workers replaced by such with these handlers."""
        return self._add(_Order(request, name, handlers))

    def add_named(self, name: str) -> Actions:
        """The same with one that is named, as generation `last`. ValueError: not now."""
        if self._waiting:
            raise ValueError("other handlers are being tried just now: wait until one worker has come up with them")
        return self._add(_Order(0, name, b""))

    def _add(self, order: _Order) -> Actions:
        self._waiting.append(order)
        return self._begin() if len(self._waiting) == 1 else []

    def _begin(self) -> Actions:
        self.last += 1
        order = self._waiting[0]
        handlers = order.handlers or pickle.dumps(order.name) + self._base  # reloading.load_renewed takes it apart
        self._tell(Kind.HANDLERS, messages.GENERATION.pack(self.last), [handlers])
        return self._ledger.on_reload(self.last, time.monotonic())

    def on_tried(self, unused: int, error: str) -> Actions:
        """The worker that tried them came up, or did not; and no worker will be started with `unused` any more."""
        self._tell(Kind.HANDLERS, messages.GENERATION.pack(unused), ())
        order = self._waiting.popleft()
        self._error = error[-MOST_ERROR:]
        if not error:
            self._handler, self._base = order.name, order.handlers or self._base
        self._reply(order.request, {"error": error})
        return self._begin() if self._waiting else []

    def describe(self) -> dict[str, object]:
        """Which handler the pool has, and what has become of the last reload."""
        trial = self._waiting[0].name if self._waiting else None
        return {
            "handler": self._handler,
            "trial": trial,
            "tried": self.last - bool(trial is not None),
            "error": self._error,
        }

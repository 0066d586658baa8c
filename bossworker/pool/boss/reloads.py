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
    """See the module. `tell` speaks to the fork server; `reply` answers a request of the caller's.

    `handler`: the name of the pool's first work handler.
    """

    def __init__(
        self,
        ledger: Ledger,
        tell: Tell,
        perform: Callable[[Actions], None],
        reply: Callable[[int, dict[str, object]], None],
        handler: str = "",
    ) -> None:
        self._ledger = ledger
        self._tell = tell
        self._perform = perform
        self._reply = reply
        self._waiting: deque[_Order] = deque()  # the first is being tried
        self._last = 0  # generation
        self._handler = handler
        self._base = b""  # the handlers that the program has sent last; empty: those that it began with
        self._error = ""  # of the last that was tried

    def add(self, request: int, name: str, handlers: bytes) -> None:
        """Have all workers replaced by such with these handlers."""
        self._add(_Order(request, name, handlers))

    def add_named(self, name: str) -> int:
        """The same with one that is named; the number of its generation, for `describe`. ValueError: not now."""
        if self._waiting:
            raise ValueError("other handlers are being tried just now: wait until one worker has come up with them")
        self._add(_Order(0, name, b""))
        return self._last

    def _add(self, order: _Order) -> None:
        self._waiting.append(order)
        if len(self._waiting) == 1:
            self._begin()

    def _begin(self) -> None:
        self._last += 1
        order = self._waiting[0]
        handlers = order.handlers or pickle.dumps(order.name) + self._base  # reloading.load_renewed takes it apart
        self._tell(Kind.HANDLERS, messages.GENERATION.pack(self._last), [handlers])
        self._perform(self._ledger.on_reload(self._last, time.monotonic()))

    def on_tried(self, unused: int, error: str) -> None:
        """The worker that tried them came up, or did not; and no worker will be started with `unused` any more."""
        self._tell(Kind.HANDLERS, messages.GENERATION.pack(unused), ())
        order = self._waiting.popleft()
        self._error = error[-MOST_ERROR:]
        if not error:
            self._handler, self._base = order.name, order.handlers or self._base
        self._reply(order.request, {"error": error})
        if self._waiting:
            self._begin()

    def describe(self) -> dict[str, object]:
        """Which handler the pool has, and what has become of the last reload."""
        trial = self._waiting[0].name if self._waiting else None
        return {
            "handler": self._handler,
            "trial": trial,
            "tried": self._last - bool(trial is not None),
            "error": self._error,
        }

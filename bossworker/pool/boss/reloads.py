"""Orders to reload the handlers, one after the other: to the fork server, which needs them, and to the ledger."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Sequence

from bossworker.pool.boss.actions import Actions
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Buffer
from bossworker.pool.wire.messages import Kind

Tell = Callable[[Kind, bytes, Sequence[Buffer]], None]


class Reloads:
    """See the module. `tell` speaks to the fork server; `reply` answers a request of the caller's."""

    def __init__(
        self,
        ledger: Ledger,
        tell: Tell,
        perform: Callable[[Actions], None],
        reply: Callable[[int, dict[str, object]], None],
    ) -> None:
        self._ledger = ledger
        self._tell = tell
        self._perform = perform
        self._reply = reply
        self._waiting: deque[tuple[int, bytes]] = deque()  # the first is being tried
        self._last = 0  # generation

    def add(self, number: int, handlers: bytes) -> None:
        """Request `number`: have all workers replaced by such with these handlers."""
        self._waiting.append((number, handlers))
        if len(self._waiting) == 1:
            self._begin()

    def _begin(self) -> None:
        self._last += 1
        _, handlers = self._waiting[0]
        self._tell(Kind.HANDLERS, messages.GENERATION.pack(self._last), [handlers])
        self._perform(self._ledger.on_reload(self._last, time.monotonic()))

    def on_tried(self, unused: int, error: str) -> None:
        """The worker that tried them came up, or did not; and no worker will be started with `unused` any more."""
        self._tell(Kind.HANDLERS, messages.GENERATION.pack(unused), ())
        number, _ = self._waiting.popleft()
        self._reply(number, {"error": error})
        if self._waiting:
            self._begin()

"""Connections to the page's own server: few enough, and none that comes to nothing is kept.

Whoever is on the machine may connect, and needs the token only for an answer. So a connection without a request is
closed after a while, and so is one whose other end does not take what it has asked for: neither uses up descriptors.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    from asyncio import TimerHandle

MOST_CONNECTIONS = 500
PATIENCE_SECONDS = 30.0  # with one that asks nothing, or takes nothing
CHECKS = 6  # in that time


class PunctualProtocol(H11Protocol):
    """See the module."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Refuse it, if there are too many."""
        super().connection_made(transport)
        self._unsent = 0
        self._fruitful_at = self.loop.time()
        self._timer: TimerHandle | None = None
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
        else:
            self._check()

    def connection_lost(self, exc: Exception | None) -> None:
        """Check no more."""
        if self._timer is not None:
            self._timer.cancel()
        super().connection_lost(exc)

    def _check(self) -> None:
        now, unsent = self.loop.time(), self.transport.get_write_buffer_size()
        answers = self.cycle is not None and not self.cycle.response_complete
        if unsent < self._unsent or (answers and not unsent):  # what is slow to come is bounded elsewhere
            self._fruitful_at = now
        self._unsent = unsent
        if now - self._fruitful_at > PATIENCE_SECONDS:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(PATIENCE_SECONDS / CHECKS, self._check)

"""A pool that is checked when it is made, and started later: what executors and event loops need."""

from __future__ import annotations

from bossworker.pool.caller.client import BossWorker
from bossworker.pool.options import Handlers
from bossworker.system import signals, stdio


class DeferredPool(BossWorker):
    """See the module. It takes jobs as soon as it is started, before its workers are up.

    If a worker does not come up, all that asks the pool for something hears of it.
    """

    _handlers: Handlers | None = None

    def _launch(self, handlers: Handlers) -> None:
        self._handlers = handlers

    def _open_journal(self) -> None:
        if self._handlers is not None:
            super()._open_journal()

    def _await_start(self) -> None:
        """Not."""

    @property
    def started(self) -> bool:
        return hasattr(self, "_outbox")

    def start(self) -> None:
        """Fork the boss, or spawn it."""
        handlers = self._handlers
        assert handlers is not None
        if self._options.journal:
            BossWorker._open_journal(self)
        with signals.held(), stdio.stdio_reserved():
            super()._launch(handlers)
            self._handlers = None  # not before: whoever is interrupted may call again

    def __repr__(self) -> str:
        return super().__repr__() if self.started else f"<{type(self).__name__}, not started>"

"""What can be asked of a pool as a whole, while it runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.state import HandleState
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind


class PoolControls:
    """The part of a `BossWorker` that does so."""

    _state: HandleState
    _connection: Connection

    def _ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any]:
        raise NotImplementedError

    def pause(self) -> None:
        """Start no new job from now on; those that run go on. ``stats().paused`` tells.

        Jobs may be added and cancelled meanwhile. ``resume`` ends it, and so does ``shut_down``, which sees to what is
        queued.
        """
        self._pause(True)

    def resume(self) -> None:
        """Start jobs again. Does nothing to a pool that is not paused."""
        self._pause(False)

    def _pause(self, on: bool) -> None:
        self._state.check_open()
        self._ask(Kind.PAUSE, messages.SWITCH.pack(on))

"""What signals may do to `run_command` while it runs a command."""

from __future__ import annotations

import threading
from types import FrameType
from typing import Any

from bossworker.errors import JobTimeout
from bossworker.system import signals
from bossworker.system.cpython import signal  # the whole module makes enums of what it gives back, which takes longer

_NUMBER = int(signals.INTERRUPT)


class Interruption:
    """Holds back the pool's JobTimeout but while we wait: anywhere else, what it cuts off would be lost.

    A handler in its place rather than a blocked signal, which the command would inherit.
    """

    def __init__(self) -> None:
        """It is held back from here on."""
        self.handler: Any = signal.getsignal(_NUMBER)
        self.in_pool = callable(self.handler) and threading.current_thread() is threading.main_thread()
        self.held = True
        self.came = False
        if self.in_pool:
            signal.signal(_NUMBER, self._on_signal)

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.held:
            self.came = True
        else:
            self.handler(number, frame)

    def hold_back(self) -> None:
        """From now on, only note it."""
        self.held = True

    def let_through(self) -> None:
        """Raise it if it has come, or whenever it comes."""
        # Before the look: a signal that comes between the two is raised by its own handler. The other way round, it
        # would only be noted, and we would sleep on it.
        self.held = False
        if self.came:
            self.handler(_NUMBER, None)

    def take(self) -> float | None:
        """While it is held back: if it has come, the seconds of grace that it leaves us; else None."""
        if not self.came:
            return None
        # Struck off before the handler is asked: one that comes meanwhile is noted anew. Whether the job's time is up,
        # the recorder says.
        self.came = False
        try:
            self.handler(_NUMBER, None)
        except JobTimeout as time_is_up:
            return time_is_up.grace
        return None

    def restore(self) -> None:
        """As it was; one that was held back is too late: the job has its result."""
        if self.in_pool:
            signal.signal(_NUMBER, self.handler)


class DefaultSigchld:
    """Has SIGCHLD at its default for a while, if it is ignored: then the kernel would keep no exit status for us."""

    def __init__(self) -> None:
        ignored = signal.getsignal(signal.SIGCHLD) == signal.SIG_IGN
        self._needed = ignored and threading.current_thread() is threading.main_thread()

    def __enter__(self) -> None:
        if self._needed:
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)

    def __exit__(self, *error: object) -> None:
        if self._needed:
            signal.signal(signal.SIGCHLD, signal.SIG_IGN)

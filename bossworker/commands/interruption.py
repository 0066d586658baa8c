"""What signals may do to `run_command` while it runs a command."""

from __future__ import annotations

import signal
import threading
from types import FrameType

from bossworker import process


class Interruption:
    """Holds back the pool's JobTimeout but while we wait: anywhere else, what it cuts off would be lost.

    A handler in its place rather than a blocked signal, which the command would inherit.
    """

    def __init__(self) -> None:
        self.handler = signal.getsignal(process.INTERRUPT_SIGNAL)
        self.in_pool = callable(self.handler) and threading.current_thread() is threading.main_thread()
        self.came = False

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.came = True

    def hold_back(self) -> None:
        """From now on, only note it."""
        if self.in_pool:
            signal.signal(process.INTERRUPT_SIGNAL, self._note)

    def let_through(self) -> None:
        """Raise it if it has come, or whenever it comes."""
        if self.in_pool and callable(self.handler):
            signal.signal(process.INTERRUPT_SIGNAL, self.handler)
            if self.came:
                self.handler(process.INTERRUPT_SIGNAL, None)

    def restore(self) -> None:
        """As it was; one that was held back is too late: the job has its result."""
        if self.in_pool:
            signal.signal(process.INTERRUPT_SIGNAL, self.handler)


class EndsAreTold:
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

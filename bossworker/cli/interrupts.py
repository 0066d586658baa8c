"""Signals that end a run: the first one tidies up, a second one ends it at once."""

from __future__ import annotations

from collections.abc import Callable
from types import FrameType

from bossworker.system.cpython import signal
from bossworker.system.signal_pipe import SignalPipe

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_BASE = 128

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Given = TypeVar("Given")


class Stopped(BaseException):
    """A signal has come: raised while we wait, at no other time but at the second one."""


class Interrupts:
    """Hears them."""

    def __init__(self) -> None:
        self.count = 0
        self.number = 0
        self.known = False
        """Whether the run is being stopped already."""
        self._waiting = False
        self._before: dict[int, Any] = {}
        self.pipe = SignalPipe()
        """To be polled by what waits: see there."""

    def __enter__(self) -> Interrupts:
        self.pipe.__enter__()
        for number in _SIGNALS:
            if signal.getsignal(number) != signal.SIG_IGN:  # nohup, for instance
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(self, *error: object) -> None:
        for number, before in self._before.items():  # once one has come, this program does nothing more than exit
            signal.signal(number, signal.SIG_IGN if self.count else before)
        self.pipe.__exit__()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self.count += 1
        self.number = self.number or number
        if self._waiting or self.count == 2:  # a third one finds us ending by force, which takes a second at most
            raise Stopped

    def wait(self, call: Callable[[], Given]) -> Given | None:
        """Call what waits; None when the first signal ends it. Anywhere else that is only noted, for something is
        half done.

        Raises:
            Stopped: The second one has come.
        """
        try:
            self._waiting = True
            # A signal from here on raises. One that came before is told of here, or we would wait for no end.
            if self.count and not self.known:
                return None
            return call()
        except Stopped:
            if self.count > 1:
                raise
            return None
        finally:
            self._waiting = False

    @property
    def name(self) -> str:
        """Of the first one: ``SIGINT``."""
        from signal import Signals  # an enum, which takes as long to make as all of this module

        return Signals(self.number).name

    @property
    def exit_status(self) -> int:
        """As a shell has it of a program that a signal ended: 130 after Ctrl-C."""
        return _BASE + self.number

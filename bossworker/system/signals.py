"""Signals of the pool's processes: what is theirs, and what they inherit and must not keep."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bossworker.system.cpython import signal as _signal  # enums would cost more than the rest of a fork's set-up

INTERRUPT = signal.SIGURG
"""Asks a worker to look for a job that must stop. A process that knows nothing of it ignores it, by default."""


def drop_handlers() -> None:
    """Undo the signal set-up inherited from the caller: its handlers must not run in our processes."""
    for number in range(1, signal.NSIG):
        current = _signal.getsignal(number)
        if callable(current) and current is not signal.default_int_handler:
            signal.signal(number, signal.SIG_DFL)
    restore_defaults()


def restore_defaults() -> None:
    """Python's own settings, where we may have others: SIGINT raises KeyboardInterrupt, nothing is blocked."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


@contextmanager
def held() -> Iterator[None]:
    """No signal handler runs, so no Ctrl-C raises, until the block is left; then those run that are due.

    To block the signals would not do in a program with threads: another takes one, and we still run its handler.
    """
    if threading.current_thread() is not threading.main_thread():  # where no handler runs anyway
        yield
        return
    due: dict[int, FrameType | None] = {}
    number: int
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    try:
        for number in (signal.SIGINT, *_signal.valid_signals()):  # SIGINT is put back last: it is the one that raises
            handler = _signal.getsignal(number)
            if callable(handler) and number not in handlers:
                handlers[number] = handler
                signal.signal(number, due.__setitem__)
        yield
    finally:
        for number in reversed(handlers):
            signal.signal(number, handlers[number])
        for number, frame in due.items():
            handlers[number](number, frame)

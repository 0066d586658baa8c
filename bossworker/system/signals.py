"""Signals of the pool's processes: what is theirs, and what they inherit and must not keep."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from bossworker.system.cpython import signal  # enums would cost more than the rest of a fork's set-up

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    T = TypeVar("T")

Handler = Callable[[int, FrameType | None], object] | int | None
"""What ``signal.signal`` takes and gives; None: one that was not installed by Python."""

INTERRUPT = signal.SIGURG
"""Asks a worker to look for a job that must stop. A process that knows nothing of it ignores it, by default."""


SHOW_STACK: int | None = signal.SIGRTMAX - 7 if hasattr(signal, "SIGRTMAX") else None
"""Has a worker write down its stack. Nobody uses it, as far as we know: debuggers and other runtimes have those at both
ends of the range.
"""


ENDINGS = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2, signal.SIGINT)
"""What service managers, terminals and ``pkill`` send to all processes of a program: the caller alone answers to it."""


def _disregard(number: int, frame: FrameType | None) -> None:
    """Do nothing. A handler, unlike SIG_IGN, does not pass to the programs that a process starts."""


@contextmanager
def endings_blocked() -> Iterator[None]:
    """Around the start of a process that will disregard them: until it does, they wait for it."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def disregard_endings() -> None:
    """Drop the program's handlers, which must not run in a process of the pool, and do nothing about ENDINGS.

    What the program ignores stays ignored, and what C code handles (``faulthandler.register``) stays handled.
    """
    for number in range(1, signal.NSIG):
        current = signal.getsignal(number)
        if number in ENDINGS:
            if callable(current) or current == signal.SIG_DFL:
                signal.signal(number, _disregard)
        elif callable(current):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # those that waited find the new handler


first_in_children: list[Callable[[], None]] = []
"""What a child does before it hears of signals again, which may raise: see `give_children_defaults`."""


def give_children_defaults() -> None:
    """Let ENDINGS end what this process forks, unless it has set handlers of its own.

    They are blocked from before the fork until the child has its defaults, so that none is lost in between.
    """
    import threading

    masks = threading.local()  # several threads may fork at once

    def block() -> None:
        masks.before = signal.pthread_sigmask(signal.SIG_BLOCK, ENDINGS)

    def unblock() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, masks.before)

    def be_as_usual() -> None:
        for step in first_in_children:
            step()
        ours = [number for number in ENDINGS if signal.getsignal(number) is _disregard]
        for number in ours:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        try:
            unblock()
        except KeyboardInterrupt:  # SIGINT has come already; and what a hook of a fork raises is dropped
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)

    os.register_at_fork(before=block, after_in_parent=unblock, after_in_child=be_as_usual)


_holds: list[tuple[dict[int, Any], dict[int, FrameType | None]]] = []
"""Those blocks of `held` that the main thread is in, the innermost last: whose handlers do not run, and what is due."""


def _hold(number: int, handlers: dict[int, Any], due: dict[int, FrameType | None]) -> None:
    """Note that the signal came, instead of running its handler."""
    handler = signal.getsignal(number)
    if callable(handler) and number not in handlers:
        # Noted before it is replaced: should it run, and raise, between the two, it is put back all the same.
        handlers[number] = handler
        signal.signal(number, due.__setitem__)


@contextmanager
def held() -> Iterator[None]:
    """No signal handler runs, so no Ctrl-C raises, until the block is left; then those run that are due.

    To block the signals would not do in a program with threads: another takes one, and we still run its handler.
    """
    import threading

    if threading.current_thread() is not threading.main_thread():  # where no handler runs anyway
        yield
        return
    due: dict[int, FrameType | None] = {}
    number: int
    # SIGINT is put back last: it is the one that raises.
    handled = [number for number in (signal.SIGINT, *signal.valid_signals()) if callable(signal.getsignal(number))]
    handlers: dict[int, Callable[[int, FrameType | None], object]] = {}
    hold = handlers, due
    try:
        _holds.append(hold)
        for number in handled:
            _hold(number, handlers, due)
        yield
    finally:
        # Struck off before handlers are put back: one of them may run at once, and call `let_through`, which must not
        # find this block any more.
        _holds[:] = [one for one in _holds if one is not hold]
        _put_back(handlers)
        _run_due(handlers, due)


def let_through(wait: Callable[[], T]) -> T:
    """In a block of `held`, call what may take long: handlers run meanwhile, and may raise.

    (A `with` would not do: one that raises as that is left would keep its end from being run until much later.)
    """
    import threading

    if not _holds or threading.current_thread() is not threading.main_thread():
        return wait()
    # While handlers run, this block holds nothing back: a nested call must not let them through once more.
    handlers, due = hold = _holds.pop()
    try:
        _put_back(handlers)
        _run_due(handlers, due)
        return wait()
    finally:
        for number in list(handlers):
            del handlers[number]  # the program may have set another since
            _hold(number, handlers, due)
        _holds.append(hold)


def _put_back(handlers: dict[int, Callable[[int, FrameType | None], object]]) -> None:
    """All of them, though one that is back may run at once, and raise."""
    try:
        for number in reversed(handlers):
            signal.signal(number, handlers[number])
    except BaseException:
        _put_back(handlers)
        raise


def _run_due(handlers: dict[int, Callable[[int, FrameType | None], object]], due: dict[int, FrameType | None]) -> None:
    """All that are due, though some of them raise."""
    if not due:
        return
    number = next(iter(due))
    frame = due[number]
    # Struck off, then run: a handler that raises is not run again by the `finally` below.
    del due[number]
    try:
        handlers[number](number, frame)
    finally:
        _run_due(handlers, due)

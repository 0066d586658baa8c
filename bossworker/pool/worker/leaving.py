"""The end of a worker, and of what a handler has forked: nothing that they were about to do is cut off."""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import NoReturn

from bossworker.system import processes, stdio
from bossworker.system.cpython import join_threads
from bossworker.system.own_process import attempt, finish


def leave() -> NoReturn:
    """Leave as a program does: once the threads have ended that are no daemons, and the exit functions have run."""
    finish()
    leave_at_once(0)


def leave_at_once(status: int) -> NoReturn:
    """Let out what was printed, and end."""
    with suppress(BaseException):
        stdio.flush_streams()
    processes.exit_at_once(status)


def leave_as_child(error: BaseException | None = None) -> NoReturn:
    """In a process that a handler has forked, when it comes back from the handler: end as a program would.

    ``error``: what it came back with. Its exit functions are the worker's, and are left alone.
    """
    status = exit_status(error)
    attempt(join_threads)
    leave_at_once(status)


def exit_status(error: BaseException | None) -> int:
    """The status of a program that this ends; what Python would say of it is said."""
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        trace = error.__traceback__
        handlers = trace and trace.tb_next  # the outermost frame is the worker's
        attempt(lambda: sys.excepthook(type(error), error, handlers))
        return 1
    if isinstance(error.code, int):
        return error.code
    if error.code is None:
        return 0
    attempt(lambda: print(error.code, file=sys.stderr))
    return 1

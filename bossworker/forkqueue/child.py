"""What a child does when it is not left to the program: run a function and leave, or be another program."""

from __future__ import annotations

import os
import shutil
import sys
import traceback
from collections.abc import Callable, Iterable
from itertools import count
from typing import NoReturn

from bossworker.forkqueue.children import Started
from bossworker.system import forking, processes, stdio
from bossworker.system.cpython import (
    has_other_threads,
    signal,  # the whole module's sets of enums cost more than the fork
)
from bossworker.system.multiprocess import WorkerIdentity
from bossworker.system.own_process import finish, separate_from_program

Argument = str | bytes | os.PathLike[str] | os.PathLike[bytes]

NAME = "ForkQueue"  # what comes before a child's number in its name
STREAM_SECONDS = 1.0  # for another thread of the child to be through with a stream

_numbers = count()
_among_threads = False  # whether this process, or one above it, was `forked` among threads
_ALL_SIGNALS = frozenset(map(int, signal.valid_signals()))


def forked(start: Callable[[], Started]) -> Started:
    """Fork by `start`. The child knows whether there were threads, one of which may have had a stream locked."""
    global _among_threads
    threaded = has_other_threads()
    pid, fd = start()
    if pid == 0 and threaded:
        _among_threads = True
    return pid, fd


def fork_to(fn: Callable[[], object]) -> int:
    """Fork a child that runs `fn` and leaves; the child's pid."""
    stdio.flush_streams()
    threaded = has_other_threads()
    identity = WorkerIdentity(NAME, next(_numbers), os.getpid())
    # A handler that raised in the child before run_and_leave's `try` would bring the child back into the program.
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, _ALL_SIGNALS)
    try:
        pid = forking.fork()
        if pid == 0:
            run_and_leave(fn, identity, mask, threaded)
        return pid
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)


def run_and_leave(fn: Callable[[], object], identity: WorkerIdentity, mask: Iterable[int], threaded: bool) -> NoReturn:
    """Run `fn` and leave the process: the frames below, inherited from the parent, never run on.

    Exit code 0; 1 and a traceback on stderr after an exception; what ``sys.exit`` was given. As a process of
    `multiprocessing` does, it waits for its threads before, and runs the exit functions that it has registered itself.

    Args:
        identity: Which child this is.
        mask: The signals that `fn` is to find blocked.
        threaded: Whether other threads ran at the fork.
    """
    code = 1
    try:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        if threaded:
            stdio.renew_streams()
        separate_from_program(identity)
        code = _run(fn)
        finish()
    except BaseException:  # a signal handler's
        traceback.print_exc()
    finally:
        leave(code)


def _run(fn: Callable[[], object]) -> int:
    try:
        fn()
    except SystemExit as leaving:
        return exit_code(leaving.code)
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def leave(code: int) -> NoReturn:
    """End this process with nothing but its output buffers emptied: exit handlers and the like are the parent's."""
    try:
        stdio.flush_streams()
    finally:
        processes.exit_at_once(code)


def leave_as_told(value: object) -> NoReturn:
    """The same in a child that was `forked`, with what ``sys.exit`` takes."""
    if _among_threads:
        stdio.renew_stuck_streams(STREAM_SECONDS)
    leave(exit_code(value))


def exit_code(value: object) -> int:
    """The exit code for what ``sys.exit`` takes: None is 0, and what is not an int goes to stderr and is 1."""
    if value is None:
        return 0
    if isinstance(value, int):
        return value
    print(value, file=sys.stderr)
    return 1


def spawn(command: tuple[Argument, ...]) -> int | None:
    """Start a program; its pid, or None when it is not found. OSError when it is found and cannot be run.

    By posix_spawn, which tells of a failure without a child that would have to be reaped, and runs no Python in the
    child: safe in a program with threads. Signals that Python ignores for itself are set back, as subprocess does.
    """
    for position, part in enumerate(command):
        if not isinstance(part, (str, bytes, os.PathLike)):
            raise TypeError(f"argument {position} of the command must be str, bytes or a path, not {part!r}")
    if not command:
        raise ValueError("the command must have a program and any arguments, and is empty")
    restored = [getattr(signal, name) for name in ("SIGPIPE", "SIGXFSZ") if hasattr(signal, name)]
    try:
        return os.posix_spawnp(command[0], command, os.environ, setsigdef=restored)
    except (FileNotFoundError, NotADirectoryError):
        if shutil.which(os.fsdecode(command[0])) is not None:  # it is there, what its first line names is not
            raise
        return None

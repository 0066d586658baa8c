"""All that we use of CPython beyond its documented interface, but for `multiprocessing` (see `multiprocess.py`).

Nothing private to it is used anywhere else.

`tests/unit/test_cpython.py` says of each what we rely on, so that a new version of Python fails there first.

private                                      here                 the public one, and why not
-------------------------------------------  -------------------  ----------------------------------------------------
``_signal``                                  `signal`             ``signal`` makes enums of what it returns, which
                                                                  takes longer than the calls themselves
``_socket``                                  `socket`             ``socket`` loads enum, selectors and more
``posix``                                    `close`              ``os.close`` may be gevent's, which closes later
``sys._getframe``                            `current_frame`      ``inspect`` takes 5 ms to load
``_json``                                    `dumps`, `loads`     ``json`` loads regular expressions: 1 MiB for a
                                                                  supervisor alone, 0.2 MiB for each of ten of one
                                                                  launcher; and 15 ms for the first
``_posixsubprocess.fork_exec``               `fork_exec`          ``subprocess`` costs 10 ms to import, and half a
                                                                  millisecond a call
``_multiprocessing.SemLock._rebuild``        `semaphore_at`       there is none without a name in /dev/shm
``os.environb._data``                        `environment`        ``os.environb`` decodes and encodes each variable
``subprocess._args_from_interpreter_flags``  `interpreter_flags`  there is none
``threading._shutdown``                      `join_threads`       the same for threads that end while one is joined,
``atexit._run_exitfuncs``, ``_clear``,       `run_exit_...`,      and for executors, whose threads wait for ever:
``weakref.finalize._registry``,              `forget_...`         a process can run them only as it ends by itself,
``concurrent.futures.*._threads_...``                             which would run what it has from its parent, too
``logging._handlerList``                     `log_handlers`       there is none before 3.12
``concurrent.futures.Future``: ``_state``,   ``PoolFuture``, by   a future of the public kind has a lock and three
``_condition``, ``_waiters``, …              inheritance          containers each, and cannot say that it is waited for

Where one is missing, the public one stands in if there is any.
"""

from __future__ import annotations

import _posixsubprocess
import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    import signal
    import socket
    from collections.abc import Callable, Mapping
    from typing import Any
else:
    try:
        import _signal as signal
        import _socket as socket
    except ImportError:
        import signal
        import socket

try:
    from posix import close
except ImportError:
    from os import close

__all__ = [
    "NO_SIGPIPE",
    "close",
    "current_frame",
    "dumps",
    "environment",
    "forget_executors",
    "forget_exit_functions",
    "fork_exec",
    "has_other_threads",
    "interpreter_flags",
    "join_threads",
    "loads",
    "log_handlers",
    "run_exit_functions",
    "semaphore_at",
    "signal",
    "socket",
]

NO_SIGPIPE = int(getattr(socket, "MSG_NOSIGNAL", 0))
"""For every send: a peer that is gone is an error, and does not kill a program that has SIGPIPE at its default."""

_fork_exec: Callable[..., int] = _posixsubprocess.fork_exec
_VFORK: tuple[bool, ...] = (True,) if sys.version_info < (3, 14) else ()  # later: always
_SEMAPHORE_KIND = 1  # as multiprocessing.synchronize.SEMAPHORE; importing that module costs 10 ms


# -- JSON ---------------------------------------------------------------------------------------------------------


class _AsUsual:
    """How the scanner is to read: as ``json.loads`` does unless told otherwise."""

    strict = True
    object_hook = object_pairs_hook = None
    parse_float, parse_int = float, int
    parse_constant = {"-Infinity": -float("inf"), "Infinity": float("inf"), "NaN": float("nan")}.__getitem__


def _from_halves() -> tuple[Callable[[object], str], Callable[[str], Any]]:
    """`dumps` and `loads` from the C halves of json. Any exception: they are not there, or not as we know them."""
    from _json import encode_basestring_ascii, make_encoder, make_scanner  # type: ignore[attr-defined, unused-ignore]

    def refuse(value: object) -> object:
        raise TypeError(f"Object of type {type(value).__name__} is not JSON serializable")

    def encode(value: object) -> str:
        encoder = make_encoder({}, refuse, encode_basestring_ascii, None, ": ", ", ", False, False, False)
        return "".join(encoder(value, 0))

    scan = make_scanner(_AsUsual)  # type: ignore[arg-type, unused-ignore]

    def decode(text: str) -> Any:
        text = text.strip(" \t\r\n")
        try:
            value, end = scan(text, 0)
        except (StopIteration, SystemError):  # the latter where it looks in vain for the error class of json.decoder
            raise ValueError("not JSON") from None
        if end != len(text):
            raise ValueError("not JSON: something follows")
        return value

    if decode(encode(_PROBE)) != _PROBE:
        raise ImportError("not as we know them")
    return encode, decode


_PROBE = {"a": [1, -2.5, None, True, "\u00fc\n"], "": {}}


def _whole() -> tuple[Callable[[object], str], Callable[[str], Any]]:
    import json

    return json.JSONEncoder(allow_nan=False).encode, json.loads


try:
    dumps, loads = _from_halves()
except Exception:
    dumps, loads = _whole()


# -- processes, semaphores, environment, flags --------------------------------------------------------------------


def fork_exec(
    argv: list[bytes],
    files: list[bytes],
    cwd: bytes,
    environment: list[bytes] | None,
    stdio: tuple[int, int, int],
    report: tuple[int, int],
    keep: tuple[int, ...],
    umask: int,
    session: bool,
    last_step: Callable[[], object] | None,
) -> int:
    """Fork and execute the first of `files` that can be executed; the child's pid.

    Args:
        environment: ``NAME=value`` each, or None for ours.
        stdio: What becomes descriptors 0, 1 and 2. None of them may be one of these itself.
        report: A pipe's ends. The child writes ``exception:errno in hex:where`` to it when it cannot execute anything.
        keep: Descriptors that stay open, in ascending order.
        umask: The program's, or -1 for ours.
        session: Whether it leads a session of its own.
        last_step: Called in the child just before exec. With None no Python runs in the child, and vfork is used.
    """
    close_others, restore_signals = True, True
    no_group, no_gid, no_groups, no_uid = -1, None, None, None
    into, out, err = stdio
    return _fork_exec(
        argv, files, close_others, keep, cwd, environment, into, -1, -1, out, -1, err, *report,
        restore_signals, session, no_group, no_gid, no_groups, no_uid, umask, last_step, *_VFORK,
    )  # fmt: skip


current_frame = sys._getframe
"""The frame that calls, or one this many above it."""


def has_other_threads() -> bool:
    """Whether threads run beside this one, those included that ``threading`` did not start."""
    return len(sys._current_frames()) > 1


def semaphore_at(address: int) -> Any:
    """Calls on the POSIX semaphore in the memory at `address`; None where there is no such thing.

    It takes and posts a semaphore in 20 ns, a tenth of what calling libc through ctypes costs. Never free it: that
    would sem_close() what libc has not opened, which not every libc forgives.
    """
    try:
        from _multiprocessing import SemLock

        return SemLock._rebuild(address, _SEMAPHORE_KIND, SemLock.SEM_VALUE_MAX, None)
    except (AttributeError, ImportError, OSError):
        return None


def environment() -> Mapping[bytes, bytes]:
    """As ``os.environb``, in a tenth of the time where its bytes are at hand. Not to be changed."""
    return getattr(os.environb, "_data", os.environb)


def interpreter_flags() -> list[str]:
    """The options with which another interpreter behaves as this one does: ``-W``, ``-X``, ``-O`` and so on."""
    import subprocess

    flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
    return flags


# -- the end of a process --------------------------------------------------------------------------------------------


def join_threads() -> None:
    """Wait for the threads that are no daemons, and have executors end theirs. Once in a process."""
    import threading

    threading._shutdown()  # type: ignore[attr-defined]


def run_exit_functions() -> None:
    """What `atexit` has registered, the last first; what one raises is printed."""
    import atexit

    atexit._run_exitfuncs()


def forget_exit_functions() -> None:
    """Those registered so far, by `atexit` and by ``weakref.finalize``: after a fork they are the parent's."""
    import atexit
    import weakref

    atexit._clear()
    finalize: Any = weakref.finalize
    for info in list(finalize._registry.values()):
        info.atexit = False
    finalize._registered_with_atexit = False  # the next one has itself registered


def forget_executors() -> None:
    """After a fork: at our end we would tell their threads to stop, by locks that may be taken, and by shared pipes."""
    for module, name in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        getattr(sys.modules.get(f"concurrent.futures.{module}"), name, {}).clear()


def log_handlers() -> list[Any]:
    """The handlers that `logging` has, if it is loaded."""
    logging: Any = sys.modules.get("logging")
    return [] if logging is None else [handler for one in logging._handlerList if (handler := one()) is not None]

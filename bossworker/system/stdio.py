"""The standard streams: their numbers, also in a program that has closed them, and what is still in their buffers."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, FileIO, TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO

from bossworker.system.cpython import log_handlers

if TYPE_CHECKING:
    from socket import socket as Socket


@contextmanager
def stdio_reserved() -> Iterator[None]:
    """In a program that has closed its standard streams, keep their numbers from what is opened in the block.

    Or it is there that the program's output goes, and that of its children: to a socket, or into shared memory. (An
    mmap has a descriptor, too.)
    """
    taken: list[int] = []
    try:
        _take_into(taken)
        yield
    finally:
        for fd in taken:
            os.close(fd)


def _take_into(taken: list[int]) -> None:
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        taken.append(fd)
        os.set_inheritable(fd, True)
    os.close(fd)


def above_stdio(fd: int) -> int:
    """The same file under a number above 2, which programs take for a standard stream."""
    if fd > 2:
        return fd
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def socket_above_stdio(sock: Socket) -> Socket:
    """The same socket, under such a number."""
    if sock.fileno() > 2:
        return sock
    return type(sock)(fileno=above_stdio(sock.detach()))


def flush_streams() -> None:
    """Empty Python's output buffers: before a fork, or it is written twice; before ``os._exit``, or it is lost.

    Whatever they raise: a program may have put anything there.
    """
    for stream in (sys.stdout, sys.stderr):
        try:  # suppress() is four calls, and a worker comes here after each batch
            stream.flush()
        except Exception:
            pass


def write_error(text: str) -> None:
    """Write to descriptor 2 past ``sys.stderr``, whose lock may have been inherited as taken."""
    with suppress(OSError):
        os.write(2, text.encode("utf-8", "backslashreplace"))


_renewed: list[TextIO] = []
"""Never to be collected: that would flush them, which takes their lock, and close their descriptors."""


def renew_streams() -> None:
    """After a fork of a program with threads: new buffers for stdout and stderr, over the same descriptors.

    Another thread may have been printing: the copy of its lock is never released, and what is in the copy of its buffer
    is written by the program. Streams of other classes than Python's own are left as they are.
    """
    _renew(lambda stream: True)


def renew_stuck_streams(seconds: float) -> None:
    """The same, but only of a stream whose lock nobody releases within this time.

    The others keep what this process has written to them since the fork.
    """
    _renew(lambda stream: _is_locked(stream.buffer, seconds))


def _renew(doomed: Callable[[TextIOWrapper], bool]) -> None:
    for name in ("stdout", "stderr"):
        old = getattr(sys, name)
        with suppress(AttributeError, OSError, ValueError):  # none, closed
            own = (type(old), type(old.buffer), type(old.buffer.raw)) == (TextIOWrapper, BufferedWriter, FileIO)
            if own and doomed(old):
                _put_in_place(name, old, _twin(old))


def _is_locked(buffer: Any, seconds: float) -> bool:
    """Whether its lock stays taken. It can only be waited for, and not be interrupted: so another thread does."""
    probe = threading.Thread(target=buffer.write, args=(b"",), daemon=True)  # takes the lock, and writes nothing
    try:
        probe.start()
    except RuntimeError:  # no thread to be had
        return False
    probe.join(seconds)
    return probe.is_alive()


def _twin(old: TextIOWrapper) -> TextIOWrapper:
    new = open(old.fileno(), "w", encoding=old.encoding, errors=old.errors, closefd=False)  # noqa: SIM115 - it stays
    new.reconfigure(line_buffering=old.line_buffering, write_through=old.write_through)
    raw: Any = new.buffer.raw  # type: ignore[attr-defined]
    raw.name = old.name
    return new


def _put_in_place(name: str, old: TextIOWrapper, new: TextIOWrapper) -> None:
    """Have the new stream wherever Python keeps the old one: in `sys`, and in the handlers of `logging`."""
    _renewed.append(old)
    setattr(sys, name, new)
    if getattr(sys, f"__{name}__") is old:
        setattr(sys, f"__{name}__", new)
    for handler in log_handlers():
        if getattr(handler, "stream", None) is old:
            handler.stream = new

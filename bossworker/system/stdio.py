"""The standard streams: their numbers, also in a program that has closed them, and what is still in their buffers."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


@contextmanager
def stdio_reserved() -> Iterator[None]:
    """In a program that has closed its standard streams, keep their numbers from what is opened in the block.

    Or it is there that the program's output goes, and that of its children: to a socket, or into shared memory. (An
    mmap has a descriptor, too.)
    """
    taken: list[int] = []
    try:
        while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
            taken.append(fd)
            os.set_inheritable(fd, True)
        os.close(fd)
        yield
    finally:
        for fd in taken:
            os.close(fd)


def above_stdio(fd: int) -> int:
    """The same file under a number above 2, which programs take for a standard stream."""
    if fd > 2:
        return fd
    import fcntl

    moved = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    os.close(fd)
    return moved


def flush_streams() -> None:
    """Empty Python's output buffers: before a fork, or it is written twice; before ``os._exit``, or it is lost."""
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, OSError, ValueError):
            stream.flush()

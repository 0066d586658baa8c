"""A file in memory without a name, mapped so that no descriptor of it stays open.

Whoever has a descriptor of the file can write anything to it, or cut it short, and a process that reads beyond the end
of a mapped file is killed by SIGBUS. So the file is sealed against a change of its size, and its descriptors are closed
once all processes have their mapping. ``mmap.mmap`` keeps a copy of the descriptor (until Python 3.13 always), so the
mapping is made by libc.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import sys
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import cache

from bossworker.system.descriptors import nameless_file
from bossworker.system.stdio import above_stdio

NO_ACCESS, READ_ONLY = 0, mmap.PROT_READ

_FAILED = ctypes.c_void_p(-1).value
_Area = ctypes.c_char * sys.maxsize  # for all sizes: one for each would be a class that is made at each mapping


def unnamed_file(size: int) -> int:
    """A descriptor of a new file of this size, above those of the standard streams."""
    fd = above_stdio(nameless_file("bossworker"))
    try:
        os.ftruncate(fd, size)
        _seal(fd)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _seal(fd: int) -> None:
    """Nobody changes the file's size any more, where the system knows seals, and the file takes them."""
    if hasattr(fcntl, "F_ADD_SEALS"):
        with suppress(OSError):  # an ordinary file
            fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL)


def mapped(fd: int, size: int) -> memoryview:
    """The file's bytes, shared and writable; unmapped with the last view of them. The descriptor may be closed."""
    libc = _libc()
    address = libc.mmap(None, size, mmap.PROT_READ | mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
    if address in (None, _FAILED):
        raise _error("cannot map a file")
    area = _Area.from_address(address)
    weakref.finalize(area, libc.munmap, address, size).atexit = False  # at the end, views of it may still be in use
    return memoryview(area).cast("B")[:size]


def protect(view: memoryview, access: int) -> None:
    """Bar this process from writing (READ_ONLY), or from reading too (NO_ACCESS), these pages of a mapping."""
    if len(view) and _libc().mprotect(ctypes.addressof(ctypes.c_char.from_buffer(view)), len(view), access):
        raise _error("cannot protect pages")


def _error(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, f"{what}: {os.strerror(number)}")


class _Libc:
    mmap: Callable[..., int | None]
    munmap: Callable[..., int]
    mprotect: Callable[..., int]


@cache
def _libc() -> _Libc:
    libc = ctypes.CDLL(None, use_errno=True)
    pointer, size, number = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
    libc.mmap.restype = pointer
    libc.mmap.argtypes = (pointer, size, number, number, number, ctypes.c_long)
    libc.munmap.argtypes = (pointer, size)
    libc.mprotect.argtypes = (pointer, size, number)
    return libc  # type: ignore[return-value]

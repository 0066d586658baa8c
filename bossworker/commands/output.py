"""What a command writes: its files are read from where they begin, and cut to a length while they grow."""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SLACK = 16 << 20  # bytes at least that a file may be too large, where it has to start anew
LEAST_SPACE = 65536  # bytes; a disk with less is full: what is freed now need not have been free for a command
BLOCK = 4096  # bytes; the beginning of a file is given back to the disk in blocks
_PUNCH_HOLE = 0x02 | 0x01  # FALLOC_FL_PUNCH_HOLE, FALLOC_FL_KEEP_SIZE

_fallocate: Callable[..., int] | None = None


def is_full(disk: os.statvfs_result) -> bool:
    """Whether there is no room on it; what is on no disk, as a pipe, is not full."""
    return bool(disk.f_blocks) and disk.f_bavail * disk.f_frsize < LEAST_SPACE


def begin_of(fd: int, at: int = 0) -> int:
    """Where from this offset on there is something to be read: the beginning may have been given back."""
    found = os.fstat(fd)
    if at >= found.st_size or found.st_blocks * 512 >= found.st_size:
        return at
    try:
        return os.lseek(fd, at, os.SEEK_DATA) if hasattr(os, "SEEK_DATA") else at
    except OSError:
        return at


def read_at(fd: int, offset: int = 0, limit: int | None = None) -> bytes:
    """What is there from an offset on, which counts from the end if it is negative; at most `limit` bytes.

    No more than there is now: it may be written faster than it can be read.
    """
    size = os.fstat(fd).st_size
    at = begin_of(fd, max(0, size + offset) if offset < 0 else offset)
    left = max(0, size - at)
    left = left if limit is None else min(left, limit)
    parts = []
    while left and (part := os.pread(fd, min(left, 1 << 20), at)):
        parts.append(part)
        at += len(part)
        left -= len(part)
    return b"".join(parts)


def trim(fd: int, most: int, at_last: bool = False) -> None:
    """Give back to the disk what is in a file before its last `most` bytes. Offsets stay what they are.

    Where a file system knows no holes, the file starts anew with these bytes, and what is written to it in this very
    instant is lost. So there it is done `at_last`, when nobody writes any more; and before only if the file has become
    many times as large.
    """
    found = os.fstat(fd)
    spare = (found.st_size - most) // BLOCK * BLOCK
    if spare <= 0 or found.st_blocks * 512 <= most:
        return
    # The command appends while this is done: a hole in front moves nothing, so it loses nothing by it.
    if not _punch(fd, spare) and (at_last or found.st_size > most + max(3 * most, SLACK)):
        _start_anew(fd, most)


def _start_anew(fd: int, most: int) -> None:
    """With the last bytes; tried a few times, until nothing is written as we read them."""
    for _ in range(3):
        size = os.fstat(fd).st_size
        last = read_at(fd, -most)
        if os.fstat(fd).st_size == size:
            break
    # What comes between that look and this call is lost.
    os.ftruncate(fd, 0)
    os.write(fd, last)


def _punch(fd: int, size: int) -> bool:
    global _fallocate
    if sys.platform != "linux":
        return False
    import ctypes

    if _fallocate is None:
        libc = ctypes.CDLL(None)
        _fallocate = getattr(libc, "fallocate64", None) or libc.fallocate  # musl has one for all
    return _fallocate(fd, _PUNCH_HOLE, ctypes.c_int64(0), ctypes.c_int64(size)) == 0

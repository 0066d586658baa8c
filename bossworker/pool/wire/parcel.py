"""Large payloads: a pickle with its buffers beside it, carried by shared memory instead of through the sockets.

A **parcel** is a pickle (protocol 5) and the buffers that it refers to: arrays, frames, whatever exports its memory.
It travels as a table of sizes, in the frame, and its parts. These the sender writes to a memory file that it lends
(`MemoryFiles`), whose descriptor goes along; the boss passes both on, and touches neither. Where no file can be lent,
the parts follow the table in the frame: slower, and as right.

The receiver reads the parts into memory of its own, so that what it gets is writable, private, and its own to keep.
A file with warm pages is written and read at several times the speed of a new one, so the sender uses them again:
it sets a byte in the file as it lends it, and the receiver clears it. A receiver that dies first leaves the byte set,
and that file is not used again. The files have no names, and are gone with the last process that holds them.
"""

from __future__ import annotations

import mmap
import os
import pickle
from array import array
from collections import deque
from collections.abc import Container, Sequence
from contextlib import suppress
from itertools import islice
from struct import Struct
from struct import error as StructError
from typing import Any, Protocol

from bossworker.system.stdio import above_stdio

LEAST_BYTES = 1 << 18  # of all parts; below this, the sockets are as quick
KEEP_BYTES = 1 << 27  # a process keeps files of this many bytes for the next parcels,
KEEP_FILES = 16  # and this many files
OWN_PAGES_BYTES = 1 << 22  # from this size on, memory is asked for in huge pages, a fifth of the cost
ON_THEIR_WAY = 300  # descriptors that a socket may hold, and that the boss has not counted yet
MOST_PARTS = 1000  # to a system call; the kernel takes 1024

_MAGIC = b"P"  # no pickle starts so
_HEAD = Struct("<cxxxI")  # magic, number of parts; their sizes follow
_DATA_AT = 64  # where the parts begin in a file; the byte that says it is lent is the first
_LENT, _FREE = b"\1", b"\0"

Buffer = bytes | bytearray | memoryview


class Descriptors(Protocol):
    """How many descriptors of memory files the boss holds, and can hold: noted in the pool's memory."""

    held: int
    most_held: int


class Parcel:
    """A pickle and its buffers, on their way out."""

    __slots__ = ("parts",)

    def __init__(self, parts: Sequence[Buffer]) -> None:
        self.parts = parts

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def table(self) -> bytes:
        return _HEAD.pack(_MAGIC, len(self.parts)) + array("Q", map(len, self.parts)).tobytes()

    def inline(self) -> bytes:
        """Table and parts in one."""
        return b"".join((self.table(), *self.parts))


def is_parcel(payload: memoryview) -> bool:
    """Whether this is a parcel's table, not a pickle."""
    return len(payload) > 0 and payload[0] == _MAGIC[0]


class Arrived:
    """A parcel's parts, in memory of the receiver's own."""

    __slots__ = ("_error", "_parts")

    def __init__(self, payload: memoryview, fd: int | None) -> None:
        """Read them from the frame, or from the file. The descriptor stays the caller's; see `give_back`."""
        self._error: Exception | None = None
        try:
            self._parts = _fetch(payload, fd)
        except (OSError, MemoryError, OverflowError, ValueError, StructError) as error:
            self._error = error

    def load(self) -> Any:
        """The value. What kept the parts from being read is raised here, where it can become the job's error."""
        if self._error is not None:
            raise self._error
        return pickle.loads(self._parts[0], buffers=self._parts[1:])


def _fetch(payload: memoryview, fd: int | None) -> list[bytearray | mmap.mmap]:
    _, count = _HEAD.unpack_from(payload)
    at = _HEAD.size + 8 * count
    sizes = array("Q", bytes(payload[_HEAD.size : at]))
    if fd is not None:
        return _read(fd, sizes)
    if len(payload) == at + sum(sizes):
        return _copies(payload[at:], sizes)
    raise OSError("its data could not be received: most likely, this process has too many open files")


def give_back(fd: int) -> None:
    """The parts have been read: the lender may use the file again."""
    with suppress(OSError):
        os.pwrite(fd, _FREE, 0)


def with_data(payload: Buffer, fd: int) -> bytes:
    """A parcel whose table came in a frame, and its parts in a file: both in one, for where no file can go along."""
    return bytes(read_whole(payload, fd))


def read_whole(payload: Buffer, fd: int) -> memoryview:
    """The same, in memory of its own that was written to once."""
    _, count = _HEAD.unpack_from(payload)
    size = sum(array("Q", bytes(payload[_HEAD.size : _HEAD.size + 8 * count])))
    if _DATA_AT + size > os.fstat(fd).st_size:
        raise OSError("a memory file is shorter than it should be")
    whole = bytearray(len(payload) + size)
    whole[: len(payload)] = payload
    with memoryview(whole) as view, view[len(payload) :] as room:
        _fill(room, fd, _DATA_AT)
    return memoryview(whole)


def into_file(payload: memoryview) -> tuple[bytes, int] | None:
    """The reverse: a parcel's table, and the descriptor of a file with its parts. None where that cannot be."""
    if not hasattr(os, "memfd_create"):
        return None
    try:
        _, count = _HEAD.unpack_from(payload)
        at = _HEAD.size + 8 * count
        file = _File()
        file.write([payload[at:]])
        return bytes(payload[:at]), os.dup(file.fd)
    except (OSError, StructError):
        return None


def split_parcel(payload: memoryview) -> list[bytearray | mmap.mmap]:
    """The parts of a parcel that came in a frame as a whole."""
    return _fetch(payload, None)


def _copies(data: memoryview, sizes: Sequence[int]) -> list[bytearray | mmap.mmap]:
    copies: list[bytearray | mmap.mmap] = []
    for size in sizes:
        copies.append(bytearray(data[:size]))
        data = data[size:]
    return copies


def _read(fd: int, sizes: Sequence[int]) -> list[bytearray | mmap.mmap]:
    parts: list[bytearray | mmap.mmap] = []
    at = _DATA_AT
    if at + sum(sizes) > os.fstat(fd).st_size:
        raise OSError("a memory file is shorter than it should be")
    for size in sizes:
        part = _memory(size)
        with memoryview(part) as whole:
            _fill(whole, fd, at)
        parts.append(part)
        at += size
    return parts


def _fill(whole: memoryview, fd: int, at: int) -> None:
    done = 0
    while done < len(whole):
        count = os.preadv(fd, [whole[done:]], at + done)
        if not count:
            raise OSError("a memory file is shorter than it should be")
        done += count


def _memory(size: int) -> bytearray | mmap.mmap:
    if size < OWN_PAGES_BYTES:
        return bytearray(size)
    memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        with suppress(OSError):
            memory.madvise(mmap.MADV_HUGEPAGE)
    return memory


class Held:
    """A descriptor on its way through a process, closed with its last reference. `counted`: where that is noted."""

    __slots__ = ("_counted", "fd")

    def __init__(self, fd: int, counted: Descriptors | None = None) -> None:
        self.fd = fd
        self._counted = counted
        if counted is not None:
            counted.held += 1

    def __del__(self) -> None:
        with suppress(OSError):
            os.close(self.fd)
        if self._counted is not None:
            self._counted.held -= 1

    def copies(self) -> tuple[int, ...]:
        """A descriptor to be sent; none if there are too many: the receiver then finds that its data is missing."""
        try:
            return (os.dup(self.fd),)
        except OSError:
            return ()


def held(fd: int | None, counted: Descriptors) -> Held | None:
    """Take charge of the file that came with a frame, if one did, until all who may need it have got it."""
    return Held(fd, counted) if fd is not None else None


class MemoryFiles:
    """The memory files that a process lends out with its parcels.

    Args:
        descriptors: How many the boss holds, and can hold.
        unfinished: A file lent for a job is not used again while the job is in here: another attempt may read it.
    """

    def __init__(self, descriptors: Descriptors, unfinished: Container[int] = ()) -> None:
        self._descriptors = descriptors
        self._unfinished = unfinished
        self._kept: list[_File] = []  # the one lent last at the end

    def lend(self, parcel: Parcel, fds: list[int], job_id: int = 0) -> bool:
        """Write a parcel to a file, and append a descriptor of it, to be sent, to `fds`; False if that cannot be."""
        boss = self._descriptors
        if not hasattr(os, "memfd_create") or boss.held + ON_THEIR_WAY >= boss.most_held:
            return False
        try:
            file = self._free_file(len(parcel)) or _File()
            file.write(parcel.parts)
            file.job_id = job_id
            # The byte that says that it is lent has been written by now, so no other parcel goes into it, whatever
            # interrupts us before its descriptor is on its way: then it is only kept in vain.
            self._keep(file)
            fds.extend(map(os.dup, (file.fd,)))  # in one step: a signal handler finds it there, or not made
        except OSError:  # no memory, no descriptor, a limit on files
            return False
        return True

    def _free_file(self, size: int) -> _File | None:
        """One that nobody reads; the smallest that is large enough, or the largest."""
        # The first attempt clears the byte once it has read all. But until the job has a result, another attempt may
        # come to read the file: so both are asked for.
        free = [file for file in self._kept if file.job_id not in self._unfinished and file.free()]
        if not free:
            return None
        best = min(free, key=lambda file: (file.size < size, abs(file.size - size)))
        self._kept.remove(best)
        return best

    def _keep(self, file: _File) -> None:
        """Keep it for later, and of the others those used last that there is room for."""
        room, kept = KEEP_BYTES, []
        for one in [file, *reversed(self._kept)][:KEEP_FILES]:
            room -= one.size
            if room >= 0:
                kept.append(one)
        self._kept = kept[::-1]

    def close(self) -> None:
        """Let go of all files; those that are lent live on until they have been read."""
        self._kept = []


class _File:
    """A memory file; closed with its last reference."""

    def __init__(self) -> None:
        self.fd = above_stdio(os.memfd_create("bossworker-parcel", os.MFD_CLOEXEC))
        self.size = 0
        self.job_id = 0

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self.fd)

    def free(self) -> bool:
        return os.pread(self.fd, 1, 0) == _FREE

    def write(self, parts: Sequence[Buffer]) -> None:
        left: deque[Buffer] = deque([_LENT.ljust(_DATA_AT, b"\0"), *parts])
        at = 0
        while left:
            count = os.pwritev(self.fd, list(islice(left, MOST_PARTS)), at)
            at += count
            while left and count >= len(left[0]):
                count -= len(left.popleft())
            if count:
                left[0] = memoryview(left[0])[count:]
        self.size = max(self.size, at)

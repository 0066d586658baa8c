"""Streams as whoever may read the files reads them: no supervisor is needed, nor waited for."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import NamedTuple, TypeVar

from bossworker.tasks.wire.stream_files import MARKS, NAMES, SIZE_BYTES, Marks, bases, file_name

_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_ATTEMPTS = 1000  # to open a file before the writer removes it; each time it did, more had come
_READ_SIZE = 1 << 20  # bytes a system call asks for

T = TypeVar("T")


class Extent(NamedTuple):
    """What there is of a stream: the numbers of its first unit and of the one after its last; whether more may come."""

    start: int
    limit: int
    ended: bool


class Gone(Exception):
    """The stream's files are not there (any more)."""


class Reader:
    """Reads a stream in a folder by its files. Keeps no state and no descriptor."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder = folder
        self.name = name

    def extent(self) -> Extent:
        """What there is now. Raises Gone."""
        with _opened(self.folder) as folder:
            return self._again(lambda: self._extent(folder))

    def _again(self, look: Callable[[], T]) -> T:
        """Look until no file was removed between seeing its name and opening it."""
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):
                return look()
        raise Gone(f"{self.folder}: {self.name} is not there, or is given up faster than it can be read")

    def _extent(self, folder: int) -> Extent:
        # The writer appends, and then says that it has ended. Read the other way round, more could have come between
        # the sizes and that word, and whoever follows the stream would leave before it.
        floor, cap, ended = self._marks(folder)
        found = self._bases(folder)
        limit = self._limit(folder, found[-1])
        return Extent(max(floor, found[0], self._capped(limit, cap)), limit, ended)

    def _range(self, extent: Extent, ofs: int | None, count: int | None) -> tuple[int, int]:
        """The units that are asked for, as far as they are there."""
        asked = extent.start if ofs is None else ofs
        first = min(max(asked, extent.start), extent.limit)
        end = extent.limit if count is None else min(asked + count, extent.limit)
        return first, max(first, end)

    def _files(self, folder: int, start: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The files that the units lie in: the first unit of each, and which are wanted of it."""
        # The writer may have removed files since the extent was looked at. If the first wanted one is gone, all is
        # looked at anew.
        found = self._bases(folder)
        if found[0] > start:
            raise FileNotFoundError(self.name)
        for base, after in zip(found, [*found[1:], end], strict=True):
            if max(start, base) < min(end, after):
                yield base, max(start, base), min(end, after)

    def _marks(self, folder: int) -> tuple[int, int | None, bool]:
        fd = os.open(MARKS, _OPEN, dir_fd=folder)
        try:
            return Marks(fd, NAMES.index(self.name)).read()
        finally:
            os.close(fd)

    def _bases(self, folder: int) -> list[int]:
        found = bases(folder, self.name)
        if not found:
            raise FileNotFoundError(self.name)
        return found

    def _limit(self, folder: int, base: int) -> int:
        raise NotImplementedError

    def _capped(self, limit: int, cap: int | None) -> int:
        raise NotImplementedError


class ByteReader(Reader):
    """Reads a stream of bytes."""

    def read(self, ofs: int | None, count: int | None) -> tuple[int, bytes]:
        """At most `count` bytes from `ofs` on (None: from the first there is): where they begin, and the bytes.

        What has been given up is left out: then they begin later than asked, or there are none. Raises Gone.
        """
        with _opened(self.folder) as folder:
            return self._again(lambda: self._read(folder, ofs, count))

    def _read(self, folder: int, ofs: int | None, count: int | None) -> tuple[int, bytes]:
        start, end = self._range(self._extent(folder), ofs, count)
        parts = [
            _read_file(folder, file_name(self.name, base), low - base, high - low)
            for base, low, high in self._files(folder, start, end)
        ]
        return start, b"".join(parts)

    def _limit(self, folder: int, base: int) -> int:
        return base + os.stat(file_name(self.name, base), dir_fd=folder, follow_symlinks=False).st_size

    def _capped(self, limit: int, cap: int | None) -> int:
        return 0 if cap is None else limit - cap


class MessageReader(Reader):
    """Reads a stream of messages; its units are whole messages."""

    def read(self, ofs: int | None, count: int | None) -> tuple[int, list[bytes]]:
        """As `ByteReader.read`, counted in messages: the number of the first, and they."""
        with _opened(self.folder) as folder:
            return self._again(lambda: self._read(folder, ofs, count))

    def _read(self, folder: int, ofs: int | None, count: int | None) -> tuple[int, list[bytes]]:
        start, end = self._range(self._extent(folder), ofs, count)
        messages: list[bytes] = []
        for base, low, high in self._files(folder, start, end):
            messages += self._messages(folder, base)[low - base : high - base]
        return start, messages

    def _limit(self, folder: int, base: int) -> int:
        return base + len(self._messages(folder, base))

    def _capped(self, limit: int, cap: int | None) -> int:
        return 0  # kept by whole files

    def _messages(self, folder: int, base: int) -> list[bytes]:
        """All the messages in a file; one that is not all there yet is none."""
        data = _read_file(folder, file_name(self.name, base), 0, None)
        messages: list[bytes] = []
        at = 0
        while at + SIZE_BYTES <= len(data):
            begin = at + SIZE_BYTES
            at = begin + int.from_bytes(data[at:begin], "little")
            # The writer may be in the middle of this message: its size is there, and the rest not yet.
            if at <= len(data):
                messages.append(data[begin:at])
        return messages


@contextmanager
def _opened(folder: str) -> Iterator[int]:
    try:
        fd = os.open(folder, _FOLDER)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise Gone(f"{folder} is not there") from error
    try:
        yield fd
    finally:
        os.close(fd)


def _read_file(folder: int, name: str, start: int, count: int | None) -> bytes:
    fd = os.open(name, _OPEN, dir_fd=folder)
    try:
        return _read(fd, start, count)
    finally:
        os.close(fd)


def _read(fd: int, start: int, count: int | None) -> bytes:
    parts = []
    while count is None or count > 0:
        data = os.pread(fd, _READ_SIZE if count is None else min(count, _READ_SIZE), start)
        if not data:
            break
        parts.append(data)
        start += len(data)
        count = None if count is None else count - len(data)
    return b"".join(parts)

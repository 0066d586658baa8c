"""Streams as their supervisor writes them: appended to, cut into files, and removed from the front."""

from __future__ import annotations

import errno
import os

from bossworker.tasks.wire.stream_files import SIZE_BYTES, Marks, file_name

SMALLEST_FILE = 1 << 16  # bytes; smaller ones would cost more for their names than for what is in them
LARGEST_FILE = 1 << 22  # bytes, where what lies in front is to go sooner or later
MESSAGES_FILE = 1 << 20  # bytes; a reader has to go through a file to find a message
SPLICE_SIZE = 1 << 20  # bytes moved at a time: what a pipe holds at most
COPY_SIZE = 1 << 16  # the same where bytes have to come through this process

_CREATE = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_SPLICE_NONBLOCK = 2  # SPLICE_F_NONBLOCK
_CANNOT_SPLICE = (errno.EINVAL, errno.ENOSYS, errno.EPERM)  # a file system (eCryptfs), a kernel, a seccomp filter


def file_size_for(cap: int | None, retain: int | None) -> int | None:
    """The size at which a new file is begun: a quarter of what is kept; None if nothing is ever given up."""
    kept = [limit for limit in (cap, retain) if limit is not None]
    return max(SMALLEST_FILE, min(LARGEST_FILE, min(kept) // 4)) if kept else None


class Store:
    """What streams of bytes and of messages have in common: files, a floor below which nothing is given out, an end."""

    def __init__(self, folder: int, name: str, marks: Marks, cap: int | None, retain: int | None) -> None:
        """
        Args:
            folder: The descriptor of the folder that the files lie in; it stays the caller's.
            cap: This many of the newest bytes are kept; None: all.
            retain: This many bytes are kept after they have been read; None: all.
        """
        self.name = name
        self.limit = 0
        """The number of units that came so far."""
        self.ended = False
        self._folder = folder
        self._marks = marks
        self._cap = cap
        self._retain = retain
        self._floor = 0
        self._files: list[tuple[int, int]] = []  # first unit and bytes of each file but the last
        self._base = 0  # the first unit in the last file, which is written to
        self._size = 0  # the bytes in it
        self._fd = self._open(0)
        self._write_marks()

    @property
    def start(self) -> int:
        """The first unit that is still given out."""
        return max(self._floor, self._first)

    @property
    def _first(self) -> int:
        return self._files[0][0] if self._files else self._base

    def end(self, ended: bool = True) -> None:
        """Tell readers that no more will come, or that more will after all."""
        if ended != self.ended:
            self.ended = ended
            self._write_marks()

    def consumed(self, upto: int) -> None:
        """Somebody has read every unit before `upto`."""
        if self._retain is not None:
            self._raise_floor(min(upto, self.limit) - self._retain)

    def discard(self, upto: int) -> None:
        """Give up every unit before `upto`, and the room that they take as far as whole files allow."""
        self._raise_floor(min(upto, self.limit))
        if self._floor > self._base and self._size:
            self._begin_file()
            self._drop_files()

    def close(self) -> None:
        """Give up the descriptor."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _raise_floor(self, floor: int) -> None:
        if floor > self._floor:
            self._floor = floor
            self._write_marks()
            self._drop_files()

    def _write_marks(self) -> None:
        self._marks.write(self._floor, self._cap, self.ended)

    def _open(self, base: int) -> int:
        return os.open(file_name(self.name, base), _CREATE, 0o666, dir_fd=self._folder)

    def _begin_file(self) -> None:
        """Write to a new file from here on. OSError when there can be none: then nothing has changed."""
        fd = self._open(self.limit)
        os.close(self._fd)
        self._fd = fd
        self._files.append((self._base, self._size))
        self._base, self._size = self.limit, 0

    def _drop_files(self) -> None:
        """Remove the files that end before `start`; never the last one."""
        start = self.start
        while self._files and (self._files[1][0] if len(self._files) > 1 else self._base) <= start:
            self._drop_first()

    def _drop_first(self) -> None:
        base, _ = self._files.pop(0)
        try:
            os.unlink(file_name(self.name, base), dir_fd=self._folder)
        except FileNotFoundError:
            pass


class ByteStore(Store):
    """A stream of bytes."""

    def __init__(self, folder: int, name: str, marks: Marks, cap: int | None, retain: int | None) -> None:
        super().__init__(folder, name, marks, cap, retain)
        self._file_size = file_size_for(cap, retain)
        self._unsaved = b""  # taken from a pipe by copying, and not on the disk yet
        self._cannot_splice = False

    @property
    def start(self) -> int:
        capped = 0 if self._cap is None else self.limit - self._cap
        return max(self._floor, capped, self._first)

    def append(self, data: bytes | memoryview) -> None:
        """Add bytes. OSError when the disk does not take all of them; what it took is in `limit`."""
        while data:
            room = self._room(len(data))  # may begin a file: before its descriptor is looked up
            written = os.write(self._fd, data[:room])
            self._added(written)
            data = data[written:]

    def take_from(self, pipe: int) -> int:
        """Move what a pipe holds into the stream; how many bytes, 0 at its end. OSError as from disk or pipe."""
        count = self._move(pipe)
        self._added(count)
        return count

    def _room(self, wanted: int) -> int:
        """How much of it goes into the present file, after a new one has been begun if there was no room left."""
        if self._file_size is None:
            return wanted
        if self._size >= self._file_size:
            self._begin_file()
        return min(wanted, self._file_size - self._size)

    def _added(self, count: int) -> None:
        self._size += count
        self.limit += count
        if self._files:
            self._drop_files()

    def _splice(self, pipe: int) -> int:
        """Through the kernel alone; what finds no room on the disk stays in the pipe."""
        if self._cannot_splice:
            return self._copy(pipe)
        room = self._room(SPLICE_SIZE)
        try:
            return os.splice(pipe, self._fd, room, flags=_SPLICE_NONBLOCK)
        except OSError as error:
            if error.errno not in _CANNOT_SPLICE:
                raise
        self._cannot_splice = True
        return self._copy(pipe)

    def _copy(self, pipe: int) -> int:
        """Through this process. What finds no room on the disk is kept here, and written first the next time."""
        if not self._unsaved:
            self._unsaved = os.read(pipe, COPY_SIZE)
        if not self._unsaved:
            return 0
        room = self._room(COPY_SIZE)
        written = os.write(self._fd, self._unsaved[:room])
        self._unsaved = self._unsaved[written:]
        return written

    _move = _splice if hasattr(os, "splice") else _copy


class MessageStore(Store):
    """A stream of whole messages, each with its size in front. Its cap is kept by whole files."""

    def append(self, message: bytes) -> None:
        """Add a message. OSError when the disk does not take it: then none of it is there."""
        if self._size >= self._file_size():
            self._begin_file()
        record = len(message).to_bytes(SIZE_BYTES, "little") + message
        try:
            written = os.pwrite(self._fd, record, self._size)
            if written < len(record):
                os.pwrite(self._fd, record[written:], self._size + written)
        except OSError:
            os.ftruncate(self._fd, self._size)
            raise
        self._size += len(record)
        self.limit += 1
        self._keep_cap()

    def _file_size(self) -> int:
        return MESSAGES_FILE if self._cap is None else min(MESSAGES_FILE, max(SMALLEST_FILE, self._cap // 4))

    def _keep_cap(self) -> None:
        if self._cap is None or not self._files:
            return
        kept = self._size + sum(size for _, size in self._files)
        while self._files and kept - self._files[0][1] >= self._cap:
            kept -= self._files[0][1]
            self._drop_first()

"""One end of a stream socket that carries whole frames, and descriptors beside them.

Every process of a pool speaks through links: caller and boss, boss and fork server, boss and each worker. They are
anonymous socket pairs, so there is no name to find, to guard or to leave behind.

A link survives an exception raised from a signal handler at any point (Ctrl-C in the caller, above all). Python may
raise between the return of ``send`` and the assignment of its result, and a byte count lost there would garble
the stream for good. So each system call is made *inside* ``list.extend(map(...))``: its result is in the list
before the interpreter looks for signals again. The bookkeeping after it starts from that list, and commits by plain
assignments, between which no signal is looked for.
"""

from __future__ import annotations

import array
import errno
import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bossworker.pool.wire.frames import MAX_FDS, Buffer, Cut, Frame, Part, cut_frames, pack
from bossworker.pool.wire.messages import PREFIX, Kind, ProtocolError
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.system.stdio import above_stdio, socket_above_stdio

_Ancillary = tuple[int, int, bytes]

READ_SIZE = 1 << 16  # bytes a read asks for; for more, the allocator goes to the kernel each time
LONG_READ_SIZE = 1 << 18  # the same in the midst of a long frame: what a socket holds
PARTS_AT_ONCE = 64  # as many go into one system call; the kernel takes 1,024
IN_PLACE_BELOW = 1 << 26  # bytes; a frame that claims to be longer gets its memory only as it comes
CUT_READS = 16  # as many as are read at once
SMALL_READ = 1 << 14  # bytes; a read that brought less has most likely emptied the socket
FD_SPACE = socket.CMSG_SPACE(MAX_FDS * array.array("i").itemsize)


_FLAGS = (NO_SIGPIPE,)
HUNG_UP = {errno.EPIPE, errno.ECONNRESET, errno.ENOTCONN, errno.EBADF, errno.ESHUTDOWN, errno.ENOTSOCK}


class LinkClosed(Exception):
    """The peer is gone: nothing more will arrive, or nothing more can be sent."""


_Rights = tuple[tuple[int, int, "array.array[int]"], ...]


class Link:
    """Frames over a nonblocking socket. Owned by one thread at a time for each direction."""

    cut = staticmethod(cut_frames)

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self._out: list[Part] = []
        self._sent: list[int] = []  # bytes sent of _out, not yet accounted for
        self._in = _Assembler([], self.cut)
        self._read: list[tuple[bytes, list[_Ancillary], int, Any]] = []  # what came in, not yet cut into frames
        self._filled: list[int] = []  # bytes read into the long frame, not yet accounted for
        self._ended = False
        self.frames: list[Frame] = []  # whole frames, not yet taken

    def fileno(self) -> int:
        return self.sock.fileno()

    @property
    def unsent(self) -> bool:
        """Whether a frame is still waiting to be sent, wholly or in part."""
        return bool(self._out)

    @property
    def unsent_bytes(self) -> int:
        """How much that is, about."""
        return sum(len(part) for part, _ in self._out)

    @property
    def left_over(self) -> bool:
        """Whether a call has read something that it did not return, or was not taken from `frames`: it was interrupted.

        (The beginning of a frame, whose rest is still to come, does not count.)
        """
        return bool(self.frames or self._read or self._filled)

    @property
    def held(self) -> int:
        """Bytes of a frame whose end has not arrived."""
        return self._in.have

    @property
    def garbled(self) -> bool:
        """Whether what came after the last frame is no frame."""
        return self._in.have >= PREFIX.size and not self._in.missing and self._in.place is None

    def close(self) -> None:
        """Hang up. The peer sees it even when another process holds a copy of the descriptor."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.drop()

    def drop(self) -> None:
        """Close this process's copy of the descriptor; the link itself goes on elsewhere."""
        # First of all: another thread that is about to send then fails, instead of sending to whoever gets this number
        # next.
        self.sock.close()
        self._drop_unsent()
        while self.frames:
            close_fds(self.frames.pop().fds)
        close_fds(self._in.fds)
        self._in.fds = []
        while self._read:
            _, ancillary, flags, _ = self._read.pop()
            close_fds(_fds(ancillary, flags))

    def _drop_unsent(self) -> None:
        while self._out:
            close_fds(self._out.pop()[1])

    # -- sending ----------------------------------------------------------------------------------------

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()) -> bool:
        """Queue a frame and send what the socket takes now; True when nothing is left to send.

        Raises LinkClosed. The descriptors become the link's, which closes them once they are sent.
        """
        self.queue(pack(kind, head, body, fds))
        return self.flush()

    def queue(self, parts: list[Part]) -> None:
        """Queue packed frames: all of them, then the list is empty; or, if interrupted, none."""
        # Neither is a call, so a signal handler runs before both or after both. The list itself says that its frames
        # go out: what another thread queues meanwhile does not change that.
        self._out += parts
        del parts[:]

    def flush(self) -> bool:
        """Send what the socket takes now; True when nothing is left. Raises LinkClosed."""
        try:
            while True:
                if self._sent:
                    self._account()
                if not self._out:
                    return True
                if not self._send_some():
                    return False
        except IndexError:
            if self.sock.fileno() >= 0:
                raise
            # Another thread has hung up, and dropped what was to be sent, between two steps of ours.
            self._sent = []
            raise LinkClosed("another thread has hung up") from None

    def _send_some(self) -> bool:
        """One system call, whose result is then in `_sent`; False when the socket takes nothing now."""
        try:
            if len(self._out) == 1 and not self._out[0][1]:
                # In C from the system call to the list: a signal handler that raises right behind it finds the count in
                # the list, and the next call strikes it off.
                self._sent.extend(map(self.sock.send, (self._out[0][0],), _FLAGS))
            else:
                buffers, rights = self._next_parts()
                self._sent.extend(map(self.sock.sendmsg, (buffers,), (rights,), _FLAGS))
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in HUNG_UP:  # a signal handler's, a TimeoutError for instance
                raise
            # Another thread may have hung up before this was queued: nobody else closes the descriptors in it then.
            if self.sock.fileno() < 0:
                self._drop_unsent()
            raise LinkClosed(str(error)) from error
        return True

    def _next_parts(self) -> tuple[Sequence[memoryview], _Rights]:
        """What the next system call sends: up to the next descriptors, which go with the first bytes of a call."""
        first, fds = self._out[0]
        buffers = [first]
        for part, its_fds in self._out[1:PARTS_AT_ONCE]:
            if its_fds:
                break
            buffers.append(part)
        rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))
        return buffers, (rights,) if fds else ()

    def _account(self) -> None:
        """Strike off what was sent. Only assignments between the making of `closing` and the clearing of _sent."""
        left = self._sent[0]
        fds = self._out[0][1]
        if len(self._out) == 1 and not fds and left == len(self._out[0][0]):  # as nearly always
            self._out, self._sent = [], []
            return
        whole = 0
        for part, _ in self._out:
            if len(part) > left:
                break
            left -= len(part)
            whole += 1
        rest = self._out[whole:]
        if left:
            rest[0] = (rest[0][0][left:], ())
        closing = map(os.close, fds)  # they left with the first byte
        # One after the other, without a call in between: with one of the two done, what was sent would be struck off
        # twice, or be sent twice.
        self._out, self._sent = rest, []
        _exhaust(closing)  # the first call since `closing` was made: what is struck off is closed

    # -- receiving --------------------------------------------------------------------------------------

    def receive(self, most: int = 16) -> list[Frame]:
        """The frames that have arrived whole, after at most `most` reads; an empty list when none.

        Raises LinkClosed once the peer hung up and every frame it sent has been returned.
        """
        self.pull(most)
        frames, self.frames = self.frames, []
        return frames

    def pull(self, most: int = 16) -> bool:
        """As `receive`, but the frames are left in `frames`, for one that may be interrupted, and takes each by itself.

        Whether anything came: there may be more then.
        """
        came = False
        if self._filled or self._read:  # left over from an interrupted call
            self._resume()
        while most and not self._ended:
            most -= 1
            size = self._read_once()
            came = came or size > 0
            if size < SMALL_READ:
                break
        if self._ended and not self.frames:
            raise LinkClosed("the peer hung up")
        return came

    def _resume(self) -> None:
        """Take in what an interrupted call has read."""
        if self._filled:
            self._account_filled()
        self._cut()

    def _read_once(self) -> int:
        """Read once, and take in what came; how many bytes."""
        if self._in.place is None and READ_SIZE <= self._in.missing < IN_PLACE_BELOW:
            self._in = self._in.in_place()
        try:
            if self._in.place is not None:
                self._filled.extend(map(self.sock.recv_into, (self._in.place[self._in.have :],)))
                return self._account_filled()
            size = LONG_READ_SIZE if self._in.missing > READ_SIZE else READ_SIZE
            # As in `_send_some`: what was read is in the list before anything can interrupt us.
            self._read.extend(map(self.sock.recvmsg, (size,), (FD_SPACE,)))
        except BlockingIOError:
            return 0
        except OSError as error:
            if error.errno not in HUNG_UP:
                raise
            self._ended = True
            return 0
        size = len(self._read[-1][0])
        self._ended = not size
        if not self._cut_simply():
            self._cut()
        return size

    def _account_filled(self) -> int:
        """Count what was read into the long frame. Only assignments between the sums and the clearing of _filled."""
        assembler, size = self._in, self._filled[0]
        have = assembler.have + size
        if have < len(assembler.place):  # type: ignore[arg-type]  # we are filling it
            assembler.have, self._filled, self._ended = have, [], not size
        else:
            done, frames = assembler.filled()
            self._in, self.frames, self._filled = done, [*self.frames, *frames], []
        return size

    def _cut(self) -> None:
        """Cut what was read into frames; if interrupted, the next call starts over from the same bytes.

        A few reads at a time: a program that is interrupted all the time must get on, too, with reads piling up.
        """
        while reads := self._read[:CUT_READS]:
            assembler = self._in.copy()
            frames = [*self.frames]
            for data, ancillary, flags, _ in reads:
                frames += assembler.feed(data, _fds(ancillary, flags))
            # The three are computed before and stored without a call in between: whoever is interrupted before starts
            # over from the same bytes, with `_in` and `frames` as they were.
            self._in, self._read, self.frames = assembler, self._read[len(reads) :], frames

    def _cut_simply(self) -> bool:
        """The common case: one read that brought whole frames and nothing else. Whether it was that."""
        if len(self._read) > 1 or self._in.parts or self._in.fds:
            return False
        data, ancillary, flags, _ = self._read[0]
        if ancillary or flags & _LOST:
            return False
        frames, used, _ = self.cut(memoryview(data), [])
        if used < len(data):
            return False
        self._read, self.frames = [], [*self.frames, *frames]
        return True


class _Assembler:
    """Puts frames together from a stream of bytes that arrives in pieces of any size."""

    __slots__ = ("cut", "fds", "have", "missing", "parts", "place")

    def __init__(self, fds: list[int], cut: Callable[[memoryview, list[int]], Cut]) -> None:
        self.cut = cut
        self.parts: list[bytes] = []  # the beginning of a frame, as it came
        self.have = 0  # bytes in parts, or in place
        self.missing = 0  # bytes to the end of a frame whose length is known; 0: unknown
        self.place: memoryview | None = None  # memory for a whole long frame, instead of parts
        self.fds = fds  # arrived with bytes, in order; frames claim them in order

    def copy(self) -> _Assembler:
        twin = _Assembler(list(self.fds), self.cut)
        twin.parts, twin.have, twin.missing = list(self.parts), self.have, self.missing
        return twin

    def in_place(self) -> _Assembler:
        """The same, with memory for the whole frame, into which the rest of it is read."""
        twin = _Assembler(self.fds, self.cut)
        twin.place, twin.have = memoryview(bytearray(self.have + self.missing)), self.have
        twin.place[: self.have] = b"".join(self.parts)
        return twin

    def filled(self) -> tuple[_Assembler, list[Frame]]:
        """What comes after the long frame, whose memory is full; and that frame."""
        twin = _Assembler(list(self.fds), self.cut)
        frames, _, _ = self.cut(self.place, twin.fds)  # type: ignore[arg-type]
        return twin, frames

    def feed(self, data: bytes, fds: list[int]) -> list[Frame]:
        self.fds += fds
        if self.missing > len(data):
            self._keep(data)
            self.missing -= len(data)
            return []
        if self.parts:
            data = b"".join((*self.parts, data))
            self.parts, self.have = [], 0
        frames, used, self.missing = self.cut(memoryview(data), self.fds)
        if used < len(data):
            self._keep(data[used:])
        if len(self.fds) > (MAX_FDS if self.parts else 0):
            raise ProtocolError("descriptors that no frame carries")
        return frames

    def _keep(self, data: bytes) -> None:
        self.parts.append(data)
        self.have += len(data)


def _fds(ancillary: list[_Ancillary], flags: int) -> list[int]:
    """The descriptors that came with a read; -1 for the one that this process had no room for."""
    found = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return list(map(_lifted, found)) or [-1] * bool(flags & _LOST)


def _lifted(fd: int) -> int:
    """In a program that has closed its standard streams, what is received takes their numbers."""
    try:
        return above_stdio(fd)
    except OSError:  # there is no other number
        return fd


_exhaust = deque[None](maxlen=0).extend
_LOST = int(socket.MSG_CTRUNC)  # as an enum, it is slow


def link_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected stream sockets, for two processes to make links of; neither where either has a standard stream."""
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    return socket_above_stdio(one), socket_above_stdio(other)


def close_fds(fds: Iterable[int]) -> None:
    """Close descriptors that a frame carried."""
    for fd in fds:
        if fd >= 0:
            os.close(fd)

"""A client's end of a door at a path: a DEALER that speaks ZMTP without libzmq, as a worker's does.

So there is no thread in the program that connects, and a signal handler that raises (Ctrl-C) loses nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from typing import Any

from bossworker.pool.door import door_protocol
from bossworker.pool.door.door_protocol import LONGEST_MESSAGE, in_pieces
from bossworker.pool.wire.frames import Part
from bossworker.pool.wire.messages import PREFIX, ProtocolError
from bossworker.pool.wire.zmtp import DealerLink, exactly, greet, header_of
from bossworker.system.cpython import NO_SIGPIPE

_LONG, _COMMAND = 2, 4  # flags of a message


class ClientLink(DealerLink):
    """A link to a door: each frame is a message, or several where it is too large for one."""

    def queue(self, parts: list[Part]) -> None:
        wrapped = [part for frame in _frames(parts) for part in _wrap(frame)]
        self._out += wrapped  # no call: see `Link.queue`
        del parts[:]

    def send(self, *frame: Any, **more: Any) -> bool:
        """As of any link."""
        return super(DealerLink, self).send(*frame, **more)


def _frames(parts: list[Part]) -> Iterator[list[memoryview]]:
    """The parts of each frame, together."""
    missing, frame = 0, list[memoryview]()
    for part, fds in parts:
        assert not fds, "no message of ZeroMQ carries a descriptor"
        if not missing:
            _, _, _, head, body = PREFIX.unpack_from(part)
            missing, frame = PREFIX.size + head + body, []
        frame.append(part)
        missing -= len(part)
        if not missing:
            yield frame


def _wrap(frame: list[memoryview]) -> Iterator[Part]:
    """One frame as messages of ZMTP."""
    size = sum(map(len, frame))
    if size <= LONGEST_MESSAGE:
        yield memoryview(header_of(size)), ()
        yield from ((part, ()) for part in frame)
        return
    for piece in in_pieces(b"".join(frame)):
        yield memoryview(header_of(len(piece))), ()
        yield memoryview(piece), ()


def shake_hands(sock: socket.socket, hello: dict[str, Any], deadline: float) -> dict[str, Any]:
    """Introduce ourselves to a door; what it answers. LinkClosed, ProtocolError, TimeoutError: it is none."""
    greet(sock, b"", deadline)
    message = door_protocol.encode(hello)
    sock.setblocking(True)
    sock.sendall(header_of(len(message)) + message, NO_SIGPIPE)
    while True:
        flags = exactly(sock, 1, deadline)[0]
        if flags & ~(_LONG | _COMMAND):
            raise ProtocolError(f"not a message of one part: flags {flags}")
        size = int.from_bytes(exactly(sock, 8 if flags & _LONG else 1, deadline), "big")
        if size > LONGEST_MESSAGE:
            raise ProtocolError(f"an answer of {size} bytes")
        data = exactly(sock, size, deadline)
        if not flags & _COMMAND:
            return door_protocol.decode(data)


def cut_message(read: bytes, longest: int) -> tuple[bytes, bytes] | None:
    """The first message in what was read, and the rest; None when it is not all there. ProtocolError: it is none."""
    at = 0
    while len(read) >= at + 2:
        flags = read[at]
        if flags & ~(_LONG | _COMMAND):
            raise ProtocolError(f"not a message of one part: flags {flags}")
        begin = at + (9 if flags & _LONG else 2)
        size = int.from_bytes(read[at + 1 : begin], "big")
        if len(read) < begin or len(read) < begin + size:
            if len(read) >= begin and size > longest:
                raise ProtocolError(f"an answer of {size} bytes")
            return None
        at = begin + size
        if not flags & _COMMAND:
            return read[begin:at], read[at:]
    return None

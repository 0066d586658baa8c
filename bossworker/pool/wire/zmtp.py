"""A worker's end of the ZeroMQ wire: a DEALER that speaks ZMTP 3.0 (NULL mechanism) without libzmq.

libzmq in a worker would break promises: it starts threads (of which CPython warns at each fork that a handler makes),
aborts when a handler closes its descriptors, and has not sent what it was given when the worker is killed the next
instant. This end is a `Link`: nothing is lost when a signal handler raises, and what was sent is with the kernel.

A message is one part: flags, a length of one or eight bytes, and one of our frames.
"""

from __future__ import annotations

import select
import socket
import time
from collections.abc import Sequence

from bossworker.pool.wire.frames import Buffer, Cut, Frame, Part, frame_of, pack
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind, ProtocolError
from bossworker.system import processes
from bossworker.system.cpython import NO_SIGPIPE

_MORE, _LONG, _COMMAND = 1, 2, 4  # flags of a message
_SIGNATURE = 0xFF  # a greeting's first byte, which is no message's
_GREETING_SIZE = 64
_GREETING = (
    b"\xff" + bytes(8) + b"\x7f"  # signature
    b"\x03\x00"  # version
    + b"NULL".ljust(20, b"\0")  # mechanism
    + bytes(32)  # not a server; filler
)


def greet(sock: socket.socket, identity: bytes, deadline: float | None = None) -> None:
    """Shake hands, as a DEALER of this identity. LinkClosed, ProtocolError when there is no ZeroMQ at the other end.

    TimeoutError when it is not done by the `deadline` (monotonic seconds).

    Nothing may be sent before the boss's READY has come: libzmq drops whoever is ahead of it.
    """
    sock.setblocking(True)
    sock.sendall(_GREETING, NO_SIGPIPE)
    _check_greeting(exactly(sock, _GREETING_SIZE, deadline))
    sock.sendall(_ready(identity), NO_SIGPIPE)
    flags, size = exactly(sock, 2, deadline)
    if flags != _COMMAND or not exactly(sock, size, deadline).startswith(b"\x05READY"):
        raise ProtocolError("no READY")
    sock.setblocking(False)


def introduce(sock: socket.socket, identity: bytes) -> None:
    """The same, without waiting for the other's part, for whoever sends nothing: see `EarlyLink`."""
    sock.setblocking(True)
    sock.sendall(_GREETING + _ready(identity), NO_SIGPIPE)
    sock.setblocking(False)


def _check_greeting(greeting: bytes) -> None:
    if greeting[0] != _SIGNATURE or greeting[9] != 0x7F or greeting[10] < 3 or greeting[12:16] != b"NULL":
        raise ProtocolError("no greeting of ZMTP 3")


def _ready(identity: bytes) -> bytes:
    return _command(b"READY", {b"Socket-Type": b"DEALER", b"Identity": identity})


def exactly(sock: socket.socket, size: int, deadline: float | None) -> bytes:
    """That many bytes. LinkClosed; TimeoutError when they are not there by the deadline (monotonic seconds)."""
    found = b""
    while len(found) < size:
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not processes.await_fd(sock.fileno(), select.POLLIN, seconds) and deadline and time.monotonic() >= deadline:
            raise TimeoutError("nobody answers at the other end")
        data = sock.recv(size - len(found))
        if not data:
            raise LinkClosed("the other end hung up")
        found += data
    return found


def _command(name: bytes, properties: dict[bytes, bytes]) -> bytes:
    body = bytes([len(name)]) + name
    for key, value in properties.items():
        body += bytes([len(key)]) + key + len(value).to_bytes(4, "big") + value
    return bytes([_COMMAND, len(body)]) + body


def header_of(size: int) -> bytes:
    """What stands in front of a message of this size."""
    return bytes((0, size)) if size < 256 else bytes((_LONG,)) + size.to_bytes(8, "big")


def cut_messages(view: memoryview, fds: list[int]) -> Cut:
    """As `link.cut_frames`, of messages with a frame each. Commands are passed over."""
    frames: list[Frame] = []
    start, total = 0, len(view)
    while total - start >= 2:
        flags, body = view[start], start + 2
        if flags & ~(_LONG | _COMMAND):
            raise ProtocolError(f"not a message of one part: flags {flags}")
        if flags & _LONG:
            body = start + 9
            if body > total:
                break
            end = body + int.from_bytes(view[start + 1 : body], "big")
        else:
            end = body + view[start + 1]
        if end > total:
            return frames, start, end - total
        if not flags & _COMMAND:
            frames.append(frame_of(view[body:end]))
        start = end
    return frames, start, 0


def cut_early_messages(view: memoryview, fds: list[int]) -> Cut:
    """The same, where the other's greeting may come first."""
    if not len(view) or view[0] != _SIGNATURE:
        return cut_messages(view, fds)
    if len(view) < _GREETING_SIZE:
        return [], 0, _GREETING_SIZE - len(view)
    _check_greeting(bytes(view[:_GREETING_SIZE]))
    frames, used, missing = cut_messages(view[_GREETING_SIZE:], fds)
    return frames, _GREETING_SIZE + used, missing


class DealerLink(Link):
    """A link to a ROUTER, once hands have been shaken."""

    cut = staticmethod(cut_messages)

    def send(self, kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()) -> bool:
        assert not fds, "no message of ZeroMQ carries a descriptor"
        parts = pack(kind, head, body)
        header: Part = (memoryview(header_of(sum(len(part) for part, _ in parts))), ())
        self.queue([header, *parts])
        return self.flush()


class EarlyLink(DealerLink):
    """The same, as soon as one has introduced oneself. It takes orders; what it sent might be dropped."""

    cut = staticmethod(cut_early_messages)

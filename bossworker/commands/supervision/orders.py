"""The launcher's wire: orders to start a supervisor, and their answers.

An order is a length, the entry point of the supervisor (``package.module:function``) on a line of its own, and data for
it. Beside the first bytes travel its descriptors; the last one is where the answer goes. All passes between a program
and the launcher that it started itself.
"""

from __future__ import annotations

import errno
import marshal
import os
import sys

from bossworker.system.cpython import socket

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LENGTH = 8  # bytes, little-endian
DESCRIPTORS = 5  # of an order at most: job directory, stdin, stdout, stderr, and where the answer goes
FD_BYTES = 4


VERSION = 2  # of orders and greetings; to be changed with them
GREETING = b"\0python\0"  # said at once: who says it is Python
HELLO, END_OF_HELLO = b"\0launcher ", b"\0\n"  # said when it is up, with the version in between


def hello() -> bytes:
    """What a launcher says when it is up."""
    return HELLO + b"%d" % VERSION + END_OF_HELLO


def encode(entry: str, data: bytes) -> bytes:
    """What is sent for an order, but for its descriptors."""
    order = b"%b\n%b" % (entry.encode(), data)
    return len(order).to_bytes(LENGTH, "little") + order


def receive(program: Any) -> tuple[str, bytes, list[int]] | None:
    """An order's entry point, data and descriptors; None when the program is gone."""
    head, ancillary, _, _ = program.recvmsg(LENGTH, socket.CMSG_SPACE(DESCRIPTORS * FD_BYTES), _CLOEXEC)
    fds = [fd for _, _, data in ancillary for fd in descriptors(data)]
    size = read(program, LENGTH - len(head), head) if head else None
    data = None if size is None else read(program, int.from_bytes(size, "little"))
    if data is None or not fds:
        return None
    entry, _, data = data.partition(b"\n")
    return entry.decode(), data, fds


_CLOEXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)


def descriptors(data: bytes) -> list[int]:
    starts = range(0, len(data) - len(data) % FD_BYTES, FD_BYTES)
    return [int.from_bytes(data[start : start + FD_BYTES], sys.byteorder) for start in starts]


def read(program: Any, count: int, begun: bytes = b"") -> bytes | None:
    """This many bytes more; None when the program went away in the middle."""
    parts = [begun]
    while count:
        part = program.recv(min(count, 1 << 20))
        if not part:
            return None
        parts.append(part)
        count -= len(part)
    return b"".join(parts)


def answer(fd: int, error: OSError | None = None) -> None:
    """Tell whoever waits how it went: an error number and a text."""
    told = (0, "") if error is None else (error.errno or errno.EIO, error.strerror or str(error))
    try:
        os.write(fd, marshal.dumps(told))
    except OSError:  # nobody waits any more; the command runs all the same
        pass

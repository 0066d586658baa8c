"""The wire between a supervisor and its clients: what is said, and how it is framed. No socket in here.

A frame is a header of twelve bytes (a mark that names the version, the sizes of head and body), a head that is a JSON
object in UTF-8, and a body of raw bytes, most often empty. Whoever has a Unix socket and JSON can speak it.

Client to supervisor: a request names an ``op`` below and its arguments; requests of one connection are answered one
by one, in order. Supervisor to client: the answer, which has ``ok``; and between answers, to a client that asked by
``watch``, events, which have ``event`` instead. A request that cannot be met is answered by ``{"ok": false, "error":
text}``. Each request may have ``task``: the id of the task that it is meant for; the supervisor of another refuses it.

    info                                    -> info
    meta      meta: object                  merged into the task's metadata
    signal    signal: number
    restart
    read      stream, ofs, count            -> ofs, and the bytes as the body (for those who may not read the files)
    consumed  stream, upto                  bytes before `upto` have been read: retain_output decides what stays
    discard   stream, upto                  bytes before `upto` go -> start
    write     stream, wait: seconds | null, and the bytes as the body -> written
    close     stream, immediate: bool
    watch                                   events from now on, and one for each thing that is so already
    terminate                               the command and the supervisor end
    delete                                  and the task's files go

Everything that arrives is bounded before it is believed, and is data: numbers, texts, bytes.
"""

from __future__ import annotations

from struct import Struct

from bossworker.system.cpython import dumps, loads

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MARK = b"bwt1"  # the last byte is the version
HEADER = Struct("!4sII")
MAX_HEAD = 1 << 20  # bytes of JSON: a task's metadata, above all
MAX_META = MAX_HEAD // 4  # bytes of a task's metadata in JSON: what is told of a task has to hold it, and more besides
MAX_BODY = 1 << 18  # bytes: what one read or write may move
MAX_MESSAGE = 1 << 17  # bytes of a message of the stream `data`: what a socket of default size surely takes
LONGEST_WAIT = 1e9  # seconds
MAX_FRAME = HEADER.size + MAX_HEAD + MAX_BODY

OUTPUT, META, EXIT, RESTART = "output-available", "metadata-changed", "exit", "restart"
"""The events."""

Frame = tuple["dict[str, Any]", bytes]
"""A head and a body."""


class BadFrame(Exception):
    """What arrived is not of this protocol; the connection cannot be read any further."""


def encode(head: dict[str, Any], body: bytes | memoryview = b"") -> bytes:
    """A frame. BadFrame if it is larger than the other side would take."""
    text = dumps(head).encode()
    if len(text) > MAX_HEAD or len(body) > MAX_BODY:
        raise BadFrame(f"a message of {len(text)} + {len(body)} bytes; {MAX_HEAD} + {MAX_BODY} are allowed")
    return b"".join((HEADER.pack(MARK, len(text), len(body)), text, body))


class Decoder:
    """Cuts a stream of bytes, arriving in pieces of any size, into frames; holds less than one and the last piece."""

    __slots__ = ("_bytes",)

    def __init__(self) -> None:
        self._bytes = bytearray()

    def __len__(self) -> int:
        """The bytes that wait for the rest of their frame, or to be taken by `next`."""
        return len(self._bytes)

    def feed(self, data: bytes) -> None:
        """Take in bytes. What cannot become a frame is found out by `next`."""
        self._bytes += data

    def next(self) -> Frame | None:
        """The next frame if it is all there. BadFrame if there can be none."""
        if len(self._bytes) < HEADER.size:
            if not MARK.startswith(self._bytes[: len(MARK)]):
                raise BadFrame("not a message of this protocol")
            return None
        head_size, body_size = self._sizes()
        end = HEADER.size + head_size + body_size
        if len(self._bytes) < end:
            return None
        body_at = HEADER.size + head_size
        head = _parse(bytes(self._bytes[HEADER.size : body_at]))
        body = bytes(self._bytes[body_at:end])
        del self._bytes[:end]
        return head, body

    def _sizes(self) -> tuple[int, int]:
        mark, head_size, body_size = HEADER.unpack_from(self._bytes)
        if mark != MARK:
            raise BadFrame("not a message of this protocol, or of another version")
        if head_size > MAX_HEAD or body_size > MAX_BODY:
            raise BadFrame(f"a message of {head_size} + {body_size} bytes; {MAX_HEAD} + {MAX_BODY} are allowed")
        return head_size, body_size


def _parse(text: bytes) -> dict[str, Any]:
    try:
        head = loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise BadFrame(f"a head that is not JSON: {error}") from None
    if not isinstance(head, dict):
        raise BadFrame("a head that is no object")
    return head

"""What clients and doors say to each other. No socket in here.

Each message of ZeroMQ has one part. A client begins with *hello*; the door answers *welcome* or *refused*: these three
are JSON objects, so that any version understands any other's. What follows is, with ``accept="pickle"``, a frame a
message, as they go between the pool's own processes (``wire/messages.py``); with ``accept="json"``, a JSON object a
message (``json_form.py``). ARCHITECTURE.md has the whole protocol.

Back pressure is by credit: a client says how many bytes of results it has taken in (CREDIT), and the door sends at most
`WINDOW` bytes beyond that. Nothing is ever dropped for want of room.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Buffer, Frame, frame_of, prefix_of
from bossworker.pool.wire.messages import PIECE, VERSION, Kind, ProtocolError

DOOR_VERSION = 1  # of this protocol
LONGEST_MESSAGE = 1 << 22  # bytes; a longer frame travels in pieces
LONGEST_JSON = 1 << 26  # bytes of a message in JSON, which does not
MOST_DEPTH = 400  # of lists and objects in each other, in a job or result: half of what Python can read and write
OWN_DEPTH = 8  # of what a message has around these
LONGEST_HELLO = 1 << 16  # bytes of what somebody says who has not been let in
PIECE_BYTES = 1 << 20  # of this size
LONGEST_FRAME = 1 << 31  # bytes that pieces may make
WINDOW = 1 << 23  # bytes of results that may be on their way to a client
MOST_REQUESTS = 64  # of a client that wait for their answers
MOST_CLIENTS = 4096
MOST_IDENTITY = 200  # characters

FRAMES, JSON = "frames", "json"  # forms of what follows the welcome
OPERATOR = "operator"  # a third: JSON as well, of those who look at the pool as a whole (operators.py)
FORM_OF = {"pickle": FRAMES, "json": JSON}


def encode(message: Mapping[str, Any]) -> bytes:
    """A JSON message."""
    return json.dumps(message, separators=(",", ":")).encode()


def decode(data: bytes) -> dict[str, Any]:
    """A JSON message read. ProtocolError when it is none."""
    try:
        message = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ProtocolError(f"no JSON: {error}") from None
    if not isinstance(message, dict):
        raise ProtocolError("JSON, but no object")
    if is_too_deep(message, data, MOST_DEPTH + OWN_DEPTH):
        raise ProtocolError(f"JSON that is nested more than {MOST_DEPTH} times")
    return message


def decode_hello(data: Buffer) -> dict[str, Any]:
    """What somebody says first. ProtocolError when it is none, or so long that it cannot be one."""
    if len(data) > LONGEST_HELLO:
        raise ProtocolError(f"a hello of {len(data)} bytes")
    return decode(bytes(data))


def is_too_deep(value: object, text: bytes, most: int) -> bool:
    """Whether lists and dicts in plain data, whose JSON is `text`, are nested more than `most` levels deep."""
    if text.count(b"[") + text.count(b"{") <= most:  # as nearly always
        return False
    level = [value]
    for _ in range(most):
        level = [inner for one in level for inner in _inside(one)]
        if not level:
            return False
    return True


def _inside(value: object) -> Iterable[object]:
    """The lists and dicts in a list or dict."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return [one for one in inner if isinstance(one, dict | list | tuple)]


class Identity(NamedTuple):
    """Who a client wants to be: see ``bossworker.connect``."""

    identity: str | None = None
    keep: bool = False
    take_over: bool = False


def hello(form: str, who: Identity, line: bool) -> dict[str, Any]:
    """How a client of this version introduces itself. `line`: whether it can have one of its own."""
    return {
        "op": "hello",
        "version": DOOR_VERSION,
        "form": form,
        "wire": VERSION,
        "python": python_version(),
        **who._asdict(),
        "program": os.path.basename(sys.argv[0] or sys.executable),
        "pid": os.getpid(),
        "line": line,
    }


def python_version() -> str:
    """What pickled functions depend on."""
    return f"{sys.version_info.major}.{sys.version_info.minor}"


def message_of(kind: Kind, head: bytes = b"", *body: Buffer) -> bytes:
    """A frame as one message."""
    return b"".join((prefix_of(kind, head, body), head, *body))


def in_pieces(message: Buffer) -> Iterator[Buffer]:
    """The messages that carry a frame: itself, or pieces of it."""
    size = len(message)
    if size <= LONGEST_MESSAGE:
        yield message
        return
    view = memoryview(message)
    for start in range(0, size, PIECE_BYTES):
        yield message_of(Kind.PIECE, PIECE.pack(size, start), view[start : start + PIECE_BYTES])


class Pieces:
    """Puts frames together that come in pieces, one after the other. What comes twice does no harm."""

    def __init__(self) -> None:
        self._whole = bytearray()

    def add(self, frame: Frame) -> Frame | None:
        """The whole frame, with its last piece. ProtocolError when this is not the next piece."""
        size, start = messages.unpack(PIECE, frame.head)
        if size > LONGEST_FRAME:
            raise ProtocolError(f"a frame of {size} bytes")
        if not start:
            self._whole = bytearray()
        if start > len(self._whole) or start + len(frame.body) > size:
            raise ProtocolError("a piece out of turn")
        self._whole[start:] = frame.body
        if len(self._whole) < size:
            return None
        whole = frame_of(memoryview(self._whole))
        if whole.kind is Kind.PIECE:
            raise ProtocolError("pieces in pieces")
        return whole

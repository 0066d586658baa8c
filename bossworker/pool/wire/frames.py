"""Frames: what the processes of a pool send each other, packed and cut. No socket in here."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from bossworker.pool.wire.messages import PREFIX, VERSION, Kind, ProtocolError

Buffer = bytes | bytearray | memoryview

JOIN_BELOW = 1 << 16  # bytes; smaller frames are joined, which costs less than to send their parts by one system call
MAX_FDS = 1  # descriptors a frame may carry; so one that could not be received leaves no doubt whose it was
MAX_HEAD = 1 << 24  # bytes of a frame's head, and
MAX_BODY = 1 << 40  # of its body: what claims more is no frame
_PREFIX_SIZE, _unpack_prefix = PREFIX.size, PREFIX.unpack_from
_KINDS = {int(kind): kind for kind in Kind}


class Frame(NamedTuple):
    """A message as it travels: its kind, a head of fixed layout, and bytes."""

    kind: Kind
    head: memoryview
    body: memoryview
    fds: list[int]

    @property
    def fd(self) -> int | None:
        """The descriptor that it carries; None if it carries none, or if there was no room for it here."""
        return self.fds[0] if self.fds and self.fds[0] >= 0 else None


_new_frame = tuple.__new__  # what Frame(...) comes to, with no function of Python's in between

Part = tuple[memoryview, tuple[int, ...]]
"""Bytes of a frame, and the descriptors that go with the first of them."""


def pack(kind: Kind, head: bytes = b"", body: Sequence[Buffer] = (), fds: Sequence[int] = ()) -> list[Part]:
    """A frame, ready to be queued."""
    size = sum(map(len, body))
    prefix = PREFIX.pack(VERSION, kind, len(fds), len(head), size)
    if size < JOIN_BELOW:
        return [(memoryview(b"".join((prefix, head, *body))), tuple(fds))]
    parts: list[Part] = [(memoryview(prefix + head), tuple(fds))]
    parts += [(memoryview(part).cast("B"), ()) for part in body if len(part)]
    return parts


Cut = tuple[list[Frame], int, int]
"""Whole frames, the bytes they take, and the bytes that the next one lacks (0: unknown)."""


def prefix_of(kind: Kind, head: bytes, body: Sequence[Buffer], fds: Sequence[int] = ()) -> bytes:
    """What stands in front of a frame."""
    return PREFIX.pack(VERSION, kind, len(fds), len(head), sum(map(len, body)))


def frame_of(view: memoryview) -> Frame:
    """The one frame, without descriptors, that these bytes are. ProtocolError if they are not."""
    if len(view) >= _PREFIX_SIZE:
        version, kind, fd_count, head_size, body_size = _unpack_prefix(view)
        body = _PREFIX_SIZE + head_size
        if version == VERSION and kind in _KINDS and not fd_count and body + body_size == len(view):
            return _new_frame(Frame, (_KINDS[kind], view[_PREFIX_SIZE:body], view[body:], []))
    raise ProtocolError("not one frame")


def cut_frames(view: memoryview, fds: list[int]) -> Cut:
    """The whole frames in `view`. They take from `fds` what they say they carry.

    ProtocolError when `view` begins with what is not a frame. What comes behind frames is left, and not said to lack.
    """
    frames: list[Frame] = []
    start, total = 0, len(view)
    while total - start >= _PREFIX_SIZE:
        version, kind, fd_count, head_size, body_size = _unpack_prefix(view, start)
        if (
            version != VERSION
            or kind not in _KINDS
            or fd_count > MAX_FDS
            or head_size > MAX_HEAD
            or body_size > MAX_BODY
        ):
            if frames:
                break
            raise ProtocolError(f"not a frame: version {version}, kind {kind}, {head_size} bytes and {body_size}")
        head = start + _PREFIX_SIZE
        body = head + head_size
        end = body + body_size
        if end > total:
            return frames, start, end - total
        frames.append(_new_frame(Frame, (_KINDS[kind], view[head:body], view[body:end], fds[:fd_count])))
        if fd_count:
            del fds[:fd_count]
        start = end
    return frames, start, 0

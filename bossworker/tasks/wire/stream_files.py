"""How a stream lies on the disk: files that are only ever appended to, and removed as wholes.

A stream named ``stdout`` is made up of ``stdout`` and, once that has grown too large, ``stdout.<base>`` and so on:
`base` is the number of the first unit in the file, in twenty digits. Units are bytes, or for the stream ``data``
messages. Where a stream ends is told by the size of its last file, where it begins by the first file that is there and
by two numbers in the file ``marks``; so a reader needs nobody's help, and nothing that it has opened can change under
its hands::

    marks   three numbers of 64 bits for each stream: the floor (nothing below it is given out any more); 0, or one
            more than the cap (only this many of the newest bytes are given out); and 1 when no more will come

What a reader has read while the writer removed the file is right, for an open file outlives its name. A reader that
comes too late to open one starts over with the list of files.
"""

from __future__ import annotations

import os
from struct import Struct

NAMES = ("stdin", "stdout", "stderr", "data")
"""The streams, by number."""
STDIN, STDOUT, STDERR, DATA = range(4)
STORED = (STDOUT, STDERR, DATA)
"""Those that lie on the disk."""

MARKS = "marks"
_MARK = Struct("<QQQ")
_DIGITS = 20  # of a number of 64 bits
SIZE_BYTES = 4  # in front of a message: its size, least significant byte first


class Marks:
    """One stream's numbers in the file ``marks``. Written at once, and too small to be ever half there."""

    __slots__ = ("_at", "_fd")

    def __init__(self, fd: int, stream: int) -> None:
        self._fd = fd
        self._at = _MARK.size * stream

    def read(self) -> tuple[int, int | None, bool]:
        """Floor, cap (None: no limit), and whether the stream has ended."""
        data = os.pread(self._fd, _MARK.size, self._at).ljust(_MARK.size, b"\0")
        floor, cap, ended = _MARK.unpack(data)
        return floor, (cap - 1 if cap else None), bool(ended)

    def write(self, floor: int, cap: int | None, ended: bool) -> None:
        """Replace all three."""
        os.pwrite(self._fd, _MARK.pack(floor, 0 if cap is None else cap + 1, ended), self._at)


def file_name(stream: str, base: int) -> str:
    """The file of a stream that begins with unit `base`."""
    return f"{stream}.{base:0{_DIGITS}d}" if base else stream


def bases(folder: int, stream: str) -> list[int]:
    """Where the files of a stream begin, in order."""
    found = []
    for name in os.listdir(folder):
        if name == stream:
            found.append(0)
        elif name.startswith(stream) and name[len(stream) :].startswith("."):
            digits = name[len(stream) + 1 :]
            if len(digits) == _DIGITS and digits.isdigit() and digits.isascii():
                found.append(int(digits))
    return sorted(found)

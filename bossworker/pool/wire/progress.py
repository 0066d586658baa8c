"""A job's progress: what its handler said of it last, in its worker's slot of the flight recorder.

It costs no message: whoever wants to know looks there. A record is written by one copy and carries a checksum. So a
reader that catches it half-written, or overwritten by a handler, sees that, and neither side needs a lock.
"""

from __future__ import annotations

from binascii import crc32
from math import isnan, nan
from struct import Struct
from typing import NamedTuple

from bossworker.display import short_record

ROOM = 1536  # bytes of the slot
_CHECKSUM = Struct("<I")  # of what follows:
_HEAD = Struct("<IQdd")  # bytes of the text, job id, done, total (NaN: not known); then the text
_TEXT_AT = _CHECKSUM.size + _HEAD.size
TEXT_BYTES = ROOM - _TEXT_AT  # a longer text is cut
_TRIES = 3


class Progress(NamedTuple):
    """How far a job is, by its own account."""

    done: float
    total: float | None
    text: str

    def __repr__(self) -> str:
        return short_record(self)


def write_progress(area: memoryview, job_id: int, progress: Progress) -> None:
    """In the worker: leave word of a job. Threads may do so at the same time: one of them wins."""
    text = progress.text.encode("utf-8", "replace")[:TEXT_BYTES]
    total = nan if progress.total is None else progress.total
    record = _HEAD.pack(len(text), job_id, progress.done, total) + text
    # Readers in other processes may see half of this copy, and threads of ours may write at the same time: the checksum
    # tells.
    area[: _CHECKSUM.size + len(record)] = _CHECKSUM.pack(crc32(record)) + record


def read_progress(area: memoryview, job_id: int) -> Progress | None:
    """What was said of this job; None if nothing was."""
    for _ in range(_TRIES):  # it may be written just now
        # Copied first, and judged by the copy: what is looked at in place could change between the checksum and the
        # use.
        copy = bytes(area)
        size, said_of, done, total = _HEAD.unpack_from(copy, _CHECKSUM.size)
        record = copy[_CHECKSUM.size : _TEXT_AT + min(size, TEXT_BYTES)]
        if (crc32(record),) == _CHECKSUM.unpack_from(copy):
            text = record[_HEAD.size :].decode("utf-8", "ignore")  # it may have been cut amid a character
            return Progress(_plain(done), None if isnan(total) else _plain(total), text) if said_of == job_id else None
    return None


def _plain(number: float) -> float:
    """A whole number as an int, as it is shown."""
    return int(number) if number.is_integer() else number

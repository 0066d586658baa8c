"""What a worker's output looks like on its way to the boss: two pipes, the worker's descriptors 1 and 2.

Into them goes whatever C code and subprocesses write, as it is. Between it, in the first pipe, stand frames with what
Python prints and logs, so that its order is kept across stdout, stderr and logging, and it is known from which job it
is. A mark, in either pipe, says that what came before it belongs to a job, which has ended.

A worker marks the end of each job at which there is something in the pipe, or since whose last mark the boss has read
from it, or just reads. (The boss counts a read before it makes it and once it is made, in the worker's flight recorder:
while it reads, the number is odd.) So whatever has no mark behind it was written by the job that was running as it was
read.

What programs and C code write into the second pipe has no place among this. So each frame says how many bytes had been
written there before it; the boss tells those first, however late it reads either pipe.

A frame begins with a secret of this worker's, so that no output looks like one by chance. It goes into the pipe by one
write of at most PIPE_BUF bytes, which nothing else that is written at the same time can tear apart.
"""

from __future__ import annotations

import fcntl
import os
import sys
import termios
from collections.abc import Iterator
from select import PIPE_BUF
from struct import Struct
from typing import NamedTuple

MARK, STDOUT, STDERR, RECORD, RECORD_PART = range(5)
NO_JOB, UNKNOWN = -1, -2
RAW, LATE = -1, -2
SECRET_BYTES = 12
MOST_LINE = 1 << 16  # bytes; a longer line is told in pieces
MOST_UNKNOWN = 1000  # lines that wait for a mark
MOST_RECORD = 1 << 18  # bytes of a log record; a longer one is dropped
FILTERED = "filtered_in_worker"  # of a record: whether the filters of its logger have been asked

_HEAD = Struct("<BqQH")  # kind, job id or NO_JOB, bytes of the second pipe that came before, bytes that follow
_START = b"\x1e"
_NO_COUNT = bytes(4)  # an int


def unread_bytes(pipe: int) -> int:
    """What lies in a pipe, seen from either end. OSError."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, _NO_COUNT), sys.byteorder)


class OutputEnds(NamedTuple):
    """A worker's ends of its two pipes, and the secret that its frames begin with."""

    stdout: int
    stderr: int
    secret: bytes


class OutputLine(NamedTuple):
    """A line of output, or a log record as JSON."""

    job_id: int  # NO_JOB: of none
    stream: int  # STDOUT, STDERR or RECORD
    text: str
    after: int = RAW  # how many bytes of the second pipe come before it; RAW, LATE: nobody knows how many


class FrameWriter:
    """Makes frames, in a worker."""

    def __init__(self, secret: bytes) -> None:
        self._start = _START + secret
        self.room = PIPE_BUF - len(self._start) - _HEAD.size

    def frame(self, kind: int, job_id: int, data: bytes | memoryview = b"", after: int = 0) -> bytes:
        """At most `room` bytes of data."""
        return b"".join((self._start, _HEAD.pack(kind, job_id, after, len(data)), data))

    def frames(self, kind: int, job_id: int, data: bytes | memoryview, after: int = 0) -> Iterator[bytes]:
        """Any number of bytes. Of a record, all but the last are parts."""
        for at in range(0, len(data), self.room):
            last = at + self.room >= len(data)
            part = data[at : at + self.room]
            yield self.frame(kind if last or kind != RECORD else RECORD_PART, job_id, part, after)


class LineReader:
    """Makes lines of what comes out of one pipe, in the boss. `stream` is what it carries besides frames."""

    def __init__(self, secret: bytes, stream: int) -> None:
        self._start = _START + secret
        self._stream = stream
        self._rest = b""  # of what was read: it may be the beginning of a frame
        self._unknown = 0  # how many of the lines here are of a job that is not known yet
        self._partial = {STDOUT: b"", STDERR: b"", RECORD: b""}  # of a line, as Python printed it, or of a record
        self._partial_raw = b""
        self._after = {STDOUT: RAW, STDERR: RAW}  # of what is there of a line that Python printed
        self._raw_after = RAW  # or LATE: of what is taken in now
        self._lines: list[OutputLine] = []

    def feed(self, data: bytes, running: int, late: bytes = b"") -> list[OutputLine]:
        """Take in what was read; the lines that can be told.

        `running`: the job that ran as it was read; UNKNOWN if another one began just then. `late`: what was read behind
        it, but had not been there before; lines of that which are not Python's are told as LATE.
        """
        self._take(data)
        if late:
            self._raw_after = LATE
            self._take(late)
            self._raw_after = RAW
        return self._told(running)

    def _take(self, data: bytes) -> None:
        data, at = self._rest + data, 0
        while (found := data.find(self._start, at)) >= 0:
            self._take_raw(data[at:found])
            end = self._take_frame(data, found)
            if not end:
                at = found
                break
            at = end
        else:
            tail = self._possible_start(data, at)
            self._take_raw(data[at:tail])
            at = tail
        self._rest = data[at:]

    def end(self, job_id: int = NO_JOB) -> list[OutputLine]:
        """Nothing more will come: what is left, with or without the end of its line."""
        self._take_raw(self._rest)
        self._rest = b""
        self._mark(job_id)
        return self._told(job_id)

    def _told(self, running: int) -> list[OutputLine]:
        if self._unknown > MOST_UNKNOWN:  # somebody else reads the pipe, or writes the marks
            running = NO_JOB
        self._own_raw(running)
        lines, self._lines = self._lines, []
        if self._unknown:
            first = next(at for at, line in enumerate(lines) if line.job_id == UNKNOWN)
            lines, self._lines = lines[:first], lines[first:]
        return lines

    def _possible_start(self, data: bytes, at: int) -> int:
        """Where a frame may begin whose secret is not here to its end."""
        found = data.find(_START, max(at, len(data) - len(self._start) + 1))
        while found >= 0 and not self._start.startswith(data[found:]):
            found = data.find(_START, found + 1)
        return found if found >= 0 else len(data)

    def _take_frame(self, data: bytes, at: int) -> int:
        """Where it ends; 0 when its end is not here. (Frames are honest, or somebody found out the secret.)"""
        at += len(self._start)
        if at + _HEAD.size > len(data):
            return 0
        kind, job_id, after, size = _HEAD.unpack_from(data, at)
        at += _HEAD.size
        if at + size > len(data):
            return 0
        self._on_frame(kind, job_id, data[at : at + size], after)
        return at + int(size)

    def _on_frame(self, kind: int, job_id: int, data: bytes, after: int) -> None:
        match kind:
            case 0:
                self._mark(job_id)
            case 1 | 2:
                self._after[kind] = after
                self._partial[kind] = self._cut(self._partial[kind] + data, job_id, kind, after)
            case 3 | 4:
                self._partial[RECORD] += data[: max(0, MOST_RECORD - len(self._partial[RECORD]))]
                if kind == RECORD:
                    self._lines.append(OutputLine(job_id, RECORD, _text(self._partial[RECORD]), after))
                    self._partial[RECORD] = b""

    def _take_raw(self, data: bytes) -> None:
        if data:
            before = len(self._lines)
            self._partial_raw = self._cut(self._partial_raw + data, UNKNOWN, self._stream, self._raw_after)
            self._unknown += len(self._lines) - before

    def _cut(self, data: bytes, job_id: int, stream: int, after: int = RAW) -> bytes:
        """Cut lines off; what is left."""
        *whole, rest = data.split(b"\n")
        if len(rest) > MOST_LINE:
            whole.append(rest)
            rest = b""
        self._lines += [OutputLine(job_id, stream, piece, after) for line in whole for piece in _pieces(line)]
        return rest

    def _mark(self, job_id: int) -> None:
        """A job has ended, and with it the lines that were begun."""
        if self._partial_raw:
            self._take_raw(b"\n")
        self._own_raw(job_id)
        for kind in (STDOUT, STDERR):
            if self._partial[kind]:
                self._partial[kind] = self._cut(self._partial[kind] + b"\n", job_id, kind, self._after[kind])

    def _own_raw(self, job_id: int) -> None:
        """The raw lines up to here are this job's."""
        if self._unknown and job_id != UNKNOWN:
            self._lines = [line if line.job_id != UNKNOWN else line._replace(job_id=job_id) for line in self._lines]
            self._unknown = 0


def _pieces(line: bytes) -> list[str]:
    if len(line) <= MOST_LINE:
        return [_text(line.removesuffix(b"\r"))]
    return [_text(line[at : at + MOST_LINE]) for at in range(0, len(line), MOST_LINE)]


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def new_secret() -> bytes:
    """For one worker."""
    return os.urandom(SECRET_BYTES)

"""The two output pipes of one worker, as the boss reads them: lines, each with its job, in their order.

Each pipe has its order. What Python prints goes into the first, and says how much had been written to the second before
it. So its place among what is in there is known, however late we read either. Of what programs and C code write into
both, nobody knows the order: of that, what lies in the first pipe as we read the second comes first, then what is in
the second, then what has come into the first meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from bossworker.pool.wire.output_frames import RAW, STDERR, STDOUT, UNKNOWN, LineReader, OutputLine, unread_bytes
from bossworker.pool.wire.recorder import BYTES_READ, READS

READ_BYTES = 1 << 16  # what a pipe holds
TRIES = 2  # to read while the same job runs

Placed = tuple[int, int, OutputLine]
"""How many bytes of the second pipe come before a line; the job of those of them that have no mark; the line."""


class OutputPipes:
    """See the module. `words` are of the worker's flight recorder."""

    def __init__(self, pid: int, worker_index: int, secret: bytes, words: memoryview) -> None:
        self.pid = pid
        self.worker_index = worker_index
        self.fds: dict[int, int] = {}  # by stream
        self.ended: set[int] = set()  # descriptors whose other end nobody has any more
        self._words = words
        self._readers = {stream: LineReader(secret, stream) for stream in (STDOUT, STDERR)}
        self._reads = [0, 0]  # how often we have begun or ended one: the words are open to whatever a handler writes
        self._bytes_read = self._bytes_told = 0  # of the second pipe
        self._untold = b""  # of that, what is between the two

    def add(self, stream: int, fd: int) -> None:
        """Our end of one of them."""
        os.set_blocking(fd, False)
        self.fds[stream] = fd

    @property
    def complete(self) -> bool:
        """Whether both are here. Before that, nothing is read."""
        return len(self.fds) == 2

    def read(self, running: Callable[[], int]) -> tuple[list[OutputLine], bool]:
        """Read what is in both: the lines, and whether there may be more. `running` tells which job runs."""
        there, job_id, most = 0, running(), 0
        output = errors = b""
        for _ in range(TRIES):
            before = job_id
            # The second pipe first. What Python printed says how much was in there before it: so whatever is read from
            # the first pipe afterwards finds those errors here, or they are read on demand.
            if errors:
                errors = self._read(STDERR)
            else:
                errors, ahead = self._read_errors()
                there = len(output) + ahead
            # What was printed before any of these errors is in the first pipe by now; what comes behind them stays.
            until = self._bytes_read
            more = self._read(STDOUT)
            self._untold += errors
            output += more
            most = max(most, len(errors), len(more))
            job_id = running()
            # A job may have ended, and another have begun, while we read: then nobody knows whose the last lines are.
            # The end of the first is marked in the pipe by now.
            if job_id == before:
                break
            # The end of the one before is marked there by now: read on to that.
        else:
            job_id = UNKNOWN
        found = self._readers[STDOUT].feed(output[:there], job_id, output[there:]) if output else []
        return self._in_order(_placed(found, until, job_id), until, job_id), most >= READ_BYTES

    def end(self, job_id: int) -> list[OutputLine]:
        """Nothing more will come, or be waited for: the lines that are left, which are this job's."""
        lines = _placed(self._readers[STDOUT].end(job_id), self._bytes_read, job_id)
        told = self._in_order(lines, self._bytes_read, job_id)
        return told + self._readers[STDERR].end(job_id)

    def close(self) -> None:
        for fd in self.fds.values():
            os.close(fd)

    def _in_order(self, lines: list[Placed], until: int, job_id: int) -> list[OutputLine]:
        """Lines of the first pipe, and those of the second between and behind them, up to there."""
        told: list[OutputLine] = []
        for after, owner, line in lines:
            if after > self._bytes_told:
                told += self._errors_up_to(after, owner)
            told.append(line)
        return told + self._errors_up_to(until, job_id)

    def _errors_up_to(self, position: int, job_id: int) -> list[OutputLine]:
        """The next lines of the second pipe, which is read on if that is needed."""
        while self._bytes_read < position and (data := self._read(STDERR)):
            self._untold += data
        count = max(0, min(position - self._bytes_told, len(self._untold)))
        part, self._untold = self._untold[:count], self._untold[count:]
        self._bytes_told += count
        return self._readers[STDERR].feed(part, job_id) if part else []

    def _read_errors(self) -> tuple[bytes, int]:
        """What is in the second pipe, and how many bytes of what is in the first come before it."""
        known, ahead = self._unread(STDERR), self._unread(STDOUT)
        errors = self._read(STDERR)
        if len(errors) > known:  # we were held up: what a program wrote before these is in the first pipe by now
            ahead = self._unread(STDOUT)
        return errors, ahead

    def _unread(self, stream: int) -> int:
        try:
            return unread_bytes(self.fds[stream])
        except OSError:
            return READ_BYTES

    def _read(self, stream: int) -> bytes:
        """What is in a pipe; the worker is told of it, before and afterwards (see output_frames.py)."""
        # Odd while we read: a worker that marks the end of a job meanwhile cannot know what we have got, and leaves a
        # mark in any case.
        self._count(stream)
        data = read_some(self.fds[stream])
        if data is None:
            self.ended.add(self.fds[stream])
            data = b""
        if stream == STDERR:
            self._bytes_read = self._words[BYTES_READ] = self._bytes_read + len(data)
        self._count(stream)
        return data

    def _count(self, stream: int) -> None:
        at = stream - STDOUT
        self._reads[at] = self._words[READS[at]] = self._reads[at] + 1


def _placed(lines: list[OutputLine], until: int, job_id: int) -> list[Placed]:
    """Lines of the first pipe: late ones that are not Python's come as late as the next one that is allows."""
    placed: list[Placed] = []
    for line in reversed(lines):
        if line.after >= 0:
            until, job_id = line.after, line.job_id
        placed.append((line.after, line.job_id, line) if line.after == RAW else (until, job_id, line))
    return placed[::-1]


def read_some(fd: int) -> bytes | None:
    """What is there; None: nothing will come any more."""
    try:
        return os.read(fd, READ_BYTES) or None
    except BlockingIOError:
        return b""
    except OSError:
        return None

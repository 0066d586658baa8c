"""``logs="relay"``, in a worker: all that is printed and logged goes to the boss, with the job that it is from.

What Python prints (``sys.stdout``, ``sys.stderr``) and logs is told by itself. Of what C code and subprocesses write to
descriptors 1 and 2, nobody tells us; so we look after each job whether something is in the pipes, and mark the end of
the job there. That takes two system calls, as long as a tiny job itself; so once nobody has written for thousands of
jobs, we look no more after very short ones, but at the end of a batch. What the next of them writes may be told as a
later job's of its batch. (The compiled loop looks by itself, and comes here only when there is something.)
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from bossworker.pool.options import Options
from bossworker.pool.wire.output_frames import (
    FILTERED,
    MARK,
    MOST_RECORD,
    NO_JOB,
    RECORD,
    STDERR,
    STDOUT,
    FrameWriter,
    OutputEnds,
    unread_bytes,
)
from bossworker.pool.wire.recorder import BYTES_READ, CAREFUL, DIRTY, LOOKED, READS, WRITES
from bossworker.pool.wire.worker_wire import out_of_the_way

SHORT_SECONDS = 1e-5  # a job that starts a program takes far longer than this; to look takes a tenth of it
CAREFUL_JOBS = 5_000  # that are looked after, however short they are, at first and once somebody has written
BOSS_LOOKS, BOSS_PAUSE_SECONDS = 2000, 0.0005  # whether the boss is through with a read: microseconds, if it has a core
_OWN = frozenset(("args", "exc_info", "message"))  # attributes of records that do not travel


class RelayedOutput:
    """See the module. `words` is of the worker's flight recorder."""

    def __init__(self, ends: OutputEnds, words: memoryview) -> None:
        os.dup2(ends.stdout, 1)
        os.dup2(ends.stderr, 2)
        # Whatever a handler does to 1 and 2, and out of the way of files that it opens once it has closed these.
        self.pipes = [out_of_the_way(ends.stdout), out_of_the_way(ends.stderr)]
        self._identities = [os.fstat(pipe) for pipe in self.pipes]
        self.running: Callable[[], int] = lambda: NO_JOB  # the job that runs now
        self._words = words
        self._words[CAREFUL] = CAREFUL_JOBS
        self._writer = FrameWriter(ends.secret)
        self._lock = threading.RLock()
        # Never to be collected: that would write what other threads of the program had in their buffers at the fork.
        self._replaced = [sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__]
        self._streams = [_Stream(self, STDOUT, 1), _Stream(self, STDERR, 2)]
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = self._streams  # type: ignore[misc]

    def relay_logging(self, levels: Mapping[str, int]) -> None:
        """Send records to the caller instead of to the handlers that were copied from it; its levels hold here."""
        relay = _Handler(self)
        for logger in [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]:
            if isinstance(logger, logging.Logger):
                ours = isinstance(logger, logging.RootLogger) or not logger.propagate
                logger.handlers = [relay] if ours else []
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)

    def note_printed(self) -> None:
        """Something was printed, which may still be in a buffer."""
        self._words[DIRTY] = 1

    def write(self, kind: int, data: bytes | memoryview) -> None:
        """Send what was printed, or a record."""
        self.note_printed()
        job_id = self.running()
        # Threads of a handler write at the same time: a text that takes several frames must not be mixed with another.
        with self._lock:
            before = self._written_to_stderr()
            for frame in self._writer.frames(kind, job_id, data, before):
                self._send(0, frame)
            # After the writing: a boss that finds the new number finds the frames, and one that finds the old one comes
            # again for the next results.
            self._words[WRITES] += 1

    def _send(self, number: int, frame: bytes) -> None:
        try:
            _write_all(self.pipes[number], frame)
        except OSError:
            if not self._restored(number):
                raise
            _write_all(self.pipes[number], frame)

    def _restored(self, number: int) -> bool:
        """After ``os.closerange(3, ...)`` in a handler: whether descriptor 1 or 2, the same pipe, could help."""
        with suppress(OSError):
            if os.path.samestat(os.fstat(number + 1), self._identities[number]):
                os.dup2(number + 1, self.pipes[number], inheritable=False)
                return True
        return False

    def _written_to_stderr(self) -> int:
        """How many bytes have gone into the second pipe so far: those that the boss has read, and those in there."""
        words, left = self._words, BOSS_LOOKS
        while True:
            # The boss may read between any two of these lines. It counts a read before and after, so an even number
            # that has not changed says that nothing was read from the first look to the second.
            reads, taken = words[READS[1]], words[BYTES_READ]
            there = self._unread(1)
            if reads % 2 == 0 and reads == words[READS[1]]:
                return taken + there
            if not left:  # it is stopped: what it has just read counts as written later than this
                return taken
            left -= 1
            time.sleep(BOSS_PAUSE_SECONDS)

    def job_ended(self, job_id: int, began: float) -> None:
        """The job that began then is over. Before its result counts as published, so that its output is there first."""
        if self._words[DIRTY] or self._words[CAREFUL] or time.monotonic() - began > SHORT_SECONDS:
            self.mark(job_id)

    def mark(self, job_id: int) -> None:
        """What was written up to here is the job's. (After a batch: also what its short jobs have written.)"""
        words, dirty = self._words, self._words[DIRTY]
        if dirty:
            self._flush()
        for number in (0, 1):
            # The boss counts before it reads: if it emptied the pipe before our look there, its count is seen here.
            unread, reads = self._unread(number), words[READS[number]]
            reading = reads % 2  # what it finds may have been written after our last mark
            if unread or reading or reads != words[LOOKED[number]] or (dirty and number == 0):
                words[LOOKED[number]] = reads
                words[CAREFUL] = CAREFUL_JOBS
                self._mark(number, job_id)
        words[CAREFUL] = max(0, words[CAREFUL] - 1)
        words[DIRTY] = 0

    def _flush(self) -> None:
        for stream in self._streams:
            with suppress(Exception):
                stream.flush()

    def _mark(self, number: int, job_id: int) -> None:
        with suppress(OSError):
            self._send(number, self._writer.frame(MARK, job_id))
            self._words[WRITES] += 1

    def _unread(self, number: int) -> int:
        """How many bytes are there that the boss has not read. (What it has read, it knows the job of.)"""
        try:
            return unread_bytes(self.pipes[number])
        except OSError:
            return 1 if not self._restored(number) else unread_bytes(self.pipes[number])


class _Stream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr``: line by line to the boss."""

    def __init__(self, output: RelayedOutput, kind: int, fd: int) -> None:
        raw = _Raw(output, kind, fd)
        super().__init__(_Buffer(output, raw), "utf-8", "backslashreplace", line_buffering=True)
        self._output = output

    def write(self, text: str) -> int:
        self._output.note_printed()
        return super().write(text)


class _Buffer(io.BufferedWriter):
    def __init__(self, output: RelayedOutput, raw: _Raw) -> None:
        super().__init__(raw)
        self._output = output

    def write(self, data: Any) -> int:
        self._output.note_printed()
        return super().write(data)


class _Raw(io.RawIOBase):
    def __init__(self, output: RelayedOutput, kind: int, fd: int) -> None:
        self._output = output
        self._kind = kind
        self._fd = fd
        self.name = f"<std{'out' if fd == 1 else 'err'}>"

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._fd

    def write(self, data: Any) -> int:
        with memoryview(data).cast("B") as view:
            self._output.write(self._kind, view)
            return len(view)


class _Handler(logging.Handler):
    """Sends records to the caller, as `QueueHandler` would."""

    def __init__(self, output: RelayedOutput) -> None:
        super().__init__()
        self._output = output

    def emit(self, record: logging.LogRecord) -> None:
        try:
            data = json.dumps(self._portable(record), default=repr).encode()
            if len(data) > MOST_RECORD:
                cut = {"msg": record.getMessage()[: MOST_RECORD // 16], "name": record.name, "levelno": record.levelno}
                data = json.dumps(cut | {"levelname": record.levelname}).encode()
            self._output.write(RECORD, data)
        except Exception:
            self.handleError(record)

    def _portable(self, record: logging.LogRecord) -> dict[str, Any]:
        told = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        told["msg"] = record.getMessage()
        told[FILTERED] = bool(logging.getLogger(record.name).filters)
        if record.exc_info and not record.exc_text:
            told["exc_text"] = (self.formatter or logging.Formatter()).formatException(record.exc_info)
        return told


def _write_all(fd: int, data: bytes) -> None:
    """A pipe takes a frame whole, or not yet."""
    while True:
        try:
            os.write(fd, data)
            return
        except BlockingIOError:  # a subprocess has made the pipe non-blocking, which it shares with us
            time.sleep(0.001)


def direct_output(options: Options, ends: OutputEnds | None, words: memoryview) -> RelayedOutput | None:
    """In a new worker: have its output go where the pool's ``logs`` says."""
    if options.logs == "discard":
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, 1)
        os.dup2(null, 2)
        os.close(null)
    if ends is None:
        return None
    output = RelayedOutput(ends, words)
    output.relay_logging(options.log_levels)
    return output

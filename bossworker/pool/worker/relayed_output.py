"""``logs="relay"``, in a worker: all that is printed and logged goes to the boss, with the job that it is from.

What Python prints (``sys.stdout``, ``sys.stderr``) and logs is told by itself. Of what C code and subprocesses write to
descriptors 1 and 2, nobody tells us; so we look after each job whether something is in the pipes, and mark the end of
the job there. That takes two system calls, as long as a tiny job itself; so once nobody has written for thousands of
jobs, we look no more after very short ones, but at the end of a batch. What the next of them writes may be told as a
later job's of its batch.
"""

from __future__ import annotations

import io
import json
import logging
import os
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from bossworker.pool.options import Options
from bossworker.pool.wire.output_frames import (
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
from bossworker.pool.wire.recorder import READS, WRITES
from bossworker.system.stdio import above_stdio

SHORT_SECONDS = 3e-6  # a job that calls the system to write mostly takes longer than this
CAREFUL_JOBS = 5_000  # that are looked after, however short they are, at first and once somebody has written
STDERR_LOOKS, STDERR_PAUSE_SECONDS = 2000, 0.0005  # whether the boss has read the second pipe: a busy one may be late
_OWN = frozenset(("args", "exc_info", "message"))  # attributes of records that do not travel


class RelayedOutput:
    """See the module. `words` is of the worker's flight recorder."""

    def __init__(self, ends: OutputEnds, words: memoryview) -> None:
        os.dup2(ends.stdout, 1)
        os.dup2(ends.stderr, 2)
        self._pipes = [above_stdio(ends.stdout), above_stdio(ends.stderr)]  # whatever a handler does to 1 and 2
        self._words = words
        self._writer = FrameWriter(ends.secret)
        self._lock = threading.RLock()
        self._reads = [0, 0]  # by the boss, as of the last look
        self.job_id = NO_JOB
        self._last_job = NO_JOB
        self._careful = CAREFUL_JOBS  # jobs to come that are looked after, however short they are
        self.dirty = False  # whether anything was printed since the last mark
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

    def write(self, kind: int, data: bytes | memoryview) -> None:
        """Send what was printed, or a record."""
        self.dirty = True
        self._let_stderr_go_first()
        with self._lock:
            for frame in self._writer.frames(kind, self.job_id, data):
                _write_all(self._pipes[0], frame)
            self._words[WRITES] += 1

    def _let_stderr_go_first(self) -> None:
        """What is in the second pipe came before this: wait until the boss has read it, within a moment."""
        left = STDERR_LOOKS
        while left and self._holds_something(self._pipes[1]):
            left -= 1
            time.sleep(STDERR_PAUSE_SECONDS)

    def job_ended(self, began: float) -> None:
        """The job that began then is over. Before its result counts as published, so that its output is there first."""
        if self.dirty or self._careful or time.monotonic() - began > SHORT_SECONDS:
            self.mark(self.job_id)
        self._last_job, self.job_id = self.job_id, NO_JOB

    def batch_ended(self) -> None:
        """What the short jobs of a batch have written is told as the last one's."""
        self.mark(self._last_job)

    def mark(self, job_id: int) -> None:
        """What was written up to here is the job's."""
        for stream in self._streams:
            with suppress(Exception):
                stream.flush()
        for number in (0, 1):
            # In this order: if the boss has emptied the pipe, we see that it has counted that.
            unread, reads = self._holds_something(self._pipes[number]), self._words[READS[number]]
            reading = reads % 2  # what it finds may have been written after our last mark
            if unread or reading or reads != self._reads[number] or (self.dirty and number == 0):
                self._reads[number] = reads
                self._careful = CAREFUL_JOBS
                self._mark(number, job_id)
        self._careful = max(0, self._careful - 1)
        self.dirty = False

    def _mark(self, number: int, job_id: int) -> None:
        with suppress(OSError):
            _write_all(self._pipes[number], self._writer.frame(MARK, job_id))
            self._words[WRITES] += 1

    def _holds_something(self, pipe: int) -> bool:
        """Whether something is there that the boss has not read. (What it has read, it knows the job of.)"""
        try:
            return unread_bytes(pipe) > 0
        except OSError:
            return True


class _Stream(io.TextIOWrapper):
    """``sys.stdout`` or ``sys.stderr``: line by line to the boss."""

    def __init__(self, output: RelayedOutput, kind: int, fd: int) -> None:
        raw = _Raw(output, kind, fd)
        super().__init__(io.BufferedWriter(raw), "utf-8", "backslashreplace", line_buffering=True)
        self._output = output

    def write(self, text: str) -> int:
        self._output.dirty = True
        return super().write(text)


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

"""A function called in a child, and its value in the parent.

The value travels in an anonymous file, not in a pipe: a child with a big value would wait for a reader, and the
parent may be waiting for room in the queue, that is for this very child.
"""

from __future__ import annotations

import os
import pickle
import struct
import threading
import time
import weakref
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Generic, TypeVar

from bossworker.errors import BossWorkerError
from bossworker.failure import ErrorData, capture, describe, encode_error, rebuild
from bossworker.forkqueue.children import Child, Children
from bossworker.pickling import dumps
from bossworker.system import processes
from bossworker.system.checks import check_seconds

T = TypeVar("T")

_HEADER = struct.Struct("=cQ")  # what follows, and how many bytes; written last, so that half a value is none
_VALUE, _ERROR = b"V", b"E"
_OWN_FRAMES = 1  # of ours, at the top of a traceback


class ChildDied(BossWorkerError):
    """The child of a call ended without a value: killed, or left by ``os._exit`` or ``sys.exit``.

    ``pid``; ``status``, its wait status, or None when somebody else has reaped it.
    """

    def __init__(self, pid: int, status: int | None) -> None:
        super().__init__(pid, status)
        self.pid = pid
        self.status = status

    def __str__(self) -> str:
        end = "somebody else reaped it" if self.status is None else processes.describe_exit(self.status)
        return f"process {self.pid} ended without a value ({end})"


class ChildTraceback(BossWorkerError):
    """The cause of an exception that a child raised: the traceback there, as text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class Call(Generic[T]):
    """A function that runs in a child of its own, from ``ForkQueue.call``."""

    def __init__(self, children: Children, file: int) -> None:
        self._close = weakref.finalize(self, os.close, file)
        self._children = children
        self._file = file
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._outcome: Callable[[], T] | None = None

    def begin(self, child: Child) -> None:
        """It runs from now on."""
        self._child = child
        self.pid = child.pid
        """The child's process id."""

    def done(self) -> bool:
        """Whether the child has ended."""
        with self._children.lock:
            self._children.look()
            return not self._children.is_running(self._child)

    def result(self, timeout: float | None = None) -> T:
        """What the function returned, once it has; the same at every call.

        Raises what the function raised, caused by a :class:`ChildTraceback` with the traceback from the child
        (``RemoteError`` stands in for an exception that cannot be rebuilt here); :class:`ChildDied` when there is
        neither a value nor an exception; TimeoutError after `timeout` seconds, and may be called again; RuntimeError in
        another process than the one that made the call. The child's status is taken: ``wait`` no longer gives it.
        """
        deadline = None if timeout is None else time.monotonic() + check_seconds("timeout", timeout)
        if os.getpid() != self._owner:
            raise RuntimeError(f"the call of process {self.pid} belongs to process {self._owner}")
        self._await_end(timeout, deadline)
        with self._lock:
            # Two threads may ask for one result: the first one reads it, and takes the status; the other finds what it
            # found.
            if self._outcome is None:
                self._outcome = self._read()
                self._close()
        return self._outcome()

    def _await_end(self, timeout: float | None, deadline: float | None) -> None:
        def ready() -> bool | None:
            self._children.look()
            if not self._children.is_running(self._child):
                return True
            if deadline is not None and time.monotonic() >= deadline:
                raise TimeoutError(f"process {self.pid} has no value after {timeout} s")
            return None

        def seconds() -> float | None:
            return None if deadline is None else deadline - time.monotonic()

        self._children.until(ready, seconds, watched=lambda: [self.pid])

    def _read(self) -> Callable[[], T]:
        with self._children.lock:
            # The child has ended, so what it has written is all there; its status is taken under the lock, before a
            # `wait` gets it.
            status = self._children.collect(self._child)
        kind, data = _read(self._file)
        os.ftruncate(self._file, 0)  # a child forked meanwhile may hold it open, and its memory with it
        if kind == _VALUE:
            return _loaded(data)
        if kind == _ERROR:
            return partial(_raise_remote, ErrorData(*pickle.loads(data)))
        return partial(_raise_died, self.pid, status)

    def __repr__(self) -> str:
        return f"<Call in process {self.pid}>"


def _loaded(data: bytes) -> Callable[[], Any]:
    try:
        value = pickle.loads(data)
    except Exception as error:  # of the value's own class
        return partial(_raise, error)
    return lambda: value


def _raise(error: Exception) -> Any:
    raise error


def _raise_remote(data: ErrorData) -> Any:
    raise rebuild(data) from ChildTraceback(data.traceback)


def _raise_died(pid: int, status: int | None) -> Any:
    raise ChildDied(pid, status)


def run(file: int, fn: Callable[..., object], args: tuple[object, ...]) -> None:
    """In the child: call the function, and write what comes of it."""
    try:
        value = fn(*args)
    except SystemExit:
        raise
    except BaseException as error:
        _write_error(file, error)
    else:
        try:
            _write(file, _VALUE, _pickled(value))
        except (OSError, MemoryError, TypeError) as error:
            _write_error(file, error)
        else:
            return
    raise SystemExit(1)


def _pickled(value: object) -> bytes:
    try:
        return dumps(value)
    except Exception as error:
        name = type(value).__name__
        raise TypeError(f"the function returned a value that cannot be pickled, {name} ({describe(error)})") from error


def _write_error(file: int, error: BaseException) -> None:
    data = capture(error, skip_frames=_OWN_FRAMES)
    if not isinstance(error, Exception):  # a KeyboardInterrupt there is none here
        data = data._replace(pickled=None)
    with suppress(OSError):  # then the child has died without a value
        os.ftruncate(file, 0)
        _write(file, _ERROR, encode_error(data))


def _write(file: int, kind: bytes, data: bytes) -> None:
    with open(file, "wb", closefd=False) as stream:
        stream.seek(_HEADER.size)
        stream.write(data)
    # Last: a child that is killed before this has written nothing that counts.
    os.pwrite(file, _HEADER.pack(kind, len(data)), 0)


def _read(file: int) -> tuple[bytes, bytes]:
    """What kind of thing was written, and its bytes; both empty if nothing was, to the end."""
    with open(file, "rb", closefd=False) as stream:
        stream.seek(0)
        header = stream.read(_HEADER.size)
        if header.strip(b"\0") == b"" or len(header) < _HEADER.size:
            return b"", b""
        kind, size = _HEADER.unpack(header)
        return kind, stream.read(size)

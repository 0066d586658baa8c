"""A client's connection to a supervisor: requests and their answers, or events as they come."""

from __future__ import annotations

import errno
import select
import socket
import time
from struct import Struct
from typing import Any, ClassVar
from weakref import WeakSet

from bossworker.system import processes
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.tasks.errors import TaskGone, TaskRefused
from bossworker.tasks.wire import socket_paths
from bossworker.tasks.wire.protocol import BadFrame, Decoder, Frame, encode

ANSWER_SECONDS = 20.0  # a supervisor answers at once; one that is stopped, or starved, is not waited for any longer
CONNECT_PAUSE = 0.005  # seconds between two attempts
READ_SIZE = 1 << 18  # bytes

_CREDENTIALS = Struct("=iII")


class ControlConnection:
    """Connected to a supervisor, whose socket is in a pool's directory. Not for two threads at a time."""

    open: ClassVar[WeakSet[ControlConnection]] = WeakSet()
    """All that this process has."""

    def __init__(self, folder: str, name: str, *, pid: int | None, owner: int | None = None) -> None:
        """OSError when nobody can be reached there: ConnectionRefusedError when the socket's owner is dead.

        In a directory that all may write to, anybody could put a socket of that name. The kernel tells whose it is.

        Args:
            pid: The supervisor's, as this process sees it.
            owner: Instead, the user id that it must have, since its pid is one of another pid namespace.
        """
        self.name = f"{folder}/{name}"
        self._decoder = Decoder()
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._sock.setblocking(False)
            self._connect(folder, name)
            # Asked of the connection: a look at the path before it would be of what may have been exchanged since.
            self._check_peer(name, pid, owner)
        except BaseException:
            self._sock.close()
            raise
        self.open.add(self)

    def _check_peer(self, name: str, pid: int | None, owner: int | None) -> None:
        peer = _peer(self._sock)
        if peer is None:
            return
        if (peer[0] != pid) if owner is None else (peer[1] != owner):
            whose = f"of process {peer[0]} of user {peer[1]}"
            raise PermissionError(errno.EPERM, f"the socket is {whose}, not of the task's supervisor", name)

    def _connect(self, folder: str, name: str) -> None:
        """The queue of a supervisor that accepts nobody may be full: then it is tried again for a while."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return socket_paths.connect(self._sock, folder, name)
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(CONNECT_PAUSE)

    def fileno(self) -> int:
        return self._sock.fileno()

    def close(self) -> None:
        """Hang up."""
        self.open.discard(self)
        self._sock.close()

    def __del__(self) -> None:
        """Tasks are cheap and nobody closes them: a connection is closed with the last reference to it."""
        if hasattr(self, "_sock"):  # not if Ctrl-C came before there was one
            self._sock.close()

    def ask(self, request: dict[str, Any], body: bytes | memoryview = b"", seconds: float | None = None) -> Frame:
        """Send a request and return its answer.

        Args:
            seconds: How long it may take beyond the usual; None: as long as the supervisor lives.

        Raises:
            TaskRefused: The answer is that it cannot be met.
            TaskGone: The supervisor is gone, or does not answer.
        """
        self.send(request, body)
        return self.answer(None if seconds is None else time.monotonic() + seconds + ANSWER_SECONDS)

    def send(self, request: dict[str, Any], body: bytes | memoryview = b"") -> None:
        """Send a request. TaskGone when nobody takes it."""
        data = memoryview(encode(request, body))
        deadline = time.monotonic() + ANSWER_SECONDS
        while data:
            try:
                data = data[self._sock.send(data, NO_SIGPIPE) :]
            except BlockingIOError:
                self._await(select.POLLOUT, deadline)
            except OSError as error:
                raise TaskGone(f"{self.name}: {error.strerror}") from error

    def answer(self, deadline: float | None) -> Frame:
        """The next message, an answer; see `ask`."""
        head, body = self._next(deadline)
        if head.get("other"):
            raise TaskGone(f"{self.name} is another task's by now")
        if not head.get("ok"):
            raise TaskRefused(str(head.get("error")), head)
        return head, body

    def event(self, deadline: float | None) -> dict[str, Any] | None:
        """The next event; None when there is none by the deadline. TaskGone when the supervisor is."""
        try:
            return self._next(deadline)[0]
        except TimeoutError:
            return None

    def _next(self, deadline: float | None) -> Frame:
        try:
            while (frame := self._decoder.next()) is None:
                self._await(select.POLLIN, deadline)
                self._receive()
        except BadFrame as error:
            raise TaskGone(f"{self.name}: no supervisor's answer: {error}") from error
        return frame

    def _receive(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError as error:
            raise TaskGone(f"{self.name}: {error.strerror}") from error
        if not data:
            raise TaskGone(f"{self.name}: the supervisor has hung up")
        self._decoder.feed(data)

    def _await(self, event: int, deadline: float | None) -> None:
        seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
        if not processes.await_fd(self._sock.fileno(), event | select.POLLHUP, seconds):
            raise Silent(f"{self.name}: no answer in time")


def _peer(sock: socket.socket) -> tuple[int, int] | None:
    """The pid and user id of whoever listens on the other side (Linux; elsewhere None)."""
    if not hasattr(socket, "SO_PEERCRED"):
        return None
    pid, uid, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, uid


class Silent(TaskGone, TimeoutError):
    """The supervisor does not answer."""

"""The line between the program and those nodes of an executor that are on its machine: a Unix socket (folder: 0700).

An executor runs functions and gives back what they return; it has no way to reach one that runs. So a node of this
machine connects to the program. Over that line it claims batches, and is asked; when the line breaks, the other end is
gone.
"""

from __future__ import annotations

import os
import pickle
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from itertools import count
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple

from bossworker.engines.home_folder import make_home, remove_home, remove_if_left
from bossworker.engines.node_messages import NodeRequest, VersionError, packed, unpacked
from bossworker.failure import describe

STUCK_SECONDS = 10  # in the midst of a message, after which a node counts as gone: meanwhile, others have to wait
SHORTAGE_SECONDS = 0.1  # before the next try to let a node in, where this program has too many open files
HELLO, CLAIM, ASK, ANSWER = "hello", "claim", "ask", "answer"

Claims = Callable[[int, str], bool]
"""Whether the node may have the batch of this number."""


class _Asked(NamedTuple):
    """What a node has been asked for."""

    line: Connection
    future: Future[Any]
    deadline: float | None  # monotonic seconds


class HomeDoor:
    """The program's end."""

    def __init__(self) -> None:
        self.path = make_home()
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(self.path)
        self._listener.listen(128)
        self._woken, self._waker = socket.socketpair()
        self._lines: dict[Connection, str] = {}  # and the node's name
        self._asked: dict[int, _Asked] = {}
        self._numbers = count(1)
        self._closed = False
        self._unsent: deque[tuple[Connection, bytes]] = deque()
        self._thread: threading.Thread | None = None

    def serve(self, claims: Claims, on_nodes: Callable[[set[str]], None], on_failure: Callable[[str], None]) -> None:
        """Begin to listen, in a thread. `on_failure` is told why it has failed, should it: then nobody listens."""
        self._claims, self._on_nodes, self._on_failure = claims, on_nodes, on_failure
        self._thread = threading.Thread(target=self._run, name="bossworker home", daemon=True)
        self._thread.start()

    @property
    def nodes(self) -> set[str]:
        return {node for node in list(self._lines.values()) if node}

    def ask(self, request: NodeRequest, node: str, seconds: float | None = None) -> Future[Any]:
        """Ask a node. In the future, EOFError: it is gone; TimeoutError: it did not answer within `seconds`."""
        future: Future[Any] = Future()
        line = next((line for line, name in list(self._lines.items()) if name == node), None)
        if line is None:
            future.set_exception(EOFError(f"{node} is gone"))
            return future
        number = next(self._numbers)
        # Noted before it is sent: the answer may come at once. The node may have been lost since we looked; then the
        # sending fails, and that ends the future, too.
        self._asked[number] = _Asked(line, future, None if seconds is None else time.monotonic() + seconds)
        self._unsent.append((line, pickle.dumps((ASK, number, packed(request)))))
        self._wake()
        return future

    def _wake(self) -> None:
        with suppress(OSError):
            self._waker.send(b"w")

    def close(self) -> None:
        """Hang up on all."""
        self._closed = True
        self._wake()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        for line in list(self._lines):
            line.close()
        for sock in (self._listener, self._woken, self._waker):
            sock.close()
        remove_home(self.path)

    def disown(self) -> None:
        """In a forked child."""
        for line in list(self._lines):
            line.close()
        for sock in (self._listener, self._woken, self._waker):
            sock.close()

    # -- in the thread ----------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            self._attend_to_all()
        except BaseException as error:  # nodes would wait for us without an end
            self._on_failure(f"its thread for the nodes of this machine has failed: {describe(error)}")
            raise

    def _attend_to_all(self) -> None:
        while not self._closed:
            self._attend()

    def _attend(self) -> None:
        for source in wait([self._listener, self._woken, *self._lines], self._seconds_until_due()):
            if source is self._listener:
                self._let_in()
            elif source is self._woken:
                self._woken.recv(4096)
            elif isinstance(source, Connection):
                self._read(source)
        while self._unsent:
            self._send(*self._unsent.popleft())
        self._expire()

    def _let_in(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            time.sleep(SHORTAGE_SECONDS)
            return
        for which in (socket.SO_SNDTIMEO, socket.SO_RCVTIMEO):
            sock.setsockopt(socket.SOL_SOCKET, which, struct.pack("ll", STUCK_SECONDS, 0))
        self._lines[Connection(sock.detach())] = ""

    def _seconds_until_due(self) -> float | None:
        due = min((asked.deadline for asked in self._asked.copy().values() if asked.deadline is not None), default=None)
        return None if due is None else max(0.0, due - time.monotonic())

    def _expire(self) -> None:
        """Wait no longer for nodes that were stopped, for instance."""
        now = time.monotonic()
        for number, asked in self._asked.copy().items():
            if asked.deadline is not None and asked.deadline <= now:
                del self._asked[number]
                asked.future.set_exception(TimeoutError())

    def _send(self, line: Connection, data: bytes) -> None:
        try:
            line.send_bytes(data)
        except (OSError, ValueError):
            self._lose(line)

    def _read(self, line: Connection) -> None:
        try:
            what, *facts = pickle.loads(line.recv_bytes())
        except (EOFError, OSError):
            self._lose(line)
            return
        if what == HELLO:
            (self._lines[line],) = facts
            self._on_nodes(self.nodes)
            self._send(
                line, pickle.dumps((HELLO, 0))
            )  # before anything that it is asked: that comes from other threads
        elif what == CLAIM:
            (number,) = facts
            self._send(line, pickle.dumps((CLAIM, number, self._claims(number, self._lines[line]))))
        elif what == ANSWER:
            number, answer = facts
            # None: its time is up already.
            asked = self._asked.pop(number, None)
            if asked is not None:
                _settle(asked.future, answer)

    def _lose(self, line: Connection) -> None:
        """A node is gone. It may have been asked after that was found."""
        known = self._lines.pop(line, None) is not None
        line.close()
        for number, asked in self._asked.copy().items():
            if asked.line is line:
                del self._asked[number]
                asked.future.set_exception(EOFError("the node is gone"))
        if known:
            self._on_nodes(self.nodes)


class WayHome:
    """A node's end. Once it is made, the program knows of the node, and asks it. OSError: the program is gone."""

    def __init__(self, path: str, node: str, attend: Callable[[bytes], bytes], on_gone: Callable[[], None]) -> None:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(path)
        self._path = path
        self._line = Connection(sock.detach())
        self._sending = threading.Lock()
        self._claims: dict[int, tuple[threading.Event, list[bool]]] = {}
        self._attend, self._on_gone = attend, on_gone
        self.gone = False
        self._send(HELLO, node)
        try:
            self._line.recv_bytes()
        except EOFError:
            raise ConnectionResetError("the program has hung up") from None
        threading.Thread(target=self._run, name="bossworker way home", daemon=True).start()

    def claim(self, number: int) -> bool:
        """Whether the batch is ours."""
        # Before the claim is sent: the answer may be here before `_send` returns.
        event, said = self._claims[number] = threading.Event(), []
        # The line may break just now. Whoever reads it sets `gone`, then wakes all that have an event: so we see the
        # one or get the other.
        if not self._send(CLAIM, number) or self.gone:
            return False
        event.wait()
        del self._claims[number]
        return bool(said and said[0])

    def _send(self, *message: Any) -> bool:
        try:
            with self._sending:
                self._line.send_bytes(pickle.dumps(message))
        except OSError:
            return False
        return True

    def _run(self) -> None:
        with suppress(EOFError, OSError):
            while True:
                what, number, *facts = pickle.loads(self._line.recv_bytes())
                if what == CLAIM and number in self._claims:
                    event, said = self._claims[number]
                    said += facts
                    event.set()
                elif what == ASK:  # which may have to wait for the boss
                    threading.Thread(target=self._answer, args=(number, facts[0]), daemon=True).start()
        # Before the events are gone through: see `claim`.
        self.gone = True
        for event, _ in list(self._claims.values()):
            event.set()
        self._on_gone()
        remove_if_left(os.path.dirname(self._path))  # by a program that was killed; one that is hanging up does so

    def _answer(self, number: int, request: bytes) -> None:
        self._send(ANSWER, number, self._attend(request))


def _settle(future: Future[Any], answer: bytes) -> None:
    try:
        future.set_result(unpacked(answer)[0])
    except VersionError as error:
        future.set_exception(error)

"""Direct lines: what a door and its clients of the same user and machine say to each other once ZeroMQ has let them in.

ZeroMQ carries no descriptor, and its thread is one more to be woken at either end of each message. So a client that may
have one is told in its welcome where to get a Unix socket of its own to the door. All frames go over that from then on,
those of large payloads with their memory files. One that need not be kept what it has gets a line to the boss as well:
small jobs and results go over that, and do not wake the door.
"""

from __future__ import annotations

import os
import secrets
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress

from bossworker.pool.door.door_clients import DoorClient
from bossworker.pool.door.door_poller import DoorPoller
from bossworker.pool.wire.doorway import BACKLOG
from bossworker.pool.wire.frames import Frame, Part
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import ProtocolError
from bossworker.system import processes
from bossworker.system.cpython import NO_SIGPIPE
from bossworker.system.stdio import socket_above_stdio

TOKEN_BYTES = 16
WELCOME = b"\1"
MOST_WAITING = 64  # that have connected, and have not said who they are
_CLOSE_ON_EXEC = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_CREDENTIALS = struct.Struct("3i")  # process, user, group


class DirectLines:
    """The door's end. `on_line` is told of each new line, and `on_ready` of each that can be read.

    `line_to_boss` makes one for a client, if it may have one.
    """

    def __init__(
        self,
        poller: DoorPoller,
        on_line: Callable[[DoorClient], None],
        on_ready: Callable[[DoorClient], None],
        line_to_boss: Callable[[DoorClient], socket.socket | None],
    ) -> None:
        self._poller = poller
        self._on_line = on_line
        self._on_ready = on_ready
        self._line_to_boss = line_to_boss
        self._expected: dict[bytes, DoorClient] = {}  # by their tokens
        self._waiting: dict[int, socket.socket] = {}
        self._name = secrets.token_hex(16)
        self._listener = _listen(self._name)
        if self._listener is not None:
            self._poller.watch(self._listener.fileno(), self._accept)

    def offer(self, client: DoorClient) -> dict[str, str] | None:
        """What a client is told that wants a line; None where there are none."""
        if self._listener is None:
            return None
        token = secrets.token_bytes(TOKEN_BYTES)
        # Before it is told: it may connect at once.
        self._expected[token] = client
        client.expects_line = True
        return {"name": self._name, "token": token.hex()}

    def withdraw(self, client: DoorClient) -> None:
        """It does without, or is gone."""
        client.expects_line = False
        self._expected = {token: one for token, one in self._expected.items() if one is not client}
        if client.line is not None:
            self._poller.forget(client.line.fileno())
            client.line.close()
            client.line, client.holds_up = None, False

    def send(self, client: DoorClient, parts: list[Part]) -> bool:
        """Send packed frames; False when the client is gone. Descriptors are the line's from now on."""
        assert client.line is not None
        client.line.queue(parts)
        return self._flush(client, client.line)

    def _flush(self, client: DoorClient, line: Link) -> bool:
        """Send what it takes, and be told when it takes more, if that is not all."""
        try:
            line.flush()
        except LinkClosed:
            return False  # what it has said before it hung up is still to be read
        if line.unsent is not client.holds_up:
            client.holds_up = line.unsent
            self._poller.want_room(line.fileno(), line.unsent)
        return True

    def receive(self, client: DoorClient) -> list[Frame] | None:
        """What has come; None when it has hung up, or sends what are no frames."""
        if (line := client.line) is None:
            return None
        try:
            frames = line.receive()
        except (LinkClosed, ProtocolError):
            self.withdraw(client)
            return None
        if client.holds_up:
            self._flush(client, line)
        return frames

    @staticmethod
    def is_over(line: Link) -> bool:
        """Whether a client has hung up; what it said before may still have to be read."""
        poll = select.poll()
        poll.register(line.fileno(), select.POLLRDHUP)
        return bool(poll.poll(0))

    def _accept(self) -> None:
        """Somebody connects, which any user of this machine can: only ours may stay."""
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:
            time.sleep(0.001)  # out of descriptors: it waits, and we do not take both cores for that
            return
        if _user_of(sock) != os.getuid() or len(self._waiting) >= MOST_WAITING:
            sock.close()
            return
        sock.setblocking(False)
        self._waiting[sock.fileno()] = sock
        self._poller.watch(sock.fileno(), lambda: self._introduce(sock))

    def _introduce(self, sock: socket.socket) -> None:
        """It says who it is."""
        self._poller.forget(sock.fileno())
        del self._waiting[sock.fileno()]
        token = b""
        with suppress(OSError):
            token = sock.recv(TOKEN_BYTES)
        # Popped: of two that come with one token, one gets the line. It may have been withdrawn meanwhile; then nobody
        # does.
        client = self._expected.pop(token, None)
        if client is None:
            sock.close()
            return
        self._welcome(sock, client)
        client.expects_line = False
        client.line = Link(sock)
        self._poller.watch(sock.fileno(), lambda: self._on_ready(client), clients=True)
        self._on_line(client)

    def _welcome(self, sock: socket.socket, client: DoorClient) -> None:
        """Tell it that it is known, and hand over its line to the boss."""
        to_boss = self._line_to_boss(client)
        with suppress(OSError):
            socket.send_fds(sock, [WELCOME], [] if to_boss is None else [to_boss.fileno()], NO_SIGPIPE)
        if to_boss is not None:
            to_boss.close()


def _listen(name: str) -> socket.socket | None:
    """At a name that is in no file system, so that nothing is left behind; None where there are no such names."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0))
    try:
        listener.bind(_address(name))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        return None
    return listener


def _address(name: str) -> bytes:
    return b"\0bossworker-" + name.encode()


def _user_of(sock: socket.socket) -> int:
    if not hasattr(socket, "SO_PEERCRED"):
        return -1
    told = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
    return int(_CREDENTIALS.unpack(told)[1])


def take_line(offered: dict[str, str], deadline: float) -> tuple[Link, Link | None] | None:
    """The client's end: a line that it was offered, and one to the boss where there is one.

    None when it cannot be had, for another user, say.
    """
    sock = socket_above_stdio(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
    try:
        sock.settimeout(max(0.001, deadline - time.monotonic()))
        sock.connect(_address(offered["name"]))
        sock.sendall(bytes.fromhex(offered["token"]), NO_SIGPIPE)
        left = max(0.001, deadline - time.monotonic())
        if processes.await_fd(sock.fileno(), select.POLLIN, left):
            told, fds, _, _ = socket.recv_fds(sock, 1, 1, _CLOSE_ON_EXEC)
            to_boss = Link(socket_above_stdio(socket.socket(fileno=fds[0]))) if fds else None
            if told == WELCOME:
                return Link(sock), to_boss
    except (OSError, ValueError):
        pass
    except BaseException:
        sock.close()
        raise
    sock.close()
    return None

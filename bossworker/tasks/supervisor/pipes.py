"""A supervisor's ends of the command's streams: fed, pumped to the disk, and messages both ways.

Nothing here waits: what cannot be done at once is done when the loop says so, and what a command does not read stays
with the client that wrote it.
"""

from __future__ import annotations

import errno
import os

from bossworker.system.cpython import socket
from bossworker.system.eventloop import READ, WRITE
from bossworker.tasks.wire.protocol import MAX_MESSAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from bossworker.system.eventloop import Loop
    from bossworker.tasks.supervisor.clients import Client
    from bossworker.tasks.supervisor.store import ByteStore, MessageStore

RETRY_SECONDS = 1.0  # until the next attempt to write to a disk that was full
DRAIN_TAKES = 64  # of what a pipe holds, after the command's end: somebody it left behind may write for ever
_RECEIVE = 1 << 18  # bytes: more than the command's socket takes for one message, unless the command enlarges it


class Pump:
    """Moves what the command writes from a pipe to the disk. The pipe is closed at its end."""

    def __init__(self, loop: Loop, pipe: int, store: ByteStore, moved: Callable[[Pump], object]) -> None:
        """`moved` is called after bytes were moved, at the end of the stream, and when trouble comes or goes."""
        os.set_blocking(pipe, False)
        self.store = store
        self.trouble = ""
        """Why nothing is moved at present: a full disk."""
        self.open = True
        self._loop = loop
        self._pipe = pipe
        self._moved = moved
        self._watch()

    def drain(self) -> None:
        """Take what is in the pipe now."""
        # What the command has left behind may write as fast as we read.
        for _ in range(DRAIN_TAKES):
            if not (self.open and self._take()):
                return

    def close(self) -> None:
        """Read no more: whoever writes finds the pipe broken."""
        if self.open:
            self.open = False
            self._loop.forget(self._pipe)
            os.close(self._pipe)
            self._moved(self)

    def _watch(self) -> None:
        if self.open:
            self._loop.watch(self._pipe, READ, lambda events: self._take())

    def _take(self) -> bool:
        """Whether there may be more."""
        try:
            count = self.store.take_from(self._pipe)
        except BlockingIOError:
            return False
        except OSError as error:
            self._wait_for_room(error)
            return False
        self.trouble = ""
        if count:
            self._moved(self)
        else:
            self.close()
        return bool(count)

    def _wait_for_room(self, error: OSError) -> None:
        """The disk takes nothing: the pipe fills up, the command waits, nothing is lost."""
        self.trouble = f"{self.store.name} cannot be written: {error.strerror}"
        self._loop.forget(self._pipe)
        self._loop.after(RETRY_SECONDS, self._watch)
        self._moved(self)


class _Piece:
    """What one client has handed over: how much of it has gone on, and the timer that ends the wait, or 0."""

    __slots__ = ("data", "sent", "timer")

    def __init__(self, data: bytes, timer: int) -> None:
        self.data = memoryview(data)
        self.sent = 0
        self.timer = timer


class Outlet:
    """What clients write waits here, until the command takes it: one piece a client, which has its answer then."""

    def __init__(self, loop: Loop, fd: int) -> None:
        os.set_blocking(fd, False)
        self.taken = 0
        """Bytes, or messages, that have gone to the command."""
        self.open = True
        self._loop = loop
        self._fd = fd
        self._waiting: dict[Client, _Piece] = {}
        self._closing = False
        self._flushing = False

    def write(self, client: Client, data: bytes, wait: float | None) -> None:
        """Answer the client when all of it has been taken; after `wait` seconds (None: never) with what was by then."""
        if not self.open or self._closing:
            client.refuse("the stream is closed", closed=True)
            return
        timer = 0 if wait is None else self._loop.after(wait, lambda: self._give_up(client))
        self._waiting[client] = _Piece(data, timer)
        if not self._flushing:  # an answer lets its client go on, to the next piece perhaps: that has its turn
            self._flush()

    def forget(self, client: Client) -> None:
        """It has hung up, or has its answer."""
        piece = self._waiting.pop(client, None)
        if piece is not None:
            self._loop.cancel(piece.timer)

    def close(self, immediate: bool) -> None:
        """Close it when what waits has been taken, or at once."""
        self._closing = True
        if immediate or not self._waiting:
            self._close()

    def _flush(self) -> None:
        self._flushing = True
        try:
            while self._waiting and self._send_first():
                pass
        except OSError:
            self._lost()
            return
        finally:
            self._flushing = False
        if self._closing and not self._waiting:
            self._close()
        elif self.open:
            self._await_room()

    def _send_first(self) -> bool:
        """Whether something could be sent."""
        client, piece = next(iter(self._waiting.items()))
        try:
            piece.sent += self._send(piece.data[piece.sent :])
        except BlockingIOError:
            return False
        if piece.sent == len(piece.data):
            self.forget(client)
            client.answer({"written": piece.sent})
        return True

    def _give_up(self, client: Client) -> None:
        sent = self._waiting[client].sent
        self.forget(client)
        client.answer({"written": sent})
        if self.open:
            self._await_room()

    def _close(self) -> None:
        if not self.open:
            return
        self.open = False
        self._release()
        self._refuse_all()

    def _lost(self) -> None:
        """Nobody reads it any more."""
        self._close()

    def _refuse_all(self) -> None:
        for client in list(self._waiting):
            self.forget(client)
            client.refuse("the stream is closed", closed=True)

    def _send(self, data: memoryview) -> int:
        raise NotImplementedError

    def _await_room(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


class Feeder(Outlet):
    """The command's stdin, a pipe."""

    def _send(self, data: memoryview) -> int:
        count = os.write(self._fd, data)
        self.taken += count
        return count

    def _await_room(self) -> None:
        if self._waiting:
            self._loop.watch(self._fd, WRITE, lambda events: self._flush())
        else:
            self._loop.forget(self._fd)

    def _release(self) -> None:
        self._loop.forget(self._fd)
        os.close(self._fd)


class Messages(Outlet):
    """Whole messages, both ways over one socket; those of the command go to the disk."""

    def __init__(self, loop: Loop, sock: socket.socket, store: MessageStore, came: Callable[[], object]) -> None:
        super().__init__(loop, sock.fileno())
        self.trouble = ""
        """Why messages are not kept at present: a full disk."""
        self._sock = sock
        self._store = store
        self._came = came
        self._unkept = b""  # a message that found no room; no other is received before it
        self._await_room()

    def drain(self) -> None:
        """Take what is there now."""
        for _ in range(DRAIN_TAKES):
            if not (self.open and self._receive()):
                return

    def _send(self, data: memoryview) -> int:
        self._sock.send(data)
        self.taken += 1
        return len(data)

    def _lost(self) -> None:
        """Nobody reads them any more; what has come is to be kept all the same, and the hang-up is read behind it."""
        self._closing = True
        self._refuse_all()
        self._await_room()

    def _await_room(self) -> None:
        if self.open:
            events = (WRITE if self._waiting else 0) | (0 if self._unkept else READ)
            if events:
                self._loop.watch(self._fd, events, self._on_ready)
            else:  # until `_keep` is called again: a hang-up would be told without end
                self._loop.forget(self._fd)

    def _release(self) -> None:
        self._loop.forget(self._fd)
        self._sock.close()
        self._came()

    def _on_ready(self, events: int) -> None:
        if events & WRITE:
            self._flush()
        if events & ~WRITE and self.open and not self._receive() and events & ~(READ | WRITE) and not self._unkept:
            self._close()

    def _receive(self) -> bool:
        """Whether there may be more. An empty message and the end look the same: only a hang-up is the end."""
        if self._unkept:
            return False
        try:
            size = self._sock.recv_into(bytearray(1), 1, socket.MSG_PEEK | socket.MSG_TRUNC)  # Linux: of all of it
            self._unkept = self._sock.recv(max(size, _RECEIVE))
        except BlockingIOError:
            return False
        except OSError:
            self._close()
            return False
        return bool(self._unkept) and self._keep()

    def _keep(self) -> bool:
        """Whether the disk has taken the message. If not, the command waits as soon as the socket is full."""
        if not self.open:
            return False
        try:
            self._store.append(self._unkept)
            self._unkept, self.trouble = b"", ""
        except OSError as error:
            self.trouble = f"{self._store.name} cannot be written: {error.strerror}"
            self._loop.after(RETRY_SECONDS, self._keep)
        self._await_room()
        self._came()
        return not self._unkept


def message_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets that keep messages whole."""
    try:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    except OSError as error:
        if error.errno != errno.EPROTONOSUPPORT:  # macOS has the name, and no such sockets
            raise
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 2 * MAX_MESSAGE)
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MAX_MESSAGE)  # Linux doubles it: just under _RECEIVE
    return ours, theirs

"""The clients of a supervisor: accepted, heard, answered and told what happens.

What one of them does must not cost the others anything:

- Requests of a client are answered one by one. While one of them is being seen to, or its answer has not left yet,
  nothing more is read from that client. A client that writes much, or does not listen, fills no memory but its own.
- A client that watches and does not keep up is told once that there is output, not a thousand times. If even so too
  much is owed to it, it is dropped.
- When there are too many, the one goes whose last request is the longest ago: whoever holds connections open in
  silence keeps nobody out. Those who watch are silent by nature: they have places of their own, and when those are
  taken, the one that has watched for the longest goes.
- What is not a message of the protocol ends the connection.
"""

from __future__ import annotations

import os

from bossworker.system.cpython import socket
from bossworker.system.eventloop import READ, WRITE
from bossworker.tasks.wire.protocol import BadFrame, Decoder, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from bossworker.system.eventloop import Loop

MOST_CLIENTS = 896  # of the 1024 descriptors that a process may commonly have,
SPARE_DESCRIPTORS = 128  # since the supervisor needs some itself: where it may have fewer, fewer clients, but at least
LEAST_CLIENTS = 8
ASKING = 8  # one place in eight is not for clients that watch
MOST_ACCEPTED = 64  # connections in one turn of the loop
MOST_OWED = 1000  # events that a client may be behind, those that say the same counted once,
MOST_OWED_BYTES = 1 << 20  # and bytes of them
MOST_OWED_TO_ALL = 1 << 24  # bytes, to all clients together
MOST_BUFFERED = 1 << 24  # bytes of unfinished requests, of all clients together
READ_SIZE = 1 << 16  # bytes
NO_ROOM_SECONDS = 0.1  # without descriptors or memory for another connection, before the next attempt


def most_clients(descriptors: int) -> int:
    """The number for a process that may have this many descriptors; negative: no limit."""
    return MOST_CLIENTS if descriptors < 0 else max(LEAST_CLIENTS, min(MOST_CLIENTS, descriptors - SPARE_DESCRIPTORS))


class Client:
    """One connection."""

    __slots__ = (
        "_asked",
        "_decoder",
        "_out",
        "_owed",
        "_owed_bytes",
        "_service",
        "_serving",
        "_sock",
        "fd",
        "watching",
    )

    def __init__(self, service: Service, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.fd = sock.fileno()
        self.watching = False
        """Whether events are sent to it."""
        self._service = service
        self._sock = sock
        self._decoder = Decoder()
        self._out = b""  # what it has not taken yet
        self._owed: dict[object, bytes] = {}  # events that wait for it to take the rest
        self._owed_bytes = 0
        self._asked = False  # a request is being seen to
        self._serving = False
        service.loop.watch(self.fd, READ, self._on_ready)

    @property
    def buffered(self) -> int:
        """Bytes of a request that is not all there."""
        return len(self._decoder)

    @property
    def owed(self) -> int:
        """Bytes that it has not taken yet."""
        return len(self._out) + self._owed_bytes

    def answer(self, head: dict[str, Any], body: bytes = b"") -> None:
        """Answer the request that is being seen to."""
        self._asked = False
        try:
            self._out += encode({"ok": True, **head}, body)
        except BadFrame as error:
            self._out += encode({"ok": False, "error": str(error)})
        self._go_on()

    def refuse(self, error: str, **facts: object) -> None:
        """Answer that the request cannot be met."""
        self.answer({"ok": False, "error": error, **facts})

    def tell(self, event: bytes, key: object) -> None:
        """Send an event, now or as soon as the client takes it; for those of one key, the latest stands for all."""
        self._owed_bytes += len(event) - len(self._owed.get(key, b""))
        self._owed[key] = event
        if len(self._owed) > MOST_OWED or self._owed_bytes > MOST_OWED_BYTES:
            self._service.drop(self)
        elif not self._serving:
            self._go_on()

    def close(self) -> None:
        """Hang up."""
        if self.fd >= 0:
            self._service.loop.forget(self.fd)
            self._sock.close()
            self.fd = -1

    def _on_ready(self, events: int) -> None:
        if events & ~WRITE:
            if self._asked or self._out:  # nobody waits for the answer any more
                self._service.drop(self)
                return
            self._read()
        if self.fd >= 0:
            self._go_on()

    def _read(self) -> None:
        try:
            data = self._sock.recv(READ_SIZE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._service.drop(self)
            return
        self._decoder.feed(data)
        if self.buffered > READ_SIZE:
            self._service.keep_memory_bounded()

    def _go_on(self) -> None:
        """Send what can be sent and see to the next requests, as far as that goes without waiting."""
        if self._serving:
            return
        self._serving = True
        try:
            while self.fd >= 0 and self._step():
                pass
        finally:
            self._serving = False
        if self.fd >= 0:
            self._service.loop.watch(self.fd, WRITE if self._out else 0 if self._asked else READ, self._on_ready)

    def _step(self) -> bool:
        """Whether there may be more to do."""
        if self._out or self._owed:
            return self._send()
        if self._asked:
            return False
        try:
            frame = self._decoder.next()
        except BadFrame as error:
            self._hang_up(str(error))
            return False
        if frame is None:
            return False
        # Before it is served: the answer may be given at once, and takes this back.
        self._asked = True
        self._service.heard(self)
        self._service.serve(self, *frame)
        return True

    def _send(self) -> bool:
        if not self._out:
            self._out = b"".join(self._owed.values())
            self._owed.clear()
            self._owed_bytes = 0
        try:
            sent = self._sock.send(self._out)
        except BlockingIOError:
            return False
        except OSError:
            self._service.drop(self)
            return False
        self._out = self._out[sent:]
        return not self._out

    def _hang_up(self, error: str) -> None:
        try:
            self._sock.send(encode({"ok": False, "error": error}))
        except OSError:
            pass
        self._service.drop(self)


class Service:
    """Listens, and has requests seen to by `serve`, which answers by the client's own methods, now or later."""

    def __init__(
        self,
        loop: Loop,
        listener: socket.socket,
        serve: Callable[[Client, dict[str, Any], bytes], object],
        dropped: Callable[[Client], object],
    ) -> None:
        self.loop = loop
        self.serve = serve
        self.clients: dict[int, Client] = {}
        """By descriptor; the one whose last request is the longest ago comes first."""
        self._listener = listener
        self._dropped = dropped
        self._events = 0
        self._most = most_clients(os.sysconf("SC_OPEN_MAX"))
        listener.setblocking(False)
        self._listen()

    def tell(self, event: dict[str, Any], key: object = None) -> None:
        """Send an event to all clients that watch. One that is behind gets only the latest of those with one key."""
        self._events += 1
        frame = encode(event)
        for client in [client for client in self.clients.values() if client.watching]:
            client.tell(frame, self._events if key is None else key)
        self._keep_owed_bounded()

    def _keep_owed_bounded(self) -> None:
        """Drop the client that is owed the most, as long as all together are owed too much."""
        while sum(client.owed for client in self.clients.values()) > MOST_OWED_TO_ALL:
            self.drop(max(self.clients.values(), key=lambda client: client.owed))

    def begin_watching(self, client: Client) -> None:
        """Tell it what happens from now on."""
        client.watching = True
        watching = [client for client in self.clients.values() if client.watching]
        if len(watching) > self._most - self._most // ASKING:
            self.drop(watching[0])

    def heard(self, client: Client) -> None:
        """It has made a request."""
        self.clients[client.fd] = self.clients.pop(client.fd)

    def drop(self, client: Client) -> None:
        """Hang up, and forget what it asked for."""
        self.clients.pop(client.fd, None)
        client.close()
        self._dropped(client)

    def keep_memory_bounded(self) -> None:
        """Drop the client that holds the most of an unfinished request, when all together hold too much."""
        clients = self.clients.values()
        if sum(client.buffered for client in clients) > MOST_BUFFERED:
            self.drop(max(clients, key=lambda client: client.buffered))

    def close(self) -> None:
        """Hang up on all, and listen no more."""
        self.loop.forget(self._listener.fileno())
        self._listener.close()
        for client in list(self.clients.values()):
            self.drop(client)

    def _listen(self) -> None:
        if self._listener.fileno() >= 0:
            self.loop.watch(self._listener.fileno(), READ, self._accept)

    def _accept(self, events: int) -> None:
        for _ in range(MOST_ACCEPTED):
            try:
                # Whoever connected may have hung up since: then this connection is read once, and dropped.
                fd, _ = self._listener._accept()  # type: ignore[attr-defined]
            except (BlockingIOError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor, or no memory, for another
                self._make_room()
                return
            if len(self.clients) >= self._most:
                self._evict()
            self.clients[fd] = Client(self, socket.socket(fileno=fd))

    def _make_room(self) -> None:
        """Give up one connection, and leave the others in the queue for a moment."""
        self._evict()
        self.loop.forget(self._listener.fileno())
        self.loop.after(NO_ROOM_SECONDS, self._listen)

    def _evict(self) -> None:
        quiet = (client for client in self.clients.values() if not client.watching)
        first = next(quiet, None) or next(iter(self.clients.values()), None)
        if first is not None:
            self.drop(first)

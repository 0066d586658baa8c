"""The boss's end of the ZeroMQ wire: one ROUTER for all workers. The only place where libzmq runs.

A context starts threads, so this is made only after the fork server was forked. Nothing whose loss would matter comes
over it: what a worker has done is in its recorder, and a message only wakes.
"""

from __future__ import annotations

import errno
import socket
from contextlib import suppress
from typing import Any

from bossworker.pool.wire.frames import prefix_of
from bossworker.pool.wire.messages import Kind

LONGEST_MESSAGE = 1 << 10  # bytes that a worker may send at once: it only wakes us
MOST_UNREAD = 1000  # messages; a worker that sends more has to wait, and nothing is dropped
_ONLY_WAKE = [[prefix_of(kind, b"", ())] for kind in (Kind.UP, Kind.DONE)]


class Router:
    """See the module."""

    def __init__(self, listener: socket.socket) -> None:
        import zmq

        self._zmq: Any = zmq
        self._context = zmq.Context()
        self._socket = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, 0),  # whoever has not read by our end will not
            (zmq.SNDHWM, 0),  # a ROUTER drops what is above its high-water mark
            (zmq.RCVHWM, MOST_UNREAD),
            (zmq.ROUTER_MANDATORY, 1),  # or a message to a worker that is not there vanishes without a word
            (zmq.MAXMSGSIZE, LONGEST_MESSAGE),
            (zmq.HANDSHAKE_IVL, 0),  # a worker greets us once its init_handler has returned, which may take any time
            (zmq.USE_FD, listener.detach()),
        ):
            self._socket.setsockopt(option, value)
        self.quiet = False  # whether nothing was waiting at our last call: then the descriptor tells of what comes
        self._socket.bind("ipc://bossworker")  # the name means nothing: the listener is bound already

    def fileno(self) -> int:
        """Readable *when something happens*, not while there is something: see `take`."""
        return int(self._socket.getsockopt(self._zmq.FD))

    def send(self, identity: bytes, message: bytes) -> bool:
        """Send to a worker; False when it is not there, or not yet."""
        self.quiet = False
        try:
            self._socket.send_multipart((identity, message), self._zmq.DONTWAIT)
        except self._zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return False
        return True

    def take_rest(self) -> list[tuple[bytes, str]]:
        """To be called before each sleep: `take`, if the descriptor may be silent with messages waiting.

        It tells of changes alone, and a call in between may have eaten the signal. So after each but the last of
        `take`, the socket's state is asked for, and all is read.
        """
        return [] if self.quiet else self.take()

    def take(self) -> list[tuple[bytes, str]]:
        """Take all messages off; the senders of those that no worker of ours sends, and what is wrong with them."""
        zmq, wrong = self._zmq, []
        # Asked again after each reading: a message that comes between the last one and this question may not show on
        # the descriptor any more.
        while self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            with suppress(zmq.Again):
                while True:
                    route, *parts = self._socket.recv_multipart(zmq.DONTWAIT)
                    if parts not in _ONLY_WAKE:
                        wrong.append((route, "it wrote into its socket"))
        self.quiet = True
        return wrong

    def close(self) -> None:
        """End it, its threads included."""
        self._socket.close(0)
        self._context.term()

"""A door's ROUTER: what strangers send, as far as ZeroMQ lets it through; and who of them is gone."""

from __future__ import annotations

import errno
from collections.abc import Container
from contextlib import suppress
from typing import Any, NamedTuple

import zmq
import zmq.utils.z85

from bossworker.pool.door.door_protocol import LONGEST_JSON, LONGEST_MESSAGE
from bossworker.pool.door.keys import Keys

MOST_UNREAD = 256  # messages of a client; then it has to wait
# Results stay below this, since a client has credit for a number of bytes of them, and each takes 90 at least. So only
# one that asks without end, and reads no answer, gets none any more.
MOST_UNTAKEN = 1 << 17  # messages that wait for a client
HANDSHAKE_MILLISECONDS = 5000
HEARTBEAT_MILLISECONDS = 2000  # over a network, where a cable may be cut
LOST_MILLISECONDS = 10_000  # without an answer to that
LINGER_MILLISECONDS = 500
MOST_TURN = 200  # messages that are taken in a turn
_ZAP = "inproc://zeromq.zap.01"
_DOMAIN = b"bossworker"
_SLACK = 1 << 12


class Taken(NamedTuple):
    """A message that has come."""

    route: bytes
    data: bytes | memoryview
    key: str = ""
    """Whose key it was sent with."""
    user: int | None = None
    """The sender's user id, of a stranger at a door with a path."""


class DoorRouter:
    """See the module. A door at a path listens at `listener`; one with a network address, by `keys`."""

    def __init__(self, address: str, listener: int, keys: Keys | None, in_pieces: bool) -> None:
        """zmq.ZMQError when that cannot be listened to. `in_pieces`: whether long messages come so."""
        self._context = zmq.Context()
        self.zap: Any = None
        self.socket: Any = self._context.socket(zmq.ROUTER)
        for option, value in (
            (zmq.LINGER, LINGER_MILLISECONDS),  # for the last words to those who are told that it ends
            (zmq.SNDHWM, MOST_UNTAKEN),
            (zmq.RCVHWM, MOST_UNREAD),
            (zmq.ROUTER_MANDATORY, 1),  # or a message to somebody who is gone vanishes without a word
            (zmq.MAXMSGSIZE, LONGEST_MESSAGE + _SLACK if in_pieces else LONGEST_JSON),
            (zmq.HANDSHAKE_IVL, HANDSHAKE_MILLISECONDS),
        ):
            self.socket.setsockopt(option, value)
        self.monitor: Any = self.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
        self._with_keys = keys is not None
        if keys is not None:
            self._require(keys)
            self.socket.setsockopt(zmq.HEARTBEAT_IVL, HEARTBEAT_MILLISECONDS)
            self.socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, LOST_MILLISECONDS)
            self.socket.bind(address)
        else:
            self.socket.setsockopt(zmq.USE_FD, listener)
            self.socket.bind("ipc://bossworker")  # the name means nothing: the listener is bound already

    def _require(self, keys: Keys) -> None:
        """Let in those alone who have a key that is admitted."""
        self._admitted = {key.encode() for key in keys.admitted}
        self.zap = self._context.socket(zmq.REP)
        self.zap.bind(_ZAP)
        for option, value in (
            (zmq.CURVE_SERVER, 1),
            (zmq.CURVE_SECRETKEY, keys.secret.encode()),
            (zmq.ZAP_DOMAIN, _DOMAIN),
            (zmq.ZAP_ENFORCE_DOMAIN, 1),  # without a handler nobody is let in, and not everybody
        ):
            self.socket.setsockopt(option, value)

    @property
    def endpoint(self) -> str:
        """Where it listens, with the port that the system has chosen."""
        told: bytes = self.socket.getsockopt(zmq.LAST_ENDPOINT)
        return told.rstrip(b"\0").decode()

    def take(self, known: Container[bytes]) -> list[Taken]:
        """What has come. Of `known` routes, only that they are known is told."""
        found: list[Taken] = []
        while len(found) < MOST_TURN and self.has_more():
            with suppress(zmq.Again):
                found.append(self._take_one(known))
        return found

    def has_more(self) -> bool:
        """Whether there is something to be taken."""
        return bool(self.socket.getsockopt(zmq.EVENTS) & zmq.POLLIN)

    def _take_one(self, known: Container[bytes]) -> Taken:
        route: bytes = self.socket.recv(zmq.DONTWAIT)
        if route in known and not self._with_keys:  # the way of jobs: in one call less, and without an object a message
            data, *more = self.socket.recv_multipart(zmq.DONTWAIT)
            return Taken(route, b"" if more else data)
        part, *more = self.socket.recv_multipart(zmq.DONTWAIT, copy=False)
        if more:
            return Taken(route, b"")
        return Taken(route, part.buffer, *((_key_of(part), None) if self._with_keys else ("", _user_of(part))))

    def send(self, route: bytes, message: Any) -> bool:
        """Send to a client; False when it is gone."""
        try:
            self.socket.send_multipart((route, message), zmq.DONTWAIT)
        except zmq.ZMQError as error:
            if error.errno not in (errno.EHOSTUNREACH, errno.EAGAIN):
                raise
            return error.errno == errno.EAGAIN  # it is there, and does not read: see MOST_UNTAKEN
        return True

    def read_monitor(self) -> None:
        """Take off what it tells: that connections have ended."""
        with suppress(zmq.Again):
            while self.monitor.recv_multipart(zmq.DONTWAIT):
                pass

    def answer_strangers(self) -> int:
        """Tell ZeroMQ whom to let in, by their keys; how many were turned away."""
        turned_away = 0
        if self.zap is None:
            return 0
        with suppress(zmq.Again):
            while True:
                request = self.zap.recv_multipart(zmq.DONTWAIT)
                welcome = self._is_admitted(request)
                turned_away += not welcome
                key = zmq.utils.z85.encode(request[6]) if welcome else b""
                number = request[1] if len(request) > 1 else b""
                code, text = (b"200", b"OK") if welcome else (b"400", b"this key is not admitted")
                self.zap.send_multipart((b"1.0", number, code, text, key, b""))
        return turned_away

    def _is_admitted(self, request: list[bytes]) -> bool:
        match request:
            case [b"1.0", _, domain, _, _, b"CURVE", key] if domain == _DOMAIN and len(key) == 32:
                return zmq.utils.z85.encode(key) in self._admitted
        return False

    def close(self) -> None:
        """Hang up on everybody, once they have got what was sent to them, if they take it soon."""
        self.socket.disable_monitor()
        self._context.destroy(LINGER_MILLISECONDS)


def _user_of(part: Any) -> int | None:
    """The user id at the other end of a Unix socket, as the kernel tells: ``address:user:group:process``."""
    try:
        return int(str(part.get("Peer-Address")).split(":")[1])
    except (zmq.ZMQError, IndexError, ValueError):
        return None


def _key_of(part: Any) -> str:
    try:
        return str(part.get("User-Id"))
    except zmq.ZMQError:
        return ""

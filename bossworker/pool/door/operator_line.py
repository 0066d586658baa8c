"""An operator's connection to a door: JSON over ZMTP, without libzmq. (The door's side of it is ``operators.py``.)"""

from __future__ import annotations

import os
import select
import socket
import sys
import threading
import time
from contextlib import suppress
from typing import Any

from bossworker.errors import DoorRefused, PoolClosed
from bossworker.pool.door import addresses, door_protocol
from bossworker.pool.door.client_link import cut_message, shake_hands
from bossworker.pool.door.door_protocol import DOOR_VERSION, OPERATOR
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.zmtp import header_of
from bossworker.system import processes
from bossworker.system.cpython import NO_SIGPIPE

LONGEST_ANSWER = 1 << 28  # bytes
_READ = 1 << 18


class OperatorLine:
    """One question after the other, from any thread. PoolClosed when there is nobody any more."""

    def __init__(self, address: addresses.Address, seconds: float) -> None:
        """DoorRefused; LinkClosed, ProtocolError, OSError: there is no door."""
        self._where = address.text
        self._lock = threading.Lock()
        self._number = 0
        self._read = b""  # and not cut yet: a message that somebody has given up waiting for may have come in part
        deadline = time.monotonic() + seconds
        addresses.check_runtime_folder(address.path)
        self._sock = addresses.dial(address.path, seconds)
        try:
            self.told = shake_hands(self._sock, _hello(), deadline)
            if self.told.get("op") != "welcome":
                raise DoorRefused(f"{address.text} does not let us in: {self.told.get('reason')}")
            self._sock.setblocking(True)
        except BaseException:
            self._sock.close()
            raise

    def ask(self, seconds: float | None, op: str, **facts: Any) -> dict[str, Any]:
        """The answer to a request; with None, however long that takes. TimeoutError, PoolClosed."""
        with self._lock:
            self._number += 1
            message = door_protocol.encode({"op": op, "request": self._number, **facts})
            try:
                self._sock.sendall(header_of(len(message)) + message, NO_SIGPIPE)
                return self._answer(None if seconds is None else time.monotonic() + seconds)
            except (LinkClosed, OSError) as error:
                if isinstance(error, TimeoutError):
                    raise TimeoutError(f"the pool at {self._where} has not answered for {seconds} seconds") from None
                raise PoolClosed(f"the pool at {self._where} is gone") from error

    def _answer(self, deadline: float | None) -> dict[str, Any]:
        """What answers the last request. Answers to those before come late: nobody waits for them any more."""
        while True:
            told = door_protocol.decode(self._message(deadline))
            if told.get("op") == "reply" and told.get("request") == self._number:
                return told
            if told.get("op") == "error":
                raise ProtocolError(str(told.get("reason")))

    def _message(self, deadline: float | None) -> bytes:
        while (cut := cut_message(self._read, LONGEST_ANSWER)) is None:
            seconds = None if deadline is None else max(0.0, deadline - time.monotonic())
            # Another thread may close it at any point: its number is -1 then, or it is not readable all the same.
            if (fd := self._sock.fileno()) < 0:
                raise LinkClosed("it was closed here")
            if not processes.await_fd(fd, select.POLLIN, seconds) and deadline is not None:
                raise TimeoutError
            data = self._sock.recv(_READ)
            if not data:
                raise LinkClosed("the other end hung up")
            self._read += data
        message, self._read = cut
        return message

    def __del__(self) -> None:
        if hasattr(self, "_sock"):
            self.close()

    def close(self) -> None:
        """Hang up. May be called again."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)  # so that whoever reads in another thread hears of it
        self._sock.close()


def _hello() -> dict[str, Any]:
    program = os.path.basename(sys.argv[0] or sys.executable)
    return {"op": "hello", "version": DOOR_VERSION, "form": OPERATOR, "program": program, "pid": os.getpid()}

"""A door's line to the boss."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from typing import Any

from bossworker.pool.door.door_poller import DoorPoller
from bossworker.pool.wire import messages
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link, LinkClosed, link_pair
from bossworker.pool.wire.messages import WARNING, Kind

MOST_UNSENT = 1 << 26  # bytes on their way to the boss; with more, nothing is taken from clients

OnAnswer = Callable[[bytes], None]


def decoded(on_told: Callable[[dict[str, Any]], None]) -> OnAnswer:
    """Called with an answer, this calls `on_told` with what it says."""
    return lambda answer: on_told(json.loads(answer))


class BossLine:
    """See the module."""

    def __init__(self, link: Link, poller: DoorPoller) -> None:
        self._link = link
        self._poller = poller
        self._requests: dict[int, OnAnswer] = {}  # that the boss has not answered
        self._last_request = 0
        self._flushing = False  # whether we are told when the link takes more

    def fileno(self) -> int:
        return self._link.fileno()

    def tell(self, kind: Kind, head: bytes, *body: Any, fds: tuple[int, ...] = ()) -> None:
        """Send a frame."""
        try:
            self._link.send(kind, head, body, fds)
        except LinkClosed:
            return  # its end will be noticed as we read
        self._watch()

    def ask(self, kind: Kind, more: bytes, body: bytes, on_answer: OnAnswer) -> None:
        """Send a request; the answer, a JSON object, comes later."""
        self._last_request += 1
        self._requests[self._last_request] = on_answer
        self.tell(kind, messages.REQUEST.pack(self._last_request) + more, body)

    def note(self, text: str, level: int = WARNING) -> None:
        """Tell the program's log."""
        self.tell(Kind.NOTE, messages.NOTE.pack(level), text.encode())

    def forget(self, client: int, on_answer: OnAnswer) -> None:
        """What a client has queued or running is nobody's any more."""
        self.ask(Kind.CLIENT_GONE, messages.COUNT.pack(client), b"", on_answer)

    def open_line(self, client: int) -> socket.socket | None:
        """A line of a client's own to the boss: its end; None where there is no room."""
        try:
            ours, theirs = link_pair()
        except OSError:
            return None
        self.tell(Kind.CLIENT_LINE, messages.COUNT.pack(client), fds=(theirs.detach(),))
        return ours

    def receive(self) -> list[Frame]:
        """What has come, but for answers, which go to those who have asked. LinkClosed."""
        others: list[Frame] = []
        self.receive_each(others.append)
        return others

    def receive_each(self, on_frame: Callable[[Frame], None]) -> None:
        """The same, all in the order in which it was sent."""
        if self._link.unsent:
            self._link.flush()
            self._watch()
        for frame in self._link.receive():
            (self._on_reply if frame.kind is Kind.REPLY else on_frame)(frame)

    def _on_reply(self, frame: Frame) -> None:
        (number,) = messages.REQUEST.unpack(frame.head)
        on_answer = self._requests.pop(number, None)
        if on_answer is not None:
            on_answer(bytes(frame.body))

    def _watch(self) -> None:
        """While the boss does not take what we have, clients have to wait."""
        unsent = self._link.unsent
        if unsent is not self._flushing:
            self._flushing = unsent
            self._poller.want_room(self._link.fileno(), unsent)
        self._poller.hold_back(unsent and self._link.unsent_bytes > MOST_UNSENT)

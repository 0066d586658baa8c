"""What a supervisor tells, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from bossworker.tasks.errors import TaskGone
from bossworker.tasks.wire import protocol

if TYPE_CHECKING:
    from bossworker.tasks.client.contact import Contact
    from bossworker.tasks.wire.control_connection import ControlConnection

END_SECONDS = 10.0  # for a supervisor that has hung up, or does not answer, to end or to be reached again
FIRST_PAUSE = 0.05  # seconds before it is tried, doubled each time up to
LONGEST_PAUSE = 1.0  # since among too many watchers, each new one costs another its connection


class EventWatch:
    """Events of one task: first those that tell what is so already.

    A supervisor hangs up on a watcher that is too far behind, or one of too many. Then we connect again, and are told
    once more what is so, all metadata included. Only steps in between are missed.
    """

    def __init__(self, contact: Contact, deadline: float | None = None) -> None:
        """TaskGone when the supervisor cannot be reached, or not by the deadline."""
        self._contact = contact
        self._pause = FIRST_PAUSE
        self._connection = self._connect(deadline)
        self._missed: dict[str, Any] | None = None

    def __enter__(self) -> EventWatch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def event(self, deadline: float | None) -> dict[str, Any] | None:
        """The next event; None when there is none by the deadline.

        TaskGone when the supervisor has ended, or lives (`Contact.may_live`) and cannot be reached any more.
        """
        while self._missed is None:
            try:
                return self._connection.event(deadline)
            except TaskGone as error:
                self._connect_again(error)
        missed, self._missed = self._missed, None
        return missed

    def sees_end(self, deadline: float | None) -> bool:
        """Wait for the event that tells of the command's last end; False: it has not come by the deadline."""
        while (event := self.event(deadline)) is not None:
            if is_end(event):
                return True
        return False

    def events(self) -> Generator[dict[str, Any], None, None]:
        """What is told, as it comes, until the supervisor has ended. TaskGone when it lives and cannot be reached."""
        with self:
            while True:
                try:
                    event = self.event(None)
                except TaskGone:
                    if self._contact.may_live():
                        raise
                    return
                if event is not None:
                    yield event

    def _connect(self, deadline: float | None = None) -> ControlConnection:
        """TaskGone when there is no supervisor, or one that cannot be reached for a while, or not by us."""
        latest = time.monotonic() + END_SECONDS
        deadline = latest if deadline is None else min(deadline, latest)
        while True:
            try:
                connection = self._contact.connect()
                # The task's id goes along: the socket's name could be another task's by now. What has happened before
                # the supervisor hears this it tells first, so there is no gap.
                connection.send({"op": "watch", "task": self._contact.record.id})
                connection.answer(deadline)
                return connection
            except TaskGone as error:
                if time.monotonic() >= deadline or isinstance(error.__cause__, PermissionError):
                    raise
                self._wait_or_raise(error)

    def _connect_again(self, error: TaskGone) -> None:
        self._connection.close()
        self._wait_or_raise(error)
        self._connection = self._connect()
        meta = self._contact.ask({"op": "info"})[0]["info"]["meta"]
        self._missed = {"event": protocol.META, "meta": meta} if meta else None

    def _wait_or_raise(self, error: TaskGone) -> None:
        """Wait until it may be tried again; TaskGone when the supervisor is not there any more."""
        if self._contact.may_live():
            time.sleep(self._pause)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)
        # It may have ended while we waited: asked after the pause, so that no connection is tried to one that is gone.
        if not self._contact.may_live():
            raise error


def is_end(event: dict[str, Any]) -> bool:
    """Whether it tells of the command's end, after which no restart is due."""
    return event.get("event") == protocol.EXIT and bool(event.get("final"))

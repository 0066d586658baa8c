"""What a supervisor tells, over as many connections as it takes."""

from __future__ import annotations

import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from bossworker.tasks import protocol
from bossworker.tasks.errors import TaskGone

if TYPE_CHECKING:
    from bossworker.tasks.connection import Connection
    from bossworker.tasks.task import Task

END_SECONDS = 10.0  # for a supervisor that has hung up to end or to be reached again
PAUSE = 0.05  # seconds before it is tried: among too many who watch, each costs another one its connection


class Watch:
    """Events of one task: first those that tell what is so already.

    A supervisor hangs up on who is too far behind, or one of too many. Then we connect again, and are told once more
    what is so, all metadata included: nothing is missed but steps in between.
    """

    def __init__(self, task: Task) -> None:
        """TaskGone when the supervisor cannot be reached."""
        self._task = task
        self._connection = self._connect()
        self._missed: dict[str, Any] | None = None

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Hang up."""
        self._connection.close()

    def event(self, deadline: float | None) -> dict[str, Any] | None:
        """The next event; None when there is none by the deadline.

        TaskGone when the supervisor has ended, or lives (`Task.supervised`) and cannot be reached any more.
        """
        while self._missed is None:
            try:
                return self._connection.event(deadline)
            except TaskGone as error:
                self._connect_again(error)
        missed, self._missed = self._missed, None
        return missed

    def events(self) -> Generator[dict[str, Any], None, None]:
        """What is told, as it comes, until the supervisor has ended. TaskGone when it lives and cannot be reached."""
        with self:
            while True:
                try:
                    event = self.event(None)
                except TaskGone:
                    if self._task.supervised():
                        raise
                    return
                if event is not None:
                    yield event

    def _connect(self) -> Connection:
        connection = self._task.new_connection()
        connection.ask({"op": "watch", "task": self._task.id}, seconds=0.0)
        return connection

    def _connect_again(self, error: TaskGone) -> None:
        self._connection.close()
        deadline = time.monotonic() + END_SECONDS
        while True:
            time.sleep(PAUSE)
            if not self._task.supervised():
                raise error
            try:
                self._connection = self._connect()
                meta = self._task.ask({"op": "info"})[0]["info"]["meta"]
                break
            except TaskGone as again:
                if time.monotonic() >= deadline or isinstance(again.__cause__, PermissionError):
                    raise
        self._missed = {"event": protocol.META, "meta": meta} if meta else None

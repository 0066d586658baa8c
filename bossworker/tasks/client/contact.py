"""One task as a program reaches it: by its files, and by its supervisor."""

from __future__ import annotations

import errno
from typing import Any

from bossworker.tasks.client.shared_connection import SharedConnection
from bossworker.tasks.client.task_record import TaskRecord, find
from bossworker.tasks.errors import TaskGone
from bossworker.tasks.wire.control_connection import ControlConnection
from bossworker.tasks.wire.protocol import Frame


class Contact:
    """What `Task`, its streams and its events have in common. Cheap to make: it looks at nothing before it has to."""

    def __init__(self, pool: str, pid: int, task_id: str | None = None) -> None:
        """
        Args:
            pool: The path of the pool's directory.
            pid: The supervisor's.
            task_id: Which task is meant; None: the one whose supervisor has the pid.
        """
        self.pool = pool
        self.pid = pid
        self.known = None if task_id is None else TaskRecord(pool, task_id)
        """The task's directory, as soon as it is known which it is."""
        self._line = SharedConnection(self.connect)
        self._keeps_all: bool | None = None

    @property
    def record(self) -> TaskRecord:
        """The task's directory. TaskGone when the pool has no task of this pid."""
        if self.known is None:
            self.known = find(self.pool, self.pid)
        return self.known

    def may_live(self) -> bool:
        """Whether the supervisor lives, or may live where this process cannot see it."""
        return self.record.may_live()

    def keeps_all(self) -> bool:
        """Whether the streams keep what has been read, so that the supervisor need not hear of it."""
        if self._keeps_all is None:
            self._keeps_all = self.record.keeps_all()
        return self._keeps_all

    def connect(self) -> ControlConnection:
        """A connection of its own to the supervisor. TaskGone when it cannot be reached."""
        try:
            record = self.record
        except TaskGone as error:
            cause = error.__cause__ or FileNotFoundError(errno.ENOENT, "no such task")
            raise TaskGone(f"no supervisor {self.pid} in {self.pool}") from cause
        return record.connect(record.facts(), self.pid)

    def hang_on(self) -> None:
        """Connect, unless there is a connection already. TaskGone."""
        self._line.connect()

    def hang_up(self) -> None:
        """Give up the connection. The next request makes another."""
        self._line.disconnect()

    def ask(self, request: dict[str, Any], body: bytes = b"", seconds: float | None = 0.0) -> Frame:
        """Have the supervisor do something of `bossworker.tasks.wire.protocol`; its answer. TaskGone; TaskRefused.

        A supervisor hangs up on clients that have been silent when too many are connected. So when a connection turns
        out to be closed, another one is made, and the request sent once more.
        """
        return self._line.ask({**request, "task": self.record.id}, body, seconds)

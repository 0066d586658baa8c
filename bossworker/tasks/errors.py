"""Every error of background tasks.

The tree::

    BossWorkerError
     +-- TaskError              everything below
          +-- TaskNotStarted    the command does not run: no such program, no such folder
          |    +-- TaskLocked   another task holds its lock file
          +-- TaskGone          its supervisor cannot be reached
          +-- TaskRefused       its supervisor cannot do what was asked
          +-- StreamClosed      nobody reads what is written to the stream
"""

from __future__ import annotations

from typing import Any

from bossworker.errors import BossWorkerError


class TaskError(BossWorkerError):
    """Base of what goes wrong with background tasks."""


class TaskNotStarted(TaskError):
    """The command does not run; the text says why. ``exit_code`` is what a shell would give: 126 or 127, or None."""

    def __init__(self, message: str, exit_code: int | None = None) -> None:
        super().__init__(message)
        self.exit_code = exit_code

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.exit_code)


class TaskLocked(TaskNotStarted):
    """The lock file of the command is held by another task; ``pid`` is that one's supervisor, or None."""

    def __init__(self, message: str, pid: int | None = None) -> None:
        super().__init__(message)
        self.pid = pid

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.pid)


class TaskGone(TaskError):
    """The task's supervisor cannot be reached: it has ended, or does not answer, or is not for this user."""


class TaskRefused(TaskError):
    """The supervisor says that the request cannot be met; ``facts`` is its answer."""

    def __init__(self, message: str, facts: dict[str, Any]) -> None:
        super().__init__(message)
        self.facts = facts

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.facts)


class StreamClosed(TaskError):
    """Nobody reads what is written to this stream: it was closed, or the command has ended."""

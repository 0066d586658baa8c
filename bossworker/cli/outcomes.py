"""A job of a run, and how it ended."""

from __future__ import annotations

import os
from collections.abc import Mapping

from bossworker.cli.replacements import Row
from bossworker.system.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

UNKNOWN_EXIT = -1  # in a joblog: of one that was made to end
INTERRUPTED = "interrupted"
"""The kind of what was running when its run was stopped (``--journal``)."""
_SIGNAL_BASE = 128

Output = bytes | str
"""What a stream has held: the bytes, or the path of a file with them."""


class Planned(NamedTuple):
    """One that is with the pool."""

    row: Row
    text: str
    """Its command line, as it stands in a joblog."""
    place: int
    """Among those that were started: the order of their output."""
    tag: str
    job: Any
    """As its crew takes it."""
    tries: int = 1


class Ended(NamedTuple):
    """One that has ended."""

    plan: Planned
    ok: bool
    exit_code: int | None
    signal: int | None
    seconds: float
    started_at: float
    stdout: Output
    stderr: Output
    jobid: str
    kind: str
    """As `Result.error_kind`; empty if it ended well."""
    reason: str
    answer: Mapping[Any, Any]
    """What a handler in Python has returned."""
    received: int = 0
    """Bytes of stdout, where it is gone."""

    @property
    def stdout_bytes(self) -> int:
        """How many, wherever they are."""
        return self.received or size_of(self.stdout)

    @property
    def exit_value(self) -> int:
        """For a joblog."""
        if self.kind in ("timeout", "memory") or not (self.ok or self.exit_code or self.signal):
            return UNKNOWN_EXIT
        return self.exit_code or 0

    @property
    def exit_status(self) -> int:
        """As a shell would give it."""
        if self.signal:
            return _SIGNAL_BASE + self.signal
        return (self.exit_code or 0) if self.ok or self.exit_code else 1

    @property
    def words(self) -> str:
        """``exit code 3``, ``signal 9 (SIGKILL)``, ``timed out``."""
        return self.reason.removeprefix("BossWorkerAsync: ").removeprefix("terminated by ").splitlines()[0]


def size_of(stream: Output) -> int:
    """Bytes."""
    return len(stream) if isinstance(stream, bytes) else os.path.getsize(stream)


def bytes_of(stream: Output) -> bytes:
    """All of it."""
    if isinstance(stream, bytes):
        return stream
    with open(stream, "rb") as file:
        return file.read()


def last_bytes(stream: Output, most: int) -> bytes:
    """The end of a stream."""
    if isinstance(stream, bytes):
        return stream[-most:]
    with open(stream, "rb") as file:
        file.seek(max(0, size_of(stream) - most))
        return file.read()

"""What is said between a run and the host of its commands: tuples in marshal, each behind its length.

The run says JOBS (a list of `HostedJob`), CANCEL (ids, a kind, whether of those only that have not begun), and LEAVE
(whether what runs has no time to tidy up) before it hangs up; if it does not, it was killed. The host answers with
lists of records, each of them one of::

    (id,)                        it begins, or has begun (when a host dies, cells tell what may have run: ``cells.py``)
    (id, seconds, started_at)    it has ended well, and has written nothing that is for us
    (id, kind, reason, ...)      it has ended: an `EndRecord`
    (None, errno)                the lines that are passed on cannot be written
"""

from __future__ import annotations

import marshal
from collections.abc import Iterator

from bossworker.system.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

JOBS, CANCEL, LEAVE = range(3)

CANCELLED, TIMEOUT, MEMORY = "cancelled", "timeout", "memory"
BAD_JOB, CRASH, REPORTED, EXCEPTION = "bad_job", "crash", "reported", "exception"
"""Kinds, as in `Result.error_kind`; an empty one is of what ended well."""

GROUP, LINES, DIRECT = "group", "lines", "direct"
"""Output is in the record; or goes to our own stdout and stderr, whole lines as they come; or commands have these."""

LENGTH = 4  # bytes


class HostSettings(NamedTuple):
    """What holds for all commands of a run."""

    slots: int
    folder: str
    """For output that is too long for a record; made when the first one is."""
    how: str
    shell: bool
    env: dict[str, str]
    timeout: float = 0.0
    memory: int = 0
    nice: int = 0


class HostedJob(NamedTuple):
    """A command that is to run."""

    id: int
    argv: list[str]
    cwd: str
    tag: str
    """What its lines begin with, where they are passed on."""
    env: dict[str, str]
    cell: int
    """Where it is told what becomes of it: see ``cells.py``."""


class EndRecord(NamedTuple):
    """How one has ended."""

    id: int
    kind: str
    reason: str
    exit_code: int | None
    signal: int | None
    seconds: float
    started_at: float
    stdout: bytes | str = b""
    """Bytes, or the path of a file for whoever gets this to delete."""
    stderr: bytes | str = b""
    jobid: str = ""
    """Of its job directory, if one was made."""
    received: int = 0
    """Bytes of stdout that were passed on already."""


def pack(message: Any) -> bytes:
    """As it is sent."""
    data = marshal.dumps(message)
    return len(data).to_bytes(LENGTH, "little") + data


class Unpacker:
    """From bytes, however they come, to messages."""

    def __init__(self) -> None:
        self._data = b""

    def feed(self, data: bytes) -> Iterator[Any]:
        """All messages that are whole by now."""
        data = self._data + data if self._data else data
        at = 0
        while len(data) >= at + LENGTH:
            end = at + LENGTH + int.from_bytes(data[at : at + LENGTH], "little")
            if end > len(data):
                break
            yield marshal.loads(data[at + LENGTH : end])
            at = end
        self._data = data[at:]

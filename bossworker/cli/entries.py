"""One form for jobs, tasks and pools: what `ps`, `show`, `log`, `wait` and the others ask of any of them."""

from __future__ import annotations

from typing import Any, Protocol

NAME = "name"  # in the metadata
QUEUE = "queue"  # the same, of one that was queued: its group, and more
NOT_STARTED = "not started"  # what the reason of one begins with whose turn never came
CANCELLED = "cancelled before it started"  # the same, where somebody wanted that
QUEUED = "queued"  # the status of one that has not started
ENDED = ("completed", "terminated by request", "terminated by error", "unknown")  # the status of what has ended
LOOK = 0.05  # seconds between two looks for more output
_RANDOM = 20  # hexadecimal digits at the end of an id, which nobody can guess
STREAMS = ("stdout", "stderr")


class EntryError(Exception):
    """What cannot be done to a job or task; the text is for people."""


class GoneError(EntryError):
    """It is not there (any more)."""


class LateError(EntryError):
    """It has not been done in time."""


class Entry(Protocol):
    """A job, a task, a queued command or a pool: whatever `ps` lists. What it cannot do is an EntryError."""

    kind: str
    id: str

    @property
    def name(self) -> str: ...

    def describe(self) -> dict[str, Any]:
        """The documented form, JSON values."""

    def wait(self, timeout: float | None) -> None:
        """Until it has ended, or that many seconds are over."""

    def signal(self, number: int) -> bool:
        """Whether it was sent: something runs."""

    def pause(self, on: bool) -> bool:
        """Stop all of it where it is, or let it go on."""

    def read(self, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
        """What it has written to a stream, from a byte on (from the end, if negative), and where this begins."""

    def send(self, text: str, timeout: float | None = None) -> None:
        """Hand it a text. LateError when it has not taken all of it within that many seconds."""

    def again(self) -> Entry:
        """Start it once more."""

    def delete(self) -> None:
        """End it, and delete its files."""


def name_in(meta: dict[str, Any]) -> str:
    """As text, whatever a program has put there; empty if it has none."""
    name = meta.get(NAME)
    return "" if name is None else str(name)


def queue_in(meta: dict[str, Any]) -> dict[str, Any]:
    """Of one that was queued, how; nothing of another one, even if its own metadata has such a key."""
    queue = meta.get(QUEUE)
    return queue if isinstance(queue, dict) and {"group", "priority", "after"} <= queue.keys() else {}


def is_running(found: dict[str, Any]) -> bool:
    """Whether it has not ended, as far as we know."""
    return found["status"] in (QUEUED, "created", "running")


def runs(entry: Entry) -> bool:
    """Whether it does at this instant; one that is gone does not."""
    found = described(entry)
    return found is not None and is_running(found)


def described(entry: Entry) -> dict[str, Any] | None:
    """All that there is to say of it; None when it was deleted just now."""
    try:
        return entry.describe()
    except EntryError:
        return None


def has_failed(found: dict[str, Any]) -> bool:
    """Whether it has ended, and not well."""
    return str(found["status"]).startswith("terminated")


def is_cancelled(found: dict[str, Any]) -> bool:
    """Whether somebody has had it end before it had an exit status: mostly, it was queued."""
    ended = found["exit_code"] is not None or found["signal"] is not None
    asked = found["status"] == "terminated by request"
    return asked and not ended and not str(found["reason"]).startswith(NOT_STARTED)


def exit_status(found: dict[str, Any]) -> int:
    """What a shell would have as ``$?``, once it has ended."""
    if found["exit_code"] is not None:
        return int(found["exit_code"])
    if found["signal"] is not None:
        return 128 + int(found["signal"])
    return 0 if found["status"] == "completed" else 1


def short(entry_id: str) -> str:
    """The beginning of its random part: what people type."""
    return entry_id[-_RANDOM:][:8]


def is_meant(entry_id: str, text: str) -> bool:
    """Whether a text is the beginning of an id, or of its random part."""
    return entry_id.startswith(text) or entry_id[-_RANDOM:].startswith(text)

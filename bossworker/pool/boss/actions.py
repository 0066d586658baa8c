"""What the ledger asks the boss to do."""

from __future__ import annotations

from typing import NamedTuple

from bossworker.failure import Outcome
from bossworker.pool.wire.batch import Batch


class Spawn(NamedTuple):
    """Start a worker in this slot."""

    slot: int


class Assign(NamedTuple):
    """Hand a batch to a worker."""

    slot: int
    batch: Batch
    soon: bool = True  # whether it may be through within the instant that the boss stays awake for


class Leave(NamedTuple):
    """Ask an idle worker to leave in order."""

    slot: int


class Interrupt(NamedTuple):
    """Raise JobTimeout in this job, if it still runs. `excess`: bytes that it has taken, if that is why."""

    slot: int
    job_id: int
    excess: int = 0


class Kill(NamedTuple):
    """End a worker and all its descendants."""

    slot: int


class ReplaceStuck(NamedTuple):
    """End a worker that does not begin its batch, unless it merely waits for somebody to read what was printed."""

    slot: int


class TakeBack(NamedTuple):
    """Withdraw the jobs a worker has not claimed, and tell ``on_taken_back``."""

    slot: int


class Finish(NamedTuple):
    """A result that the ledger itself decides on."""

    job_id: int
    pid: int
    attempt: int
    outcome: Outcome
    text: str
    started: float  # monotonic seconds
    finished: float
    code: int | None = None  # after a crash, the worker's exit code, or its signal as a negative number


class Tried(NamedTuple):
    """New handlers have been tried; `error`: why they failed, or empty. Those of generation `unused` are done with."""

    unused: int
    error: str = ""


class Tell(NamedTuple):
    """Tell the caller's log."""

    level: int  # as of the module logging
    text: str


Action = Spawn | Assign | Leave | Interrupt | Kill | ReplaceStuck | TakeBack | Finish | Tried | Tell
Actions = list[Action]

"""What the ledger knows of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum
from typing import NamedTuple

from bossworker.errors import CANCELLED, MEMORY_EXCEEDED, TIMED_OUT
from bossworker.failure import Outcome
from bossworker.pool.wire.batch import Batch

NEVER = float("inf")


class Terminated(Enum):
    """Why a worker was made to stop its job."""

    TIMEOUT = (Outcome.TIMEOUT, TIMED_OUT)
    CANCEL = (Outcome.CANCELLED, CANCELLED)
    MEMORY = (Outcome.MEMORY, MEMORY_EXCEEDED)


class Exit(NamedTuple):
    """How a worker ended."""

    text: str  # in words, up to the bracket that closes them and what follows it
    code: int  # its exit code, or the signal as a negative number

    @property
    def reason(self) -> str:
        """In words, for people."""
        return self.text.replace(")", "", 1)


class State(StrEnum):
    """What a worker is doing."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    LEAVING = "leaving"


@dataclass(slots=True)
class WorkerRecord:
    """A worker as the ledger sees it."""

    slot: int
    index: int = 0  # from 0: the lowest that no worker that stays has
    generation: int = 0  # of its handlers
    pid: int = 0
    state: State = State.STARTING
    jobs_done: int = 0
    dismissed: bool = False  # leaves as soon as its job is done
    condemned: str = ""  # why it is being ended, if it wrote what cannot be true
    why: str = ""  # why it is being replaced, or has to leave, in a word; "": it is not, or died by itself
    kill_told: bool = False  # whether the program's log knows that it is being killed
    # The batch it has, and how far that is:
    batch: Batch | None = None
    given_at: float = 0.0
    limit: int = 0  # jobs of the batch that are still its own
    taken: int = 0  # results that have been taken from it, from the front
    result_bytes: int = 0  # of the results that have been taken
    spilled: set[int] = field(default_factory=set)  # positions whose results came by themselves
    awaited: set[int] = field(default_factory=set)  # those whose results are still to come so, as the recorder says
    sending_since: float = 0.0  # when it was first seen to send such a result; 0.0: it sends none
    look_at: float = 0.0
    # The job that must stop, and why:
    expired: int = -1  # its position in the batch
    reason: Terminated | None = None
    excess: int = 0  # bytes that it has taken, if that is the reason
    kill_at: float = 0.0
    killed: bool = False
    cancelled: set[int] = field(default_factory=set)  # ids whose results become CANCELLED

    def owes(self, job_id: int, claimed: int) -> bool:
        """Whether the result of this job may come by itself now, when this many jobs of the batch are claimed."""
        position = job_id - self.batch.first_id if self.batch is not None else -1
        return position not in self.spilled and (position in self.awaited or self.taken <= position < claimed)

    def lost(self, claimed: int) -> list[int]:
        """Positions of the jobs that died with the worker: claimed, and without a result."""
        return sorted(self.awaited.union(range(self.taken, claimed)) - self.spilled)

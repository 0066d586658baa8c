"""What the ledger knows of a worker."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, StrEnum

from bossworker.errors import CANCELLED, TIMED_OUT
from bossworker.failure import Outcome
from bossworker.pool.wire.batch import Batch

NEVER = float("inf")


class Terminated(Enum):
    """Why a worker was made to stop its job."""

    TIMEOUT = (Outcome.TIMEOUT, TIMED_OUT)
    CANCEL = (Outcome.CANCELLED, CANCELLED)


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
    index: int = 0  # its number, from 0: the lowest that none of the others has which stay
    pid: int = 0
    state: State = State.STARTING
    jobs_done: int = 0
    dismissed: bool = False  # leaves as soon as its job is done
    # The batch it has, and how far that is:
    batch: Batch | None = None
    given_at: float = 0.0
    limit: int = 0  # jobs of the batch that are still its own
    taken: int = 0  # results that have been taken from it, from the front
    result_bytes: int = 0  # of the results that have been taken
    spilled: set[int] = field(default_factory=set)  # positions whose results came by themselves
    look_at: float = 0.0
    # The job that must stop, and why:
    expired: int = -1  # its position in the batch
    reason: Terminated | None = None
    kill_at: float = 0.0
    killed: bool = False
    cancelled: set[int] = field(default_factory=set)  # ids whose results become CANCELLED

    def has(self, job_id: int) -> bool:
        batch = self.batch
        return batch is not None and 0 <= job_id - batch.first_id < self.limit

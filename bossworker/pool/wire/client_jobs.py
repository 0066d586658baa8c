"""Jobs from clients of a door, and what is asked of them before anybody acts on them."""

from __future__ import annotations

from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import OWN_ID, ProtocolError

MOST_AT_ONCE = 1 << 16  # jobs in a message
MOST_JOBS = 1 << 20  # unfinished jobs of a client
MOST_BYTES = 1 << 32  # of unfinished jobs of a client, and of results that wait for it
LONGEST_ON_LINE = 1 << 22  # bytes of a frame on a client's own line to the boss; a longer one goes by the door


def read_batch(frame: Frame, with_file: bool = False) -> Batch:
    """Jobs from a client. ProtocolError when they are none that our own code would send.

    `with_file`: a large one's data may be in a file beside it.
    """
    batch = Batch.read(frame.head, frame.body)
    options = batch.job_options
    if not 1 <= batch.first_id <= batch.first_id + batch.count - 1 <= OWN_ID:
        raise ProtocolError(f"{batch.count} jobs with ids from {batch.first_id}")
    if not 0 <= options.timeout <= 1e9 or options.attempt != 1 or len(frame.fds) > with_file:
        raise ProtocolError("jobs with options that no client has")
    if batch.count > MOST_AT_ONCE:
        raise ProtocolError(f"{batch.count} jobs in a message")
    counts, sizes = batch.counts, batch.sizes
    # A job takes a byte at least: so what says that it holds more jobs does not have us count to a billion.
    if not counts or min(counts) < 1 or sum(sizes) != len(batch.payload) or sum(counts) > len(batch.payload):
        raise ProtocolError("jobs whose columns do not fit")
    if not batch.skip < counts[0] or not sum(counts) - counts[-1] < batch.skip + batch.count <= sum(counts):
        raise ProtocolError("jobs whose blocks do not fit")
    return batch


class Allowance:
    """What a client has unfinished, and whether it may have more."""

    def __init__(self) -> None:
        self.unfinished = 0  # jobs
        self.job_bytes = 0  # of these, about
        self.done = 0

    def why_full(self, batch: Batch, size: int, waiting: int = 0) -> str:
        """Why these jobs are too many; empty when they are not. `waiting`: bytes of results that it has not taken."""
        if self.unfinished + batch.count > MOST_JOBS:
            return f"{self.unfinished} jobs of this client are unfinished, and it may have {MOST_JOBS}"
        if self.job_bytes + waiting + size > MOST_BYTES:
            return f"jobs and results of this client take {self.job_bytes + waiting} of {MOST_BYTES} bytes"
        return ""

    def add(self, jobs: int, size: int) -> None:
        """Jobs were added."""
        self.unfinished += jobs
        self.job_bytes += size

    def count(self, jobs: int) -> None:
        """Jobs are done."""
        ended = min(jobs, self.unfinished)
        self.job_bytes -= self.job_bytes * ended // max(1, self.unfinished)
        self.unfinished -= ended
        self.done += jobs

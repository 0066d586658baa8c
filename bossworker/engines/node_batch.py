"""A batch that a node has, and what of it has come back from the node's workers."""

from __future__ import annotations

import threading

from bossworker.engines.node_messages import BatchOrder, Body
from bossworker.failure import KIND_BITS, Outcome
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.segments import Segment, part


class NodeBatch:
    """See the module."""

    def __init__(self, order: BatchOrder, body: Body) -> None:
        self.order = order
        self.body: Body | None = body  # until the boss has it
        batch = Batch.read(memoryview(order.head), body.data)
        self.first_id, self.stop_id = batch.first_id, batch.first_id + batch.count
        self.left = batch.count
        self.segments: list[Segment] = []
        self.reported = 0  # segments that went ahead
        self.claimed = self.submitted = self.lost = False
        self.doomed: set[int] = set()  # ids that were cancelled while it was being claimed
        self.wanted_back: set[int] = set()  # the same, but for what has begun by then
        self.given_up: set[int] = set()  # ids that were cancelled unbegun: they may be here again, in another batch
        self.decided = threading.Event()  # whether it is ours

    @property
    def through(self) -> bool:
        return not self.left or self.lost

    def awaits(self, job_id: int) -> bool:
        return self.submitted and self.first_id <= job_id < self.stop_id and job_id not in self.given_up

    def take(self, segment: Segment) -> int:
        """Take in results from the first on; how many are ours."""
        count = 1 if self.given_up else min(segment.jobs, self.stop_id - segment.first_id)
        mine = part(segment, 0, count)
        if not mine.pid and any(one & KIND_BITS == Outcome.CANCELLED for one in mine.outcomes):
            self.given_up.update(range(mine.first_id, mine.first_id + count))
        self.segments.append(mine)
        self.left -= count
        return count

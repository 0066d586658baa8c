"""The jobs that wait for a worker, as batches, by priority."""

from __future__ import annotations

import sys
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from bossworker.pool.wire.batch import Batch, BatchCursor

BATCH_BYTES = 1 << 20  # a batch of larger jobs is cut here


class Queue:
    """Batches by priority, first in first out; what is put back goes to the front."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[BatchCursor]] = {}
        self._priorities: list[int] = []  # of the lanes, ascending
        self.jobs = 0

    def _clear(self) -> None:
        self._lanes.clear()
        self._priorities.clear()
        self.jobs = 0

    def __iter__(self) -> Iterator[BatchCursor]:
        for priority in reversed(self._priorities):
            yield from self._lanes[priority]

    def _lane(self, priority: int) -> deque[BatchCursor]:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = deque()
            insort(self._priorities, priority)
        return lane

    def _drop_lane(self, priority: int) -> None:
        del self._lanes[priority]
        self._priorities.remove(priority)

    def add(self, batch: Batch) -> None:
        lane = self._lane(batch.job_options.priority)
        self.jobs += batch.count
        if not (lane and lane[-1].batch.join(batch)):
            lane.append(BatchCursor(batch))

    def put_back(self, batch: Batch) -> None:
        self.jobs += batch.count
        self._lane(batch.job_options.priority).appendleft(BatchCursor(batch))

    def cut(self, most: int) -> Batch:
        """A batch of the most urgent jobs, all with the same options."""
        priority = self._priorities[-1]
        lane = self._lanes[priority]
        batch = lane[0].cut(most, BATCH_BYTES)
        self.jobs -= batch.count
        if not len(lane[0]):
            lane.popleft()
            if not lane:
                self._drop_lane(priority)
        return batch

    def remove(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Strike jobs out; those that were here, as (id, attempt). Batches that hold none of them are left alone."""
        wanted = set(ids)
        removed: list[tuple[int, int]] = []
        for priority, lane in list(self._lanes.items()):
            for _ in range(len(lane)):
                cursor = lane.popleft()
                hits = _hits(cursor.ids, wanted)
                if hits:
                    removed += [(job_id, cursor.batch.job_options.attempt) for job_id in hits]
                    lane.extend(map(BatchCursor, _without(cursor.rest(), hits)))
                else:
                    lane.append(cursor)
            if not lane:
                self._drop_lane(priority)
        self.jobs -= len(removed)
        return removed

    def drain(self) -> list[tuple[int, int]]:
        """Empty the queue; what was in it, as (id, attempt)."""
        gone = [(job_id, cursor.batch.job_options.attempt) for cursor in self for job_id in cursor.ids]
        self._clear()
        return gone


def _hits(ids: range, wanted: set[int]) -> list[int]:
    """Those of `ids` that are wanted, ascending; whichever are fewer are gone through."""
    if len(ids) < len(wanted):
        return [job_id for job_id in ids if job_id in wanted]
    return sorted(job_id for job_id in wanted if job_id in ids)


def _without(batch: Batch, hits: list[int]) -> Iterator[Batch]:
    """What is left of a batch, in pieces."""
    cursor = BatchCursor(batch)
    for _, group in groupby(enumerate(hits), lambda hit: hit[1] - hit[0]):  # the same as long as ids are consecutive
        gone = [job_id for _, job_id in group]
        if cursor.ids[0] < gone[0]:
            yield cursor.cut(gone[0] - cursor.ids[0], sys.maxsize)
        cursor.cut(len(gone), sys.maxsize)
    if len(cursor):
        yield cursor.cut(len(cursor), sys.maxsize)

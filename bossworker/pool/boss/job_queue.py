"""The jobs that wait for a worker, as batches: by priority, and in turns among those who have added them."""

from __future__ import annotations

import sys
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from bossworker.pool.wire.batch import Batch, BatchCursor
from bossworker.pool.wire.messages import CLIENT_BITS

BATCH_BYTES = 1 << 20  # a batch of larger jobs is cut here


class _Lane:
    """Jobs of one priority: a line for each client of the pool, who take turns. (The pool's owner is one of them.)"""

    __slots__ = ("_lines", "turns")

    def __init__(self) -> None:
        self._lines: dict[int, deque[BatchCursor]] = {}
        self.turns: deque[deque[BatchCursor]] = deque()  # the same lines, the next one first; none of them is empty

    def __iter__(self) -> Iterator[BatchCursor]:
        for line in self.turns:
            yield from line

    def line(self, batch: Batch, next_turn: bool = False) -> deque[BatchCursor]:
        """Where the batch belongs, to be added to. A new line has the last turn, or the next."""
        client = batch.first_id >> CLIENT_BITS
        line = self._lines.get(client)
        if line is None:
            line = self._lines[client] = deque()
            self.turns.insert(0 if next_turn else len(self.turns), line)
        return line

    def end_turn(self, client: int) -> None:
        """Something was cut off the first line, which is this client's."""
        if self.turns[0]:
            self.turns.rotate(-1)
        else:
            self.turns.popleft()
            del self._lines[client]

    def forget_empty(self) -> None:
        self._lines = {client: line for client, line in self._lines.items() if line}
        self.turns = deque(line for line in self.turns if line)

    def drop(self, clients: range) -> int:
        """Drop these clients' jobs; how many there were."""
        gone = [line for client, line in self._lines.items() if client in clients]
        count = sum(len(cursor) for line in gone for cursor in line)
        for line in gone:
            line.clear()
        self.forget_empty()
        return count


class Queue:
    """Batches by priority; of each client's, first in first out. What is put back goes to the front."""

    def __init__(self) -> None:
        self._lanes: dict[int, _Lane] = {}
        self._priorities: list[int] = []  # of the lanes, ascending
        self.jobs = 0

    def _clear(self) -> None:
        self._lanes.clear()
        self._priorities.clear()
        self.jobs = 0

    def __iter__(self) -> Iterator[BatchCursor]:
        for priority in reversed(self._priorities):
            yield from self._lanes[priority]

    def _lane(self, priority: int) -> _Lane:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = _Lane()
            insort(self._priorities, priority)
        return lane

    def _drop_lane(self, priority: int) -> None:
        del self._lanes[priority]
        self._priorities.remove(priority)

    def add(self, batch: Batch) -> None:
        line = self._lane(batch.job_options.priority).line(batch)
        self.jobs += batch.count
        if not (line and line[-1].batch.join(batch)):
            line.append(BatchCursor(batch))

    def put_back(self, batch: Batch) -> None:
        self.jobs += batch.count
        self._lane(batch.job_options.priority).line(batch, next_turn=True).appendleft(BatchCursor(batch))

    @property
    def top_priority(self) -> int:
        """Of the most urgent jobs; there must be some."""
        return self._priorities[-1]

    def cut(self, most: int) -> Batch:
        """A batch of the most urgent jobs, all of one client and with the same options."""
        priority = self._priorities[-1]
        lane = self._lanes[priority]
        line = lane.turns[0]
        batch = line[0].cut(most, BATCH_BYTES)
        self.jobs -= batch.count
        if not len(line[0]):
            line.popleft()
        lane.end_turn(batch.first_id >> CLIENT_BITS)
        if not lane.turns:
            self._drop_lane(priority)
        return batch

    def drop(self, clients: range) -> None:
        """Drop what these clients have here."""
        for priority, lane in list(self._lanes.items()):
            self.jobs -= lane.drop(clients)
            if not lane.turns:
                self._drop_lane(priority)

    def remove(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Strike jobs out; those that were here, as (id, attempt). Batches that hold none of them are left alone."""
        wanted = set(ids)
        removed: list[tuple[int, int]] = []
        for priority, lane in list(self._lanes.items()):
            for line in lane.turns:
                removed += _strike_out(line, wanted)
            lane.forget_empty()
            if not lane.turns:
                self._drop_lane(priority)
        self.jobs -= len(removed)
        return removed

    def drain(self) -> list[tuple[int, int]]:
        """Empty the queue; what was in it, as (id, attempt)."""
        gone = [(job_id, cursor.batch.job_options.attempt) for cursor in self for job_id in cursor.ids]
        self._clear()
        return gone


def _strike_out(line: deque[BatchCursor], wanted: set[int]) -> list[tuple[int, int]]:
    """Those of the jobs in a line that are wanted, which are taken out of it."""
    removed: list[tuple[int, int]] = []
    for _ in range(len(line)):
        cursor = line.popleft()
        hits = _hits(cursor.ids, wanted)
        if hits:
            removed += [(job_id, cursor.batch.job_options.attempt) for job_id in hits]
            line.extend(map(BatchCursor, _without(cursor.rest(), hits)))
        else:
            line.append(cursor)
    return removed


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

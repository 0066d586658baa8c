"""The jobs that wait for a worker, as runs, by priority."""

from __future__ import annotations

import sys
from bisect import insort
from collections import deque
from collections.abc import Iterable, Iterator
from itertools import groupby

from bossworker.run import Run, RunCursor

BATCH_BYTES = 1 << 20  # a batch of larger jobs is cut here


class Queue:
    """Runs by priority, first in first out; what is put back goes to the front."""

    def __init__(self) -> None:
        self._lanes: dict[int, deque[RunCursor]] = {}
        self._priorities: list[int] = []  # of the lanes, ascending
        self.jobs = 0

    def _clear(self) -> None:
        self._lanes.clear()
        self._priorities.clear()
        self.jobs = 0

    def __iter__(self) -> Iterator[RunCursor]:
        for priority in reversed(self._priorities):
            yield from self._lanes[priority]

    def _lane(self, priority: int) -> deque[RunCursor]:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = deque()
            insort(self._priorities, priority)
        return lane

    def add(self, run: Run) -> None:
        lane = self._lane(run.terms.priority)
        self.jobs += run.count
        if not (lane and lane[-1].run.join(run)):
            lane.append(RunCursor(run))

    def put_back(self, run: Run) -> None:
        self.jobs += run.count
        self._lane(run.terms.priority).appendleft(RunCursor(run))

    def cut(self, most: int) -> Run:
        """A batch of the most urgent jobs, of one run."""
        priority = self._priorities[-1]
        lane = self._lanes[priority]
        batch = lane[0].cut(most, BATCH_BYTES)
        self.jobs -= batch.count
        if not len(lane[0]):
            lane.popleft()
            if not lane:
                del self._lanes[priority]
                self._priorities.pop()
        return batch

    def remove(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Strike jobs out; those that were here, as (id, attempt)."""
        wanted = set(ids)
        removed: list[tuple[int, int]] = []
        runs = [cursor.rest() for cursor in self]
        if not any(wanted.intersection(run.ids) for run in runs):
            return removed
        self._clear()
        for run in runs:
            for piece, gone in _without(run, wanted):
                if gone:
                    removed += [(job_id, piece.terms.attempt) for job_id in piece.ids]
                else:
                    self.add(piece)
        return removed

    def drain(self) -> list[tuple[int, int]]:
        """Empty the queue; what was in it, as (id, attempt)."""
        gone = [(job_id, cursor.run.terms.attempt) for cursor in self for job_id in cursor.rest().ids]
        self._clear()
        return gone


def _without(run: Run, wanted: set[int]) -> Iterator[tuple[Run, bool]]:
    """The run in pieces, each wholly in `wanted` or wholly not."""
    cursor = RunCursor(run)
    for gone, group in groupby(run.ids, wanted.__contains__):
        yield cursor.cut(len(list(group)), sys.maxsize), gone

"""The caller's results: what has arrived, taken apart when it is asked for, each given out once."""

from __future__ import annotations

import threading
import time
from array import array
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from itertools import count, pairwise, repeat
from typing import Any

from bossworker.codec import ErrorData, describe, load_error, load_result, load_results
from bossworker.messages import KIND_BITS, Outcome, Segment
from bossworker.result import Facts, Origin, Result

Item = tuple[dict[Any, Any], Facts]
"""A result's content, and the facts about it."""

Job = Mapping[Any, Any]
_GIVEN_OUT = (Outcome.OK, Outcome.REPORTED)


class Inbox:
    """Jobs without a result, and results as they came.

    **Given out once, without a lock.** An item leaves in two neighbouring ``del`` statements: its job from `jobs`,
    itself from the head of its queue. Between them the interpreter neither switches threads nor runs signal handlers
    (it does so only at calls, jumps back and function entries), so an item is never half gone: neither Ctrl-C nor
    another thread can lose it or get it twice. Who comes second finds the job gone, and looks again.

    The same test makes all that comes before repeatable: a segment that is taken apart twice, because Ctrl-C came
    in between, yields items whose jobs are gone by then, and they are dropped.
    """

    def __init__(self) -> None:
        self.jobs: dict[int, tuple[Job, float]] = {}  # without a result given out: id -> job, queued at
        self.routed: dict[int, deque[Item]] = {}  # ids of jobs whose results go to a queue of their own
        self._segments: deque[Segment] = deque()
        self._ready: deque[Item] = deque()
        self._unpacking = threading.Lock()

    def expect(self, first_id: int, jobs: Iterable[Job]) -> None:
        """Note jobs that are about to be sent."""
        self.jobs.update(zip(count(first_id), zip(jobs, repeat(time.monotonic()))))

    def forget(self, ids: Iterable[int]) -> None:
        """Drop jobs: their results will be thrown away."""
        for job_id in ids:
            self.jobs.pop(job_id, None)
            self.routed.pop(job_id, None)

    def clear(self) -> None:
        """Drop everything."""
        self.jobs.clear()
        self.routed.clear()
        self._segments.clear()
        self._ready.clear()

    def receive(self, segments: list[Segment]) -> None:
        self._segments.extend(segments)

    @property
    def unclaimed(self) -> int:
        """Jobs whose results are nobody's in particular."""
        return len(self.jobs) - len(self.routed)

    def has_news(self, queue: deque[Item] | None = None) -> bool:
        """Whether there may be something for the common queue, or the given one."""
        return bool((self._ready if queue is None else queue) or self._segments)

    def unfinished(self) -> int:
        """Jobs of which no result has arrived."""
        here = len(self._ready) + sum(segment.jobs for segment in list(self._segments))
        queues = {id(queue): queue for queue in list(self.routed.values())}
        return len(self.jobs) - here - sum(map(len, queues.values()))

    def next(self, queue: deque[Item] | None = None) -> Result | None:
        """The next result, from the common queue or the given one; None when there is none."""
        ready = self._ready if queue is None else queue
        jobs = self.jobs
        while True:
            try:
                item = ready[0]
            except IndexError:
                if self._unpack(ready):
                    continue
                return None
            value, facts = item
            result = Result(value)
            result._facts = facts
            job_id = facts[0]
            try:
                del jobs[job_id]
                del ready[0]
            except KeyError:
                self._discard(ready, item)
                continue
            if queue is not None:
                self.routed.pop(job_id, None)
            return result

    def _discard(self, ready: deque[Item], item: Item) -> None:
        """Drop an item whose job is gone, unless another thread was quicker."""
        with self._unpacking:
            if ready and ready[0] is item and item[1][0] not in self.jobs:
                del ready[0]

    def _unpack(self, wanted: deque[Item]) -> bool:
        """Take segments apart until there is something in `wanted`; whether there is."""
        with self._unpacking:
            while not wanted and self._segments:
                items = _items(self._segments[0], self.jobs)
                if self.routed:
                    self._route(items)
                else:
                    self._ready.extend(items)
                del self._segments[0]
            return bool(wanted)

    def _route(self, items: Iterable[Item]) -> None:
        for item in items:
            self.routed.get(item[1][0], self._ready).append(item)


def _items(segment: Segment, jobs: Mapping[int, tuple[Job, float]]) -> Iterable[Item]:
    """Take a segment apart: a content and its facts for each job that still waits."""
    ids = range(segment.first_id, segment.first_id + segment.jobs)
    marks = segment.marks.cast("d").tolist()  # type: ignore[union-attr]
    entries: Iterable[Any] = map(jobs.get, ids)
    origin = Origin(segment.pid, segment.attempt, time.time() - time.monotonic())
    if segment.outcomes.tobytes() == bytes(segment.jobs):  # type: ignore[union-attr]
        values = _all_well(segment)
        if values is not None:
            return zip(
                values,
                zip(ids, entries, marks, marks[1:], repeat(origin), repeat(Outcome.OK), repeat(None)),
            )
    return [
        (value, (job_id, entry, started, finished, origin, outcome, error))
        for job_id, entry, (started, finished), (value, outcome, error) in zip(
            ids, entries, pairwise(marks), _one_by_one(segment), strict=True
        )
    ]


def _all_well(segment: Segment) -> list[dict[Any, Any]] | None:
    """All contents at one go; None when something in them does not load."""
    try:
        values = load_results(segment.payload)  # type: ignore[arg-type]
    except Exception:
        return None
    return values if len(values) == segment.jobs else None


def _one_by_one(segment: Segment) -> Iterator[tuple[dict[Any, Any], int, ErrorData | None]]:
    start = segment.base
    ends = array("Q", bytes(segment.ends))
    for outcome, end in zip(segment.outcomes, ends, strict=True):
        payload = segment.payload[start - segment.base : end - segment.base]
        start = end
        yield _content(outcome, payload)  # type: ignore[arg-type]


def _content(outcome: int, payload: memoryview) -> tuple[dict[Any, Any], int, ErrorData | None]:
    """Content, outcome and error of one job. What does not load here is a bad result."""
    kind = Outcome(outcome & KIND_BITS)
    try:
        if kind in _GIVEN_OUT:
            value = load_result(outcome, payload)
            return value, kind, _reported(value) if kind is Outcome.REPORTED else None
        error = load_error(outcome, payload)
    except Exception as problem:
        kind = Outcome.BAD_RESULT
        text = f"BossWorkerAsync: the result could not be rebuilt here: {describe(problem)}"
        error = ErrorData(text, type(problem).__name__, describe(problem), "", None, None)
    return {"ERROR": error.text}, kind, error


def _reported(value: dict[Any, Any]) -> ErrorData:
    text = str(value["ERROR"])
    return ErrorData(text, "", text, "", None, None)

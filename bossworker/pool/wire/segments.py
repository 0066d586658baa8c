"""Results on the wire: many small payloads end to end, with their sizes in columns beside them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import Struct
from typing import Any, NamedTuple

from bossworker.pool.wire.messages import MARKS, SEGMENT
from bossworker.pool.wire.parcel import Arrived, Held

END = Struct("<Q")  # an entry of the column that says where each payload ends


class Segment(NamedTuple):
    """Results of jobs with consecutive ids, from one worker, in the order they finished.

    ``marks`` holds jobs + 1 monotonic times: job *i* ran from ``marks[i]`` to ``marks[i + 1]``. ``ends[i]`` is
    where its payload ends, counted from ``base``. ``outcomes`` holds one byte per job.
    """

    first_id: int
    jobs: int
    base: int
    pid: int
    attempt: int
    marks: bytes | memoryview
    ends: bytes | memoryview
    outcomes: bytes | memoryview
    payload: bytes | memoryview
    beside: Held | Arrived | None = (
        None  # a single large result's data: in the boss a file, in the caller what was in it
    )

    def head(self) -> bytes:
        return SEGMENT.pack(self.first_id, self.jobs, self.base, len(self.payload), self.pid, self.attempt)

    def body(self) -> tuple[Any, ...]:
        return self.marks, self.ends, self.outcomes, self.payload

    @property
    def size(self) -> int:
        return 17 * self.jobs + 8 + len(self.payload)


def single(
    job_id: int,
    pid: int,
    attempt: int,
    started: float,
    finished: float,
    outcome: int,
    payload: bytes | memoryview,
    beside: Held | None = None,
) -> Segment:
    """A segment of one result."""
    return Segment(
        job_id,
        1,
        0,
        pid,
        attempt,
        MARKS.pack(started, finished),
        END.pack(len(payload)),
        bytes((outcome,)),
        payload,
        beside,
    )


def part(segment: Segment, start: int, stop: int) -> Segment:
    """The results at positions start..stop-1."""
    if stop - start == segment.jobs:
        return segment
    ends = memoryview(segment.ends).cast("B").cast("Q")
    base = ends[start - 1] if start else segment.base
    return segment._replace(
        first_id=segment.first_id + start,
        jobs=stop - start,
        base=base,
        marks=segment.marks[8 * start : 8 * (stop + 1)],
        ends=segment.ends[8 * start : 8 * stop],
        outcomes=segment.outcomes[start:stop],
        payload=segment.payload[base - segment.base : ends[stop - 1] - segment.base],
    )


def split(segment: Segment) -> list[Segment]:
    """The same results, a segment each."""
    return [part(segment, at, at + 1) for at in range(segment.jobs)]


def without(segment: Segment, positions: Iterable[int]) -> Iterator[Segment]:
    """What is left of the results, in as few pieces as can be; `positions` ascend."""
    start = 0
    for position in (*positions, segment.jobs):
        if start < position:
            yield part(segment, start, position)
        start = position + 1


def read_segments(head: memoryview, body: memoryview) -> list[Segment]:
    """Take a RESULTS frame apart, without copying."""
    segments = []
    at = 0
    for first_id, count, base, size, pid, attempt in SEGMENT.iter_unpack(head):
        marks = at + 8 * (count + 1)
        ends = marks + 8 * count
        outcomes = ends + count
        end = outcomes + size
        segments.append(
            Segment(
                first_id,
                count,
                base,
                pid,
                attempt,
                body[at:marks],
                body[marks:ends],
                body[ends:outcomes],
                body[outcomes:end],
            )
        )
        at = end
    return segments

"""Results on the wire: many small payloads end to end, with their sizes in columns beside them."""

from __future__ import annotations

from struct import Struct
from typing import Any, NamedTuple

from bossworker.pool.wire.messages import MARKS, SEGMENT
from bossworker.pool.wire.parcel import Arrived, Held

END = Struct("<Q")  # an entry of the column that says where each payload ends


class Segment(NamedTuple):
    """Results of jobs with consecutive ids, from one worker, in the order they finished.

    ``marks`` holds jobs + 1 monotonic times: job *i* ran from ``marks[i]`` to ``marks[i + 1]``. ``ends[i]`` is
    where its payload ends, counted from ``base``. ``outcomes`` holds a byte a job.
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


def split(segment: Segment) -> list[Segment]:
    """The same results, a segment each."""
    if segment.jobs == 1:
        return [segment]
    base, ends = segment.base, memoryview(segment.ends).cast("B").cast("Q").tolist()
    starts = [base, *ends]
    marks = memoryview(segment.marks).cast("B").cast("d")
    return [
        single(
            segment.first_id + i,
            segment.pid,
            segment.attempt,
            marks[i],
            marks[i + 1],
            segment.outcomes[i],
            segment.payload[starts[i] - base : end - base],
        )
        for i, end in enumerate(ends)
    ]


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

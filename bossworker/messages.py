"""The wire contract: every message between the processes of a pool. No socket in here.

A message travels as a frame (see ``link.py``): a prefix, a head of fixed layout, a body of bytes.

    caller -> boss      SUBMIT  CANCEL  RESIZE  STATS  CLOSE
    boss -> caller      READY  START_FAILED  RESULTS  REPLY  BROKEN  CLOSED
    boss -> worker      BATCH  LEAVE
    worker -> boss      UP  INIT_FAILED  DONE  SPILL
    boss -> nursery     SPAWN  KILL
    nursery -> boss     SPAWNED  SPAWN_FAILED  EXITED

Jobs travel as **blocks**, results as **segments**; both lay many small payloads end to end with their sizes in columns
beside them, so that the boss can cut, join and pass them on by slicing, and never looks inside.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Any, NamedTuple

from bossworker.parcel import Arrived, Held

VERSION = 1
PREFIX = Struct("<BBHIQ")  # version, kind, descriptors, bytes of head, bytes of body


class ProtocolError(Exception):
    """Bytes that are no frame of this version: somebody else wrote into the socket."""


class Kind(IntEnum):
    """What a frame means. A kind's number never changes its meaning within a VERSION."""

    SUBMIT = 1
    CANCEL = 2
    RESIZE = 3
    STATS = 4
    CLOSE = 5

    READY = 16
    START_FAILED = 17
    RESULTS = 18
    REPLY = 19
    BROKEN = 20
    CLOSED = 21

    BATCH = 32
    LEAVE = 33

    UP = 48
    INIT_FAILED = 49
    DONE = 50
    SPILL = 51

    SPAWN = 64
    KILL = 65

    SPAWNED = 80
    SPAWN_FAILED = 81
    EXITED = 82


class Outcome(IntEnum):
    """How a job ended: one of the first eight, with flags that say how its payload is to be read."""

    OK = 0
    EXCEPTION = 1
    TIMEOUT = 2
    CRASH = 3
    CANCELLED = 4
    BAD_RESULT = 5
    BAD_JOB = 6
    REPORTED = 7  # the handler returned an ERROR key of its own

    WHOLE = 0x10  # a pickle of its own, not one to be loaded together with its neighbours
    TEXT = 0x20  # UTF-8, written by the boss
    GIVEN = 0x80  # the payload is what the handler returned, though its kind is none of OK and REPORTED
    ELSEWHERE = 0x40  # the result travels in a SPILL frame, not in the flight recorder


KIND_BITS = 0x0F

# SUBMIT and BATCH describe a run of jobs: consecutive ids, the same options.
# first id, jobs, jobs of the first block to skip, blocks, priority, timeout (seconds), retries, attempt
RUN = Struct("<QIIIqdII")
BLOCK_COUNT = "I"  # array code of the column that counts the jobs of each block
BLOCK_SIZE = "Q"  # array code of the column with each block's bytes

# RESULTS holds segments: first id, jobs, where the first payload starts, bytes of payload, pid, attempt
SEGMENT = Struct("<QIQQII")

REQUEST = Struct("<Q")  # number of a request, which its REPLY repeats
COUNT = Struct("<I")  # RESIZE: after the request's number, how many workers
SPILL = Struct("<QB7x")  # job id, outcome; MARKS follow
SPAWN = Struct("<I")  # slot
KILL = Struct("<IIi")  # slot, pid, signal (0: the whole tree, by SIGKILL)
SPAWNED = Struct("<II")  # slot, pid
SPAWN_FAILED = Struct("<Ii")  # slot, errno
EXITED = Struct("<IIi")  # slot, pid, wait status
DONE = Struct("<B")  # 1: the worker leaves now, to be replaced


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


MARKS = Struct("<dd")
END = Struct("<Q")


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

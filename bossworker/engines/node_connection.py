"""A node's line to the boss of its part of a pool. What comes from there goes on to the program, as it is."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

from bossworker.engines.node_messages import BatchOrder
from bossworker.pool.caller.connection import Connection
from bossworker.pool.launch import Launched
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch, pack_one
from bossworker.pool.wire.frames import Frame, Part, pack
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import into_file, is_parcel, read_whole
from bossworker.pool.wire.segments import END, Segment, read_segments

MOST_LINES = 1 << 12  # messages of output that wait here for the program; then the oldest are dropped


class _NoInbox:
    """Results are kept by batches here."""

    def __init__(self) -> None:
        self.jobs: dict[int, Any] = {}
        self.output: Any = None


class NodeConnection(Connection):
    """See the module. `on_results` is called by whichever thread listens."""

    def __init__(self, launched: Launched, on_results: Callable[[list[Segment]], None]) -> None:
        super().__init__(launched, _NoInbox())  # type: ignore[arg-type]
        self._on_results = on_results
        self.lines: deque[bytes] = deque(maxlen=MOST_LINES)
        self.notes: deque[tuple[int, str]] = deque(maxlen=MOST_LINES)

    def _on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.RESULTS:
                self._on_results(_whole(read_segments(frame.head, frame.body), frame.fd))
            case Kind.OUTPUT_LINES:
                self.lines.append(bytes(frame.body))
            case Kind.NOTE:
                (level,) = messages.NOTE.unpack(frame.head)
                self.notes.append((level, str(frame.body, "utf-8", "replace")))
            case Kind.REPLY:
                (number,) = messages.REQUEST.unpack(frame.head)
                self._replies.add(number, json.loads(bytes(frame.body)))
                self.turns.wake_waiters()
            case _:
                super()._on_frame(frame)


def submit_frame(order: BatchOrder, body: memoryview) -> list[Part]:
    """Jobs for the boss. The data of a large one are in a file beside it, since they go on to a worker as they are."""
    batch = Batch.read(memoryview(order.head), body)
    if batch.count == batch.blocks == 1 and is_parcel(batch.payload):  # type: ignore[arg-type]  # as it was read
        lent = into_file(memoryview(batch.payload))
        if lent is not None:
            return pack_one(batch.first_id, batch.job_options, lent[0], lent[1:])
    return pack(Kind.SUBMIT, order.head, [body])


def _whole(segments: list[Segment], fd: int | None) -> list[Segment]:
    """Results in memory of ours; also the last one, if a file came with its data."""
    kept = [
        segment._replace(
            marks=bytes(segment.marks),
            ends=bytes(segment.ends),
            outcomes=bytes(segment.outcomes),
            payload=bytes(segment.payload),
        )
        for segment in segments
    ]
    if fd is not None:
        payload = read_whole(kept[-1].payload, fd)
        kept[-1] = kept[-1]._replace(payload=payload, base=0, ends=END.pack(len(payload)))
    return kept

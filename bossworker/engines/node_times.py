"""Results of a node have times of its monotonic clock; here they become times of ours."""

from __future__ import annotations

from array import array

from bossworker.pool.wire.segments import Segment, read_segments
from bossworker.system.wall_clock import wall_clock

ALIKE = 0.001  # seconds by which clocks may differ: those of one machine do by less


def results_of(theirs: float, head: bytes, body: bytes | memoryview) -> list[Segment]:
    """The results in a RESULTS frame of a node with that clock, with times of this machine."""
    segments = read_segments(memoryview(head), memoryview(body))
    shift = theirs - wall_clock.offset()
    return [shifted(segment, shift) for segment in segments] if abs(shift) > ALIKE else segments


def shifted(segment: Segment, seconds: float) -> Segment:
    """The same results, that many seconds later."""
    marks = array("d", [mark + seconds for mark in array("d", bytes(segment.marks))])
    return segment._replace(marks=marks.tobytes())

"""Results out of the bytes that a worker has written: many at one go where all is well, else one by one."""

from __future__ import annotations

import pickle
from array import array
from collections.abc import Iterator, Sequence
from typing import Any

from bossworker.errors import CANCELLED
from bossworker.failure import KIND_BITS, ErrorData, Outcome, capture, describe, reported
from bossworker.pool.wire.codec import load_error, load_result, load_results
from bossworker.pool.wire.parcel import Arrived
from bossworker.pool.wire.segments import Segment
from bossworker.result import Origin, Result, bare_result
from bossworker.system.compiled import core
from bossworker.system.wall_clock import wall_clock

_GIVEN_OUT = (Outcome.OK, Outcome.REPORTED)
_ORIGIN, _AT = Result.__dict__["_origin"], Result.__dict__["_at"]

# Of pickle's instructions: a result begins with the protocol and an empty dict. In its place, an empty Result is made,
# of the class that lies ready under number 255, in which no result has put anything itself.
_HEAD, _HEAD_OF_RESULT = b"\x80\x03}", b"h\xff)\x81"
_PUT_THERE = b"q\xff"
_START, _END = b"\x80\x03c%b\n%b\n" % (Result.__module__.encode(), Result.__name__.encode()) + _PUT_THERE + b"0(", b"l."


class Unpacked:
    """What is in a segment; Results are made of it once it is known whose they are."""

    __slots__ = ("_clock", "_errors", "_marks", "_outcomes", "_results", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._clock = wall_clock.offset()  # of all results alike: they keep their order
        self._marks = array("d", bytes(segment.marks))
        self._outcomes: Sequence[int] | None = None
        self._errors: Sequence[ErrorData | None] | None = None
        all_well = bytes(segment.outcomes) == bytes(segment.jobs)
        results = _loaded_at_once(segment) if all_well else None
        if results is None:
            contents, self._outcomes, self._errors = zip(*_one_by_one(segment))
            results = list(map(bare_result, contents))
        self._results = results  # with nothing but their contents

    def results(self, start: int, stop: int, jobs: Sequence[Any], queued: float | Sequence[float]) -> list[Result]:
        """Those at positions start..stop-1, of these jobs, added then."""
        segment = self.segment
        origin = Origin(
            segment.first_id + start,
            jobs,
            segment.pid,
            segment.attempt,
            self._clock,
            queued,
            self._marks[start : stop + 1],
            self._outcomes and self._outcomes[start:stop],
            self._errors and self._errors[start:stop],
        )
        results = self._results[start:stop]
        if self._errors is None:
            _attach(results, origin)
        else:
            for at, result in enumerate(results):
                result._origin, result._at = origin.alone(at), 0  # failures are what programs keep
        return results


def _attach(results: list[Result], origin: Origin) -> None:
    """Have each know what it is of."""
    if core is not None:
        core.attach(results, origin, _ORIGIN, _AT)
        return
    for at, result in enumerate(results):  # three times as fast as what itertools has
        result._origin, result._at = origin, at


def _loaded_at_once(segment: Segment) -> list[Result] | None:
    """All at one go; None when something does not load."""
    try:
        results: list[Result] | None = core.load_results(segment.payload, Result) if core is not None else None
        if results is None:
            results = _loaded(bytes(segment.payload), segment.jobs)
    except KeyboardInterrupt:
        raise
    except BaseException:  # loading may run anything, sys.exit for instance
        return None
    return results if len(results) == segment.jobs else None


def _loaded(payload: bytes, count: int) -> list[Result]:
    """By pickle, into Results rather than into dicts that they are made of, where each head is found for certain."""
    made = payload.replace(_HEAD, _HEAD_OF_RESULT)
    grown = (len(made) - len(payload)) // (len(_HEAD_OF_RESULT) - len(_HEAD))
    if grown != count or _PUT_THERE in payload:  # what stands in a text may look like one
        return list(map(bare_result, load_results(payload)))
    results: list[Result] = pickle.loads(b"".join((_START, made, _END)))
    return results


def _one_by_one(segment: Segment) -> Iterator[tuple[dict[Any, Any], int, ErrorData | None]]:
    if isinstance(segment.beside, Arrived):
        yield _content(segment.outcomes[0], segment.beside)
        return
    start = 0
    for outcome, end in zip(segment.outcomes, array("Q", bytes(segment.ends)), strict=True):
        stop = max(start, end - segment.base)  # a handler may have written over it
        payload = segment.payload[start:stop]
        start = stop
        yield _content(outcome, payload)  # type: ignore[arg-type]


def _content(outcome: int, payload: memoryview | Arrived) -> tuple[dict[Any, Any], int, ErrorData | None]:
    """Content, outcome and error of one job. What does not load here is a bad result."""
    try:
        kind = Outcome(outcome & KIND_BITS)
        if kind in _GIVEN_OUT or outcome & Outcome.GIVEN:
            value = load_result(outcome, payload)
            if kind is Outcome.CANCELLED:
                value["ERROR"] = CANCELLED
            return value, kind, None if kind is Outcome.OK else reported(value)
        error = load_error(outcome, payload)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:
        kind = Outcome.BAD_RESULT
        text = f"BossWorkerAsync: the result could not be rebuilt here: {describe(problem)}"
        error = capture(problem, skip_frames=1, text=text)
    return {"ERROR": error.text}, kind, error

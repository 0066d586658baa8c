"""Results out of the bytes that a worker has written: many at one go where all is well, else one by one."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import repeat
from typing import Any

from bossworker.errors import CANCELLED
from bossworker.failure import KIND_BITS, ErrorData, Outcome, capture, describe, reported
from bossworker.pool.wire.codec import load_error, load_result, load_results
from bossworker.pool.wire.parcel import Arrived
from bossworker.pool.wire.segments import Segment
from bossworker.result import Origin, Result
from bossworker.system.compiled import core
from bossworker.system.wall_clock import wall_clock

_GIVEN_OUT = (Outcome.OK, Outcome.REPORTED)
_new_result: Callable[[type[Result]], Result] = dict.__new__
_fill_result: Callable[[Result, Mapping[Any, Any]], None] = dict.update
_ORIGIN, _AT = Result.__dict__["_origin"], Result.__dict__["_at"]


class Unpacked:
    """What is in a segment; Results are made of it once it is known whose they are."""

    __slots__ = ("_clock", "_contents", "_errors", "_made", "_marks", "_outcomes", "segment")

    def __init__(self, segment: Segment) -> None:
        self.segment = segment
        self._clock = wall_clock.offset()  # of all results alike: they keep their order
        self._marks = array("d", bytes(segment.marks))
        self._outcomes: Sequence[int] | None = None
        self._errors: Sequence[ErrorData | None] | None = None
        self._contents: Sequence[dict[Any, Any]] = ()
        all_well = bytes(segment.outcomes) == bytes(segment.jobs)
        self._made = _made_at_once(segment) if all_well else None
        if self._made is None:
            contents = _loaded_at_once(segment) if all_well else None
            if contents is None:
                contents, self._outcomes, self._errors = zip(*_one_by_one(segment))
            self._contents = contents

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
        results = self._bare_results(start, stop)
        if self._errors is None:
            _attach(results, origin)
        else:
            for at, result in enumerate(results):
                result._origin, result._at = origin.alone(at), 0  # failures are what programs keep
        return results

    def _bare_results(self, start: int, stop: int) -> list[Result]:
        """With nothing but their contents."""
        if self._made is not None:
            return self._made[start:stop]
        contents = self._contents[start:stop]
        results: list[Result] = list(map(_new_result, repeat(Result, len(contents))))  # not by its __init__
        deque(map(_fill_result, results, contents), maxlen=0)  # a loop, without the cost of one
        return results


def _attach(results: list[Result], origin: Origin) -> None:
    """Have each know what it is of."""
    if core is not None:
        core.attach(results, origin, _ORIGIN, _AT)
    else:
        deque(map(_ORIGIN.__set__, results, repeat(origin)), maxlen=0)
        deque(map(_AT.__set__, results, range(len(results))), maxlen=0)


def _made_at_once(segment: Segment) -> list[Result] | None:
    """Results that hold plain data alone, if there is the compiled core."""
    results: list[Result] | None = core.load_results(segment.payload, Result) if core is not None else None
    return results if results is not None and len(results) == segment.jobs else None


def _loaded_at_once(segment: Segment) -> Sequence[dict[Any, Any]] | None:
    """All contents at one go; None when something does not load."""
    try:
        values = load_results(segment.payload)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        raise
    except BaseException:  # loading may run anything, sys.exit for instance
        return None
    return values if len(values) == segment.jobs else None


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

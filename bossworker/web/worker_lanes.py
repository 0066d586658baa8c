"""Which worker had which jobs when: what the timeline draws. No I/O in here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bossworker.failure import kind_of
from bossworker.pool.caller.operating import EndedStretch, name_of

FINEST = 1500  # parts of a window: what is shorter is drawn together with its neighbours
MOST_SPANS = 6000


@dataclass(slots=True)
class _Span:
    start: float
    end: float
    job_id: int
    jobs: int = 1
    failed: int = 0
    kind: str | None = None

    def told(self) -> list[Any]:
        name = name_of(self.job_id)
        return [round(self.start, 6), round(self.end, 6), name, str(self.job_id), self.jobs, self.failed, self.kind]


def lanes(stretches: Iterable[EndedStretch], since: float, until: float) -> dict[int, list[list[Any]]]:
    """By the worker's index, what it did from `since` to `until`: [start, end, name, id, jobs, failed, kind] each.

    Jobs that are too short to be seen apart are told of together. `stretches`: the newest first.
    """
    least = max(0.0, until - since) / FINEST
    spans: dict[int, list[_Span]] = {}
    count = 0
    for stretch in stretches:
        if stretch.times[-1] < since - 1.0:  # they come in about the order of their ends
            break
        if stretch.worker_pid and stretch.times[0] <= until and stretch.times[-1] >= since:
            lane = spans.setdefault(stretch.worker_index, [])
            before = len(lane)
            _lay(lane, stretch, since, until, least)
            count += len(lane) - before
            if count > MOST_SPANS:
                break
    return {index: [span.told() for span in lane[::-1]] for index, lane in sorted(spans.items())}


def _lay(lane: list[_Span], stretch: EndedStretch, since: float, until: float, least: float) -> None:
    """Backwards: the newest first."""
    times = stretch.times
    for at in range(len(stretch.outcomes) - 1, -1, -1):
        start, end = times[at], times[at + 1]
        if end < since or start > until:
            continue
        kind = kind_of(stretch.outcomes[at])
        after = lane[-1] if lane else None
        if (
            after is not None
            and end - start < least
            and after.start - end < least
            and after.end - after.start < 4 * least
        ):
            after.start, after.job_id = start, stretch.first_id + at
            after.jobs += 1
            after.failed += kind is not None
            after.kind = after.kind or kind
        else:
            lane.append(_Span(start, end, stretch.first_id + at, 1, int(kind is not None), kind))

"""All jobs of a journal as runs of ids, for a list of very many: what became of them, without looking at each."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from bossworker.journal.database import Database
from bossworker.journal.jobs_table import JobRow
from bossworker.journal.ranges import Ranges

QUEUED, RUNNING, STARTED = -1, -2, -3  # in place of an outcome; STARTED: may have run when an owner ended

Run = tuple[int, int, int, float]
"""First id, how many, an outcome (see `failure.Outcome`) or one of those above; about when they ended or were added."""


def runs(store: Database, unfinished: Iterable[tuple[JobRow, range]], running: Iterable[int]) -> list[Run]:
    """All jobs, in the order of their ids."""
    started = Ranges(store.started)
    now = Ranges(range(one, one + 1) for one in running)
    found = list(_ended(store))
    for row, ids in unfinished:
        found += (
            (one.start, len(one), code, row.added) for one, code in _cut(ids, ((started, STARTED), (now, RUNNING)))
        )
    return list(_joined(sorted(found)))


def _ended(store: Database) -> Iterator[Run]:
    for row, ended in store.results.ended_rows():
        at = 0
        while at < row.jobs:  # jobs that follow each other and ended alike
            code = row.outcomes[at]
            rest = row.outcomes[at:]
            count = len(rest) - len(rest.lstrip(row.outcomes[at : at + 1]))
            yield row.first_id + at, count, code, round(ended, 3)
            at += count


def _cut(ids: range, marked: tuple[tuple[Ranges, int], ...]) -> Iterator[tuple[range, int]]:
    """Parts of `ids`, each with the code of the first of the sets that it is in; else QUEUED."""
    if not marked:
        yield ids, QUEUED
        return
    (some, code), *others = marked
    yield from ((one, code) for one in some.within(ids.start, ids.stop))
    for left in some.missing(ids.start, ids.stop):
        yield from _cut(left, tuple(others))


def _joined(found: Iterable[Run]) -> Iterator[Run]:
    """Neighbours that are alike, within the same second, together."""
    before: Run | None = None
    for run in found:
        first, jobs, code, time = run
        if before is not None:
            if before[0] + before[1] == first and before[2] == code and int(before[3]) == int(time):
                before = (before[0], before[1] + jobs, code, max(before[3], time))
                continue
            yield before
        before = run
    if before is not None:
        yield before

"""What an earlier owner of the journal has left, on its way to the program."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

from bossworker.journal.caller_side import CallerSide
from bossworker.journal.client_table import FIRST_OF_CLIENTS
from bossworker.journal.database import Database
from bossworker.journal.ranges import Ranges
from bossworker.journal.recovery import Books
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment, part
from bossworker.result import STORED
from bossworker.system.wall_clock import wall_clock

_THEIRS = range(FIRST_OF_CLIENTS, 1 << 63)


def hand_over(store: Database, books: Books, caller: CallerSide) -> Ranges:
    """Send the jobs that an earlier owner has left: those to be run, and those with a result to be got; their ids.

    Those of clients of its doors are theirs.
    """
    wanted = Ranges(books.finished)
    for ids in (*books.retrieved, *books.forgotten, _THEIRS):
        wanted.remove(ids.start, ids.stop)
    results = wanted.copy()
    for _, ids in books.unfinished():
        wanted.add(ids.start, ids.stop)
    wanted.remove(_THEIRS.start, _THEIRS.stop)
    for row in sorted(books.rows, key=lambda row: row.first_id):
        found = wanted.within(row.ids.start, row.ids.stop)
        whole = store.jobs.filled(store.jobs.batch(row), row.seq) if found else None
        for ids in found:
            assert whole is not None
            caller.recall(whole.part(ids.start - row.first_id, ids.stop - row.first_id), row.added)
    for ids in results:
        for segment in stored_results(store, ids):
            caller.send_results([segment._replace(attempt=segment.attempt | STORED)])
    caller.send(Kind.RECALLED)
    return wanted


def stored_results(store: Database, ids: range) -> Iterator[Segment]:
    """Results of these jobs, which all have one, with their times as times of this boot's clock."""
    at = ids.start
    while at < ids.stop:
        found = store.results.segment_of(at)
        assert found is not None
        segment, clock = found
        stop = min(ids.stop, segment.first_id + segment.jobs)
        yield _of_this_boot(part(segment, at - segment.first_id, stop - segment.first_id), clock)
        at = stop


def as_stored(segment: Segment, clock: float) -> Segment:
    """Results from the database, for the program."""
    told = _of_this_boot(segment, clock)
    return told._replace(attempt=told.attempt | STORED)


def _of_this_boot(segment: Segment, clock: float) -> Segment:
    shift = clock - wall_clock.offset()
    marks = array("d", [mark + shift for mark in array("d", bytes(segment.marks))]).tobytes()
    return segment._replace(marks=marks)

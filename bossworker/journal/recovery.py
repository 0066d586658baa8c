"""What an owner of the journal has left behind: which of its jobs never started, and which may have run.

Two sources tell. The database knows which jobs were passed to the boss at all. For those, the pool's flight recorders
tell the exact truth, if they are there: see ``filed_memory.py``. They are, unless the machine was restarted. Then each
job that was passed and has no result may have run.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import NamedTuple

from bossworker.errors import INTERRUPTED
from bossworker.failure import Outcome, encode_text
from bossworker.journal.database import Database
from bossworker.journal.flight_file import FlightFile
from bossworker.journal.job_lanes import Piece, cut_out
from bossworker.journal.jobs_table import JobRow
from bossworker.journal.ranges import Ranges
from bossworker.pool.wire import messages
from bossworker.pool.wire.filed_memory import FiledMemory
from bossworker.pool.wire.segments import END, Segment, part
from bossworker.system.wall_clock import wall_clock

END_SECONDS = 2.0  # for boss and fork server to be gone, before they are killed
TICK = 0.005
RERUN = "rerun"


class Books(NamedTuple):
    """What a journal holds, by the ids of jobs."""

    rows: list[JobRow]
    finished: Ranges
    retrieved: Ranges
    """Of these, those whose results the program has got, and the journal still has;"""
    forgotten: Ranges
    """those whose results it has forgotten."""
    attempts: list[tuple[range, int]]
    """Jobs that run again, and as which attempt."""

    def unfinished(self) -> Iterator[tuple[JobRow, range]]:
        """Jobs without a result, in the order in which they were accepted."""
        for row in self.rows:
            for ids in self.finished.missing(row.ids.start, row.ids.stop):
                yield row, ids


def read_books(store: Database) -> Books:
    """All of it."""
    return Books(
        list(store.jobs.rows()),
        Ranges((*(row.ids for row in store.results.rows()), *store.forgotten)),
        Ranges(store.retrieved),
        Ranges(store.forgotten),
        list(store.reruns),
    )


# -- at the end of a session, or behind one that had none -----------------------------------------------------------


def settle(
    store: Database,
    books: Books,
    memory: FiledMemory | None,
    believed: Callable[[Segment], list[Segment]] = lambda segment: [segment],
) -> None:
    """Find out what became of the jobs that were passed to the boss, and write it down, in the open transaction.

    No process of the session is left.

    Args:
        memory: Its flight recorders; None: they are lost.
        believed: Which of some results, that are there and were not recorded, count.
    """
    horizons = store.horizons.all()
    passed = Ranges(ids for row, ids in books.unfinished() for ids in _passed(row, ids, horizons))
    if memory is not None:
        may_have_run = Ranges(memory.claimed())
        for segment in memory.published():
            for one in believed(segment):
                _record(store, books, one, passed)
        passed = Ranges(ids for one in passed for ids in may_have_run.within(one.start, one.stop))
    store.started.add(passed)
    store.horizons.clear()


def _passed(row: JobRow, ids: range, horizons: dict[tuple[int, int], tuple[int, int]]) -> list[range]:
    """Those that were passed to the boss, of jobs of a row."""
    seq, taken = horizons.get((row.priority, row.client), (0, 0))
    if row.seq < seq:
        return [ids]
    return [range(ids.start, min(ids.stop, row.first_id + taken))] if row.seq == seq else []


def _record(store: Database, books: Books, segment: Segment, passed: Ranges) -> None:
    """Results that the boss did not come to pass on."""
    for ids in passed.within(segment.first_id, segment.first_id + segment.jobs):
        store.results.add(part(segment, ids.start - segment.first_id, ids.stop - segment.first_id), wall_clock.offset())
        books.finished.add(ids.start, ids.stop)
        passed.remove(ids.start, ids.stop)


def await_end(memory: FiledMemory) -> None:
    """Wait until no job of a session can start any more, nor end: boss and fork server are gone, and so the workers."""
    deadline = time.monotonic() + END_SECONDS
    while left := memory.processes_left():
        # These are noted by pid and start time, so they are those that were meant when they were looked for; between
        # that look and the signal lies an instant.
        if time.monotonic() > deadline:
            for pid in left:
                with suppress(OSError):
                    os.kill(pid, signal.SIGKILL)
            deadline += END_SECONDS
        time.sleep(TICK)


def take_stock(store: Database) -> Books:
    """What is in the journal, with whatever an earlier owner has left undone done."""
    flights = FlightFile(store.path)
    earlier = flights.of_session(store.meta("session"))
    if earlier is not None:
        await_end(earlier)
    books = read_books(store)
    with store.transaction:
        # In one transaction with the session's name: if we are killed before it is committed, the next owner finds the
        # recorders as they are; if after, it needs them no more.
        settle(store, books, earlier)
        store.set_meta("session", "")
    if earlier is not None:
        earlier.close()
    flights.remove()
    return books


# -- at the beginning of a session ----------------------------------------------------------------------------------


def take_over(store: Database, books: Books, interrupted: str) -> Ranges:
    """Jobs that may have run end as interrupted, or (``rerun``) will run again; their ids. In the open transaction."""
    started = Ranges(ids for one in store.started for ids in books.finished.missing(one.start, one.stop))
    if interrupted == RERUN:
        again = [(ids, attempt + 1) for one in started for ids, attempt in attempts_of(books.attempts, one)]
        kept = [(ids, attempt) for one, attempt in books.attempts for ids in started.missing(one.start, one.stop)]
        books.attempts[:] = sorted(kept + again, key=lambda entry: entry[0].start)
        store.reruns.set(books.attempts)
    else:
        for one in started:
            for ids, attempt in attempts_of(books.attempts, one):
                store.results.add(ended_here(ids, attempt, Outcome.INTERRUPTED, INTERRUPTED), wall_clock.offset())
            books.finished.add(one.start, one.stop)
    _end_lost(store, books)
    store.started.set(())
    store.retrieved.set(books.retrieved)
    return started


def _end_lost(store: Database, books: Books) -> None:
    """Jobs whose files were removed, or changed, cannot be run: they end here."""
    lost = dict(store.files.lost())
    for row, ids in list(books.unfinished()) if lost else ():
        if row.seq in lost:
            text = f"BossWorkerAsync: the job is lost: {lost[row.seq]} was changed or removed"
            store.results.add(ended_here(ids, 0, Outcome.BAD_JOB, text), wall_clock.offset())
            books.finished.add(ids.start, ids.stop)


def attempts_of(attempts: list[tuple[range, int]], ids: range) -> Iterator[tuple[range, int]]:
    """These ids, by which attempt they are at."""
    at = ids.start
    for one, attempt in attempts:
        start, stop = max(one.start, ids.start), min(one.stop, ids.stop)
        if start >= stop:
            continue
        if at < start:
            yield range(at, start), 1
        yield range(start, stop), attempt
        at = stop
    if at < ids.stop:
        yield range(at, ids.stop), 1


def ended_here(ids: range, attempt: int, outcome: Outcome, error: str) -> Segment:
    """The results of jobs that the journal itself ends."""
    text, count, now = encode_text(error), len(ids), time.monotonic()
    ends = b"".join(END.pack(len(text) * n) for n in range(1, count + 1))
    marks = messages.MARK.pack(now) * (count + 1)
    return Segment(ids.start, count, 0, 0, attempt, marks, ends, bytes((outcome | Outcome.TEXT,)) * count, text * count)


def pieces(store: Database, books: Books) -> Iterator[Piece]:
    """Jobs that are to be run, in the order in which they were accepted."""
    row: JobRow | None = None
    for one, ids in books.unfinished():
        if one is not row:
            row, whole = one, store.jobs.batch(one)
        for part_ids, attempt in attempts_of(books.attempts, ids):
            (piece,) = cut_out(Piece(one.seq, 0, whole), [part_ids])
            job_options = piece.batch.job_options._replace(attempt=attempt)
            yield piece._replace(batch=piece.batch if attempt == 1 else piece.batch.with_options(job_options))

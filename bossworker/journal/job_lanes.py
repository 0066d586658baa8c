"""Jobs that are in the journal and not yet with the boss; and how many the boss may have.

Before a job is passed to the boss, it is on the disk that it is (the horizon): after a power cut, what was passed may
have run, and all that lies behind it never did. So as few are passed as keep the workers busy. A **window** for each
priority says how many the boss may have unfinished: it grows while a window's worth is done in no time, and shrinks
again. The most urgent jobs are passed first; of one priority, the program and the clients of its doors take turns, each
in the order in which its jobs were accepted. So the boss, who orders its own queue the same way, starts jobs in the
order in which it would have without a journal; and whoever adds one job does not wait for another's million.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from bossworker.journal.ranges import Ranges
from bossworker.pool.wire.batch import SUBMIT_BYTES, SUBMIT_JOBS, Batch, BatchCursor
from bossworker.pool.wire.filed_memory import MOST_PASSED
from bossworker.pool.wire.messages import CLIENT_BITS

MOST_WINDOW = MOST_PASSED // 4  # jobs; several priorities may have a window each
JOBS_A_WORKER = 4  # the least window
SHORT, LONG = 0.05, 0.4  # seconds in which a window's worth of jobs is done: below and above, it changes


class Piece(NamedTuple):
    """Jobs of a row, in order: a batch that waits, or that is passed on."""

    seq: int
    start: int  # position in the row of the first of them
    batch: Batch

    @property
    def end(self) -> int:
        return self.start + self.batch.count

    @property
    def client(self) -> int:
        """Whose they are; 0: the program's."""
        return self.batch.first_id >> CLIENT_BITS


class Window:
    """How many jobs of a priority the boss may have unfinished."""

    def __init__(self, least: int) -> None:
        self.jobs = self.least = least
        self._done = 0
        self._since = 0.0

    def begin(self, now: float) -> None:
        """The boss had none, and gets some."""
        self._done, self._since = 0, now

    def on_done(self, jobs: int, now: float) -> None:
        """Jobs have ended."""
        self._done += jobs
        if self._done >= self.jobs:
            seconds = now - self._since
            if seconds < SHORT:
                self.jobs = min(2 * self.jobs, MOST_WINDOW)
            elif seconds > LONG:
                self.jobs = max(self.least, self.jobs // 2)
            self.begin(now)


class _Lane:
    """What there is of one priority."""

    def __init__(self, least: int) -> None:
        self.lines: dict[int, deque[Piece]] = {}  # what waits, by client: the next turn first; none of them is empty
        self.passed = Ranges()
        self.window = Window(least)

    def line(self, client: int) -> deque[Piece]:
        """Where a client's jobs wait. A new one has the last turn."""
        return self.lines.setdefault(client, deque())

    def take(self, room: int) -> Iterator[Piece]:
        """At most this many jobs: as many of each client as there is room for, by turns."""
        share = max(1, room // len(self.lines)) if self.lines else 0
        while self.lines and room:
            client, line = next(iter(self.lines.items()))
            piece = _cut(line, min(share, room))
            del self.lines[client]
            if line:
                self.lines[client] = line
            room -= piece.batch.count
            yield piece

    def filter(self, left: Callable[[Piece], Iterable[Piece]]) -> None:
        """Have of each piece what is left of it."""
        kept = {client: deque(one for piece in line for one in left(piece)) for client, line in self.lines.items()}
        self.lines = {client: line for client, line in kept.items() if line}


class Lanes:
    """See the module. Decides without I/O."""

    def __init__(self, workers: int) -> None:
        self.least = JOBS_A_WORKER * workers
        self._lanes: dict[int, _Lane] = {}
        self.jobs = 0  # that wait

    def _lane(self, priority: int) -> _Lane:
        lane = self._lanes.get(priority)
        if lane is None:
            lane = self._lanes[priority] = _Lane(self.least)
            self._lanes = dict(sorted(self._lanes.items(), reverse=True))
        return lane

    def set_least(self, jobs: int) -> None:
        """Pass on this many jobs at least, if there are that many: an engine has more workers than we know of."""
        self.least = min(jobs, MOST_WINDOW)
        for lane in self._lanes.values():
            lane.window.least = self.least
            lane.window.jobs = max(lane.window.jobs, self.least)

    @property
    def passed(self) -> int:
        """How many jobs the boss has."""
        return sum(len(lane.passed) for lane in self._lanes.values())

    def is_passed(self, job_id: int) -> bool:
        """Whether the boss has this one."""
        return any(job_id in lane.passed for lane in self._lanes.values())

    def add(self, piece: Piece) -> None:
        """Jobs have been accepted."""
        if piece.batch.count:
            self._lane(piece.batch.job_options.priority).line(piece.client).append(piece)
            self.jobs += piece.batch.count

    def has_room(self) -> bool:
        """Whether something waits that may be passed to the boss."""
        return any(lane.lines and len(lane.passed) < lane.window.jobs for lane in self._lanes.values())

    def take(self, now: float) -> list[Piece]:
        """What may be passed to the boss now."""
        taken: list[Piece] = []
        for lane in self._lanes.values():
            room = max(0, lane.window.jobs - len(lane.passed))
            if lane.lines and room and not lane.passed:
                lane.window.begin(now)
            for piece in lane.take(room):
                lane.passed.add(piece.batch.first_id, piece.batch.first_id + piece.batch.count)
                taken.append(piece)
        self.jobs -= sum(piece.batch.count for piece in taken)
        return taken

    def put_back(self, pieces: list[Piece]) -> None:
        """What was taken is not passed on, after all."""
        for piece in reversed(pieces):
            lane = self._lane(piece.batch.job_options.priority)
            lane.passed.remove(piece.batch.first_id, piece.batch.first_id + piece.batch.count)
            lane.line(piece.client).appendleft(piece)
            self.jobs += piece.batch.count

    def on_done(self, ids: range, now: float) -> None:
        """Jobs that the boss had have ended."""
        for lane in self._lanes.values():
            done = sum(map(len, lane.passed.within(ids.start, ids.stop)))
            if done:
                lane.passed.remove(ids.start, ids.stop)
                lane.window.on_done(done, now)

    def remove(self, ids: Iterable[int]) -> list[tuple[int, int]]:
        """Strike jobs out that wait; those that did, as (id, attempt)."""
        wanted = set(ids)
        removed: list[tuple[int, int]] = []
        for lane in self._lanes.values():
            if any(not wanted.isdisjoint(piece.batch.ids) for line in lane.lines.values() for piece in line):
                lane.filter(lambda piece: _without(piece, wanted, removed))
        self.jobs -= len(removed)
        return removed

    def clear(self) -> None:
        """Let go of all that waits."""
        for lane in self._lanes.values():
            lane.lines.clear()
        self.jobs = 0


def _cut(waiting: deque[Piece], most: int) -> Piece:
    """At most this many jobs, from the front."""
    piece = waiting[0]
    if piece.batch.count <= most and piece.batch.count <= SUBMIT_JOBS and len(piece.batch.payload) <= SUBMIT_BYTES:
        return waiting.popleft()
    cursor = BatchCursor(piece.batch)
    first = cursor.cut(min(most, SUBMIT_JOBS), SUBMIT_BYTES)
    waiting.popleft()
    if len(cursor):
        waiting.appendleft(Piece(piece.seq, piece.start + first.count, cursor.rest()))
    return Piece(piece.seq, piece.start, first)


def _without(piece: Piece, wanted: set[int], removed: list[tuple[int, int]]) -> Iterator[Piece]:
    """What is left of a piece."""
    gone = Ranges(range(job_id, job_id + 1) for job_id in sorted(wanted.intersection(piece.batch.ids)))
    if not gone:
        yield piece
        return
    batch = piece.batch
    removed += [(job_id, batch.job_options.attempt) for ids in gone for job_id in ids]
    yield from cut_out(piece, gone.missing(batch.first_id, batch.first_id + batch.count))


def cut_out(piece: Piece, kept: Iterable[range]) -> Iterator[Piece]:
    """These ids of a piece, as pieces."""
    batch = piece.batch
    for ids in kept:
        start, stop = ids.start - batch.first_id, ids.stop - batch.first_id
        whole = len(ids) == batch.count
        yield piece if whole else Piece(piece.seq, piece.start + start, batch.part(start, stop))

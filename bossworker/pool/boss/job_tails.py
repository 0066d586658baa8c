"""What jobs have written last, with ``logs="relay"``: kept while they run, and then for a while."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from itertools import islice

from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.workers import WorkerRecord
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.recorder import Recorder

TAIL_CHARS = 1 << 16  # of one job, about
MOST_CHARS = 1 << 22  # of all jobs; beyond that, those that have ended are forgotten, the first first
MOST_TAILS = 1 << 12  # jobs; the same
LONGEST_LINE = 1 << 14  # characters of a line
LINE_CHARS = 50  # what a line takes besides its text


class JobTails:
    """See the module. A job's lines are counted from 0 on; the first of them may not be here any more."""

    def __init__(self, ledger: Ledger, recorders: Mapping[int, Recorder]) -> None:
        self._ledger = ledger
        self._recorders = recorders
        self._tails: dict[int, _Tail] = {}
        self._chars = 0

    def add(self, job_id: int, stream: int, at: float, text: str) -> None:
        """A job has written a line. (Of a log record the text is JSON.)"""
        tail = self._tails.get(job_id)
        if tail is None:
            tail = self._tails[job_id] = _Tail()
        self._chars += tail.add(stream, at, text[:LONGEST_LINE]) - tail.trim(TAIL_CHARS)
        if self._chars > MOST_CHARS or len(self._tails) > MOST_TAILS:
            self._make_room()

    def _make_room(self) -> None:
        """Half of all there may be: then this is seldom called."""
        running = {self.running_job(worker) for worker in self._ledger.busy()}
        for job_id in [job_id for job_id in self._tails if job_id not in running]:
            if self._chars <= MOST_CHARS // 2 and len(self._tails) <= MOST_TAILS // 2:
                return
            self._chars -= self._tails.pop(job_id).chars
        if self._chars > MOST_CHARS:  # very many run
            share = MOST_CHARS // 2 // len(self._tails)
            self._chars -= sum(tail.trim(share) for tail in self._tails.values())

    def running_job(self, worker: WorkerRecord) -> int | None:
        """The id of the job that a worker runs; None: it runs none."""
        with suppress(ProtocolError):  # then the worker is about to be ended
            if worker.batch is not None and (snapshot := self._recorders[worker.slot].snapshot()).running:
                return worker.batch.first_id + snapshot.claimed - 1
        return None

    def after(self, job_id: int, since: int) -> dict[str, object]:
        """What a job has written from line number `since` on, as far as it is here: stream, time, text of each.

        None of it when `since` is negative: then it is only told how much there has been.
        """
        tail = self._tails.get(job_id) or _Tail()
        first = tail.first if since > tail.next else max(since, tail.first)  # it may have been forgotten meanwhile
        first = tail.next if since < 0 else first
        return {"first": first, "next": tail.next, "lines": list(islice(tail.lines, first - tail.first, None))}


class _Tail:
    """The last lines of one job."""

    __slots__ = ("chars", "first", "lines")

    def __init__(self) -> None:
        self.lines: deque[tuple[int, float, str]] = deque()
        self.first = 0  # number of the first line that is here
        self.chars = 0

    @property
    def next(self) -> int:
        """Number of the line that will come next."""
        return self.first + len(self.lines)

    def add(self, stream: int, at: float, text: str) -> int:
        """How much larger it is now."""
        self.lines.append((stream, at, text))
        self.chars += len(text) + LINE_CHARS
        return len(text) + LINE_CHARS

    def trim(self, most: int) -> int:
        """Drop the oldest lines until no more than this is left; how much smaller it is now."""
        before = self.chars
        while self.chars > most:
            self.chars -= len(self.lines.popleft()[2]) + LINE_CHARS
            self.first += 1
        return before - self.chars

"""What the program decides about batches: what is queued, what is where, what becomes of the lost. No I/O in here."""

from __future__ import annotations

import sys
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from itertools import groupby

from bossworker.engines.batch_sizes import BatchSizes, batch_seconds
from bossworker.errors import CANCELLED
from bossworker.failure import KIND_BITS, Outcome, encode_text
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.segments import Segment, single, without

NODE_LOST = "BossWorkerAsync: node lost"
OVERDUE_BATCHES = 5  # times what a batch should take, after which idle slots get what has not begun of it
OVERDUE_SECONDS = 0.5  # at least


class Flight:
    """A batch that the engine has."""

    __slots__ = ("asked_back", "batch", "cancelled", "left", "node", "number", "sent_at", "tried_back", "waited")

    def __init__(self, number: int, batch: Batch, now: float) -> None:
        self.number = number
        self.batch = batch
        self.left: set[int] | None = None  # ids without a result; None: all of them
        self.cancelled: set[int] = set()
        self.asked_back: set[int] = set()
        self.tried_back = False  # whether we have tried to take it back, unbegun
        self.node = ""  # that has claimed it, as far as is known here
        self.sent_at = now
        self.waited = False  # whether there were jobs for it before the engine could have it

    def open_ids(self) -> Iterable[int]:
        """The jobs without a result."""
        return self.batch.ids if self.left is None else self.left

    @property
    def jobs(self) -> int:
        return self.batch.count if self.left is None else len(self.left)

    def holds(self, job_id: int) -> bool:
        return job_id in self.batch.ids and (self.left is None or job_id in self.left)

    def strike(self, ids: Iterable[int]) -> None:
        if self.left is None:
            self.left = set(self.batch.ids)
        self.left.difference_update(ids)

    def rest(self, but: Iterable[int] = ()) -> list[Batch]:
        """The jobs without a result, but for some, as batches."""
        if self.left is None and not but:
            return [self.batch]
        return list(_parts(self.batch, sorted(set(self.open_ids()).difference(but))))


class BatchBook:
    """See the module. Times are monotonic seconds; what is returned are results for the program."""

    def __init__(self) -> None:
        self.queue = Queue()
        self.flights: dict[int, Flight] = {}
        self.sizes = BatchSizes()
        self.paused = False
        self.closing = False
        self.stopping = False
        self.may_have_run: set[int] = set()  # jobs of batches that were lost with the engine
        self._next_number = 1
        self._full = False  # whether the engine had all that it could have when it was given something last
        self._ran_until: dict[str, float] = {}  # when the last job of a node's ended, as far as is known

    @property
    def through(self) -> bool:
        """Closed, and nothing is left."""
        return self.closing and not self.queue.jobs and not self.flights

    @property
    def flying(self) -> int:
        """Jobs that the engine has."""
        return sum(flight.jobs for flight in self.flights.values())

    # What watchers of a boss's ledger ask for: which worker runs what, nobody knows here.

    def busy(self) -> list[Flight]:
        return []

    @property
    def workers(self) -> dict[int, Flight]:
        return {}

    # -- batches go -------------------------------------------------------------------------------------

    def on_submit(self, batch: Batch) -> None:
        if not self.stopping:
            self.queue.add(batch)

    def cut(self, slots: int, workers: int, window: int, now: float) -> Iterator[Flight]:
        """Batches for the engine, which runs `slots` at a time and may have `window`, for `workers` each."""
        while self.queue.jobs and not self.paused and self._load(workers) < window:
            most = min(self.sizes.jobs_in_batch(workers, slots), self._share(workers, max(1, slots)))
            batch = self.queue.cut(max(1, most))
            flight = self.flights[self._next_number] = Flight(self._next_number, batch, now)
            flight.waited = self._full
            self._next_number += 1
            yield flight
        self._full = self.queue.jobs > 0 and not self.paused

    def _share(self, workers: int, slots: int) -> int:
        """How many of the queued jobs one slot should have: so many that all have some at the end, too."""
        jobs, idle = self.queue.jobs, max(1, slots - len(self.flights))
        if jobs <= idle * workers:
            return -(-jobs // idle)
        return max(workers, -(-jobs // (2 * slots)))

    def _load(self, workers: int) -> float:
        """How many batches the engine has. One with fewer jobs left than there are workers for it counts in part."""
        if workers == 1:
            return len(self.flights)
        return sum(min(1.0, flight.jobs / workers) for flight in self.flights.values())

    def less_urgent(self) -> Flight | None:
        """A batch that should make place for what is queued, if no node has begun it."""
        if not self.queue.jobs or self.paused:
            return None
        waiting = [flight for flight in self.flights.values() if not flight.node and not flight.tried_back]
        last = min(waiting, key=lambda flight: (flight.batch.job_options.priority, -flight.number), default=None)
        if last is None or last.batch.job_options.priority >= self.queue.top_priority:
            return None
        return last

    def on_claimed(self, number: int, node: str) -> None:
        """A node has it, and runs it."""
        if number in self.flights:
            self.flights[number].node = node

    # -- and come back ----------------------------------------------------------------------------------

    def on_early(self, segments: list[Segment]) -> list[Segment]:
        """Results of batches that are not through."""
        return [one for segment in segments for one in self._take_any(segment)]

    def _take_any(self, segment: Segment) -> Iterator[Segment]:
        for flight in list(self.flights.values()):
            if flight.holds(segment.first_id):  # others have given it back
                yield from self._take(flight, segment)
                return

    def on_answer(self, number: int, segments: list[Segment], node: str, reason: str, now: float) -> list[Segment]:
        """A batch is through; or, for a reason, as far as it got."""
        flight = self.flights.get(number)
        if flight is None:
            return []
        self.sizes.learn(*_work(segments))
        self._note_wait(flight, node, segments)
        if flight.left is None and not flight.asked_back and sum(one.jobs for one in segments) == flight.batch.count:
            del self.flights[number]  # the common case, without a look at each job
            return segments
        results = [one for segment in segments for one in self._take(flight, segment)]
        if flight.jobs:
            return results + self.on_lost(number, node, now, reason)
        del self.flights[number]
        return results

    def _note_wait(self, flight: Flight, node: str, segments: list[Segment]) -> None:
        """How long the node had nothing to do before this batch."""
        marks = [array("d", bytes(one.marks)) for one in segments if one.pid]
        if not marks:
            return
        started, ended = min(mark[0] for mark in marks), max(mark[-1] for mark in marks)
        before = self._ran_until.get(node)
        self._ran_until[node] = ended if before is None else max(before, ended)
        if before is not None and flight.waited:
            self.sizes.note_wait(started - before, ended - started)

    def _take(self, flight: Flight, segment: Segment) -> Iterator[Segment]:
        """Those results that are new; what a node gave back is queued again."""
        ids = range(segment.first_id, segment.first_id + segment.jobs)
        known = [at for at, job_id in enumerate(ids) if not flight.holds(job_id)] if flight.left is not None else []
        back = [at for at, job_id in enumerate(ids) if _given_back(flight, segment, at, job_id)]
        flight.strike(ids)
        for batch in _parts(flight.batch, [ids[at] for at in back]):
            self._put_back(batch)
        yield from without(segment, sorted({*known, *back}))

    def on_unstarted(self, number: int, now: float) -> list[Segment]:
        """A batch that provably never began is queued again."""
        flight = self.flights.pop(number, None)
        if flight is None:
            return []
        for batch in reversed(flight.rest(flight.cancelled)):
            self._put_back(batch)
        gone = sorted(flight.cancelled.intersection(flight.open_ids()))
        return [_cancellation(job_id, flight.batch.job_options.attempt - 1, now) for job_id in gone]

    def _put_back(self, batch: Batch) -> None:
        if not self.stopping:
            self.queue.put_back(batch)

    def on_lost(self, number: int, node: str, now: float, reason: str = "") -> list[Segment]:
        """A batch was begun, and its node is gone: each job that has no result is tried again, or has crashed."""
        flight = self.flights.pop(number, None)
        if flight is None:
            return []
        job_options = flight.batch.job_options
        ends = sorted(flight.cancelled.intersection(flight.open_ids()))
        ended = [_cancellation(job_id, job_options.attempt, now) for job_id in ends]
        if job_options.attempt <= job_options.retries:
            again = job_options._replace(attempt=job_options.attempt + 1)
            for batch in reversed(flight.rest(ends)):
                self._put_back(batch.with_options(again))
            return ended
        lost = sorted(set(flight.open_ids()).difference(ends))
        text = encode_text(f"{NODE_LOST} ({reason or node or 'which it was is not known'})")
        outcome = Outcome.CRASH | Outcome.TEXT
        return ended + [
            single(job_id, 0, job_options.attempt, min(flight.sent_at, now), now, outcome, text) for job_id in lost
        ]

    def on_nodes_gone(self, gone: set[str], now: float) -> list[Segment]:
        """Nodes have left the cluster, with all that they had."""
        lost = [flight for flight in self.flights.values() if flight.node in gone]
        for node in gone:
            self._ran_until.pop(node, None)
        return [one for flight in lost for one in self.on_lost(flight.number, flight.node, now)]

    def on_engine_gone(self, now: float) -> list[Segment]:
        """So has the engine: batches that had been claimed are lost, whatever may be tried again."""
        self.stopping = True
        results: list[Segment] = []
        for flight in list(self.flights.values()):
            if flight.node:
                self.may_have_run.update(flight.open_ids())
                results += self.on_lost(flight.number, flight.node, now)
        return results

    # -- orders -----------------------------------------------------------------------------------------

    def cancel_queued(self, ids: Iterable[int], now: float) -> list[Segment]:
        """Strike out what is queued."""
        return [_cancellation(job_id, attempt - 1, now) for job_id, attempt in self.queue.remove(ids)]

    def flights_with(self, ids: Iterable[int]) -> Iterator[tuple[Flight, set[int]]]:
        """The batches that hold some of the jobs, and which these are."""
        wanted = set(ids)
        for flight in list(self.flights.values()):
            hits = {job_id for job_id in wanted if flight.holds(job_id)}
            if hits:
                yield flight, hits

    def stop(self) -> None:
        """Drop what is queued and what still comes."""
        self.stopping = True
        self.queue.drain()

    def overdue(self, slots: int, now: float, slots_of: Callable[[str], int] = lambda node: 1) -> list[Flight]:
        """Batches whose jobs turn out to be long, while slots are idle: what has not begun of them may go elsewhere.

        So may a batch that waits on a node for the one before it.
        """
        there = Counter(flight.node for flight in self.flights.values())
        busy = sum(min(count, slots_of(node)) if node else count for node, count in there.items())
        if self.queue.jobs or busy >= slots:
            return []
        limit = max(OVERDUE_SECONDS, OVERDUE_BATCHES * batch_seconds(slots))
        late = [one for one in self.flights.values() if one.node and not one.asked_back and now - one.sent_at > limit]
        return [one for one in late if one.jobs > 1 or there[one.node] > slots_of(one.node)]

    def never_started(self, ids: Iterable[int]) -> set[int]:
        """Those of the jobs that provably never began, once the engine is gone."""
        begun = {job_id for flight in self.flights.values() for job_id in flight.open_ids()} | self.may_have_run
        return set(ids) - begun


def _given_back(flight: Flight, segment: Segment, at: int, job_id: int) -> bool:
    """Whether the node did not begin a job because we had asked for it back."""
    if not flight.asked_back or job_id not in flight.asked_back or job_id in flight.cancelled:
        return False
    return segment.pid == 0 and segment.outcomes[at] & KIND_BITS == Outcome.CANCELLED


def _parts(batch: Batch, ids: list[int]) -> Iterator[Batch]:
    """These jobs of a batch (ascending), in as few batches as can be."""
    if len(ids) == batch.count:
        yield batch
        return
    for _, group in groupby(enumerate(ids), lambda pair: pair[1] - pair[0]):
        run = [job_id for _, job_id in group]
        yield batch.part(run[0] - batch.first_id, run[-1] + 1 - batch.first_id)


def _work(segments: list[Segment]) -> tuple[int, float]:
    """How many jobs were run, and the seconds that they took together."""
    jobs, seconds = 0, 0.0
    for segment in segments:
        if segment.pid:
            marks = array("d", bytes(segment.marks))
            jobs += segment.jobs
            seconds += marks[-1] - marks[0]
    return jobs, min(seconds, sys.float_info.max)


def _cancellation(job_id: int, attempt: int, now: float) -> Segment:
    outcome = Outcome.CANCELLED | Outcome.TEXT
    return single(job_id, 0, attempt, now, now, outcome, encode_text(CANCELLED))

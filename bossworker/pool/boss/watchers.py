"""Those who watch the pool: each asks for the events behind a number, and is answered when there are some.

What the boss is not told, which job a worker is in, it reads in the recorders, and only while somebody waits for it.

An answer holds a bounded number of events, and the next one has to wait for an instant: so watchers that want all there
is to be had, of a pool that does half a million jobs a second, take little of its time. They miss the rest, and hear
how much that was.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, NamedTuple

from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.replying import Reply
from bossworker.pool.boss.workers import NEVER, WorkerRecord
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.progress import Progress, read_progress
from bossworker.pool.wire.recorder import Recorder
from bossworker.system.processes import resident_bytes
from bossworker.system.wall_clock import wall_clock
from bossworker.watch.event_records import ENDED, FROM_NOW, MEMORY, PROGRESS

PACE_SECONDS = 0.03  # between answers,
MOST_AT_ONCE = 1 << 14  # each of at most about this many events;
# and the same while jobs wait for a worker, or more than BUSY_EVENTS have come since the last answer. To read one
# takes the program 2 us, which it lacks for its results: as long as most of a job, where there are a hundred thousand a
# second. There, a few of them do.
BUSY_PACE_SECONDS, BUSY_EVENTS = 0.1, 1000
FLOOD_EVENTS = 5_000  # where that many have come since the last answer,
FLOOD_SHARE = 250  # that many of them are in it
MEMORY_SECONDS = 1.0  # between looks at the workers' memory
SAMPLE_SECONDS = 0.05  # between looks at the workers while somebody watches and nothing else happens
LINGER_SECONDS = 5.0  # after an answer, in which the pool still counts as watched: a reader may do other things


class Watcher(NamedTuple):
    """One that waits for an answer."""

    request: int
    seen: int  # the number of the last event that it has had
    reply: Reply


class Watchers:
    """See the module. Times are monotonic seconds."""

    def __init__(self, ring: EventRing, ledger: Ledger, recorders: Mapping[int, Recorder], reply: Reply) -> None:
        self.ring = ring
        self._ledger = ledger
        self._recorders = recorders
        self._reply = reply
        self.waiting: list[Watcher] = []
        self._progress: dict[int, tuple[int, Progress]] = {}  # slot -> a job, and what it said last
        self._memory_due = 0.0
        self.ever = False  # whether anybody has watched
        self.watched = False  # whether somebody waits, or has had an answer lately and may come for the next
        self._watched_until = 0.0
        self._not_before = 0.0
        self._seen_next = 0  # number of the next event, as of the last look

    def ask(self, request: int, seen: int, wait: bool, reply: Reply | None = None) -> None:
        """Somebody wants the events behind number `seen`, at once or as soon as there are some.

        `reply`: if the answer is not for the caller.
        """
        reply = reply or self._reply
        self.ever = True
        self._count_as_watched(time.monotonic())
        if not wait:
            self._sample()
            self._memory_due = 0.0
            self.note_memory(time.monotonic())
        if seen == FROM_NOW:
            seen = self.ring.next - 1
        if wait:
            self.waiting.append(Watcher(request, seen, reply))
        else:
            reply(request, self.answer(seen, self.ring.next))

    def _count_as_watched(self, now: float) -> None:
        self.watched = True
        self._watched_until = now + LINGER_SECONDS

    def seconds_until_due(self, now: float) -> float:
        """Seconds until something is due here, while it is watched."""
        if self._has_news():
            return max(0.0, self._not_before - now)
        return SAMPLE_SECONDS if self._ledger.busy() else NEVER

    def attend(self) -> None:
        """Look at the workers, and answer those for whom there is something."""
        now = time.monotonic()
        if now < self._not_before:
            return
        self.watched = bool(self.waiting) or now < self._watched_until
        self._sample()
        most, news = self._most(), self._has_news()
        if not self.waiting or news:
            self._not_before = now + (PACE_SECONDS if most == MOST_AT_ONCE else BUSY_PACE_SECONDS)
            self._seen_next = self.ring.next
        # Answered by number: what comes between this answer and the next question is in the ring, behind the number
        # that the watcher asks from.
        if news:
            self._count_as_watched(now)
            self._answer(most)

    def _most(self) -> int:
        """About how many events an answer may have now."""
        fresh = self.ring.next - self._seen_next
        if fresh > FLOOD_EVENTS:
            return FLOOD_SHARE
        return BUSY_EVENTS if self._ledger.queue.jobs or fresh > BUSY_EVENTS else MOST_AT_ONCE

    def _has_news(self) -> bool:
        return any(watcher.seen < self.ring.next - 1 for watcher in self.waiting)

    def _answer(self, most: int) -> None:
        waiting, self.waiting = self.waiting, []
        for watcher in waiting:
            if watcher.seen < self.ring.next - 1:
                watcher.reply(watcher.request, self.answer(watcher.seen, most))
            else:
                self.waiting.append(watcher)

    def answer(self, seen: int, most: int) -> dict[str, object]:
        """What a watcher gets: about `most` events at most."""
        records = self.ring.after(max(seen, self.ring.first - 1), most)
        return {
            "clock": self.offset(),
            "now": time.monotonic(),
            "first": self.ring.first,
            "next": max(seen + 1, records[-1][1] + records[-1][2] if records else self.ring.next),
            "indexes": {pid: self.ring.indexes[pid] for pid in _pids(records) if pid in self.ring.indexes},
            "records": [_without_bytes(record) for record in records],
        }

    def offset(self) -> float:
        """Unix seconds less monotonic ones: the same of an event in every answer, if it can be."""
        return wall_clock.offset()

    def farewell(self) -> dict[str, object] | None:
        """The pool is through: all that is left goes to those who wait, and for those who ask later it is returned."""
        if not self.ever:
            return None
        self._answer(self.ring.next)
        return self.answer(0, self.ring.next)

    def note_memory(self, now: float) -> None:
        """Note once a second what the workers have in memory: called when a job has run for a while."""
        if now >= self._memory_due:
            self._memory_due = now + MEMORY_SECONDS
            sizes = {one.index: resident_bytes(one.pid) for one in self._ledger.workers.values() if one.pid}
            self.ring.add(MEMORY, 0, {index: size for index, size in sizes.items() if size}, now)

    def _sample(self) -> None:
        """Note which jobs run now."""
        for worker in self._ledger.busy():
            assert worker.batch is not None
            with suppress(ProtocolError):  # then the worker is about to be ended
                snapshot = self._recorders[worker.slot].snapshot()
                if snapshot.running:
                    job_id = worker.batch.first_id + snapshot.claimed - 1
                    self.ring.started(job_id, worker.batch.job_options.attempt, worker.pid, snapshot.started)
                    self._sample_progress(worker, job_id)

    def _sample_progress(self, worker: WorkerRecord, job_id: int) -> None:
        progress = read_progress(self._recorders[worker.slot].progress, job_id)
        if progress is not None and self._progress.get(worker.slot) != (job_id, progress):
            self._progress[worker.slot] = (job_id, progress)
            self.ring.add(PROGRESS, 1, job_id, worker.pid, *progress, time.monotonic())


def _pids(records: list[tuple[Any, ...]]) -> set[int]:
    """Whatever may be a pid in these."""
    return {fact for record in records for fact in record[3:] if type(fact) is int}


def _without_bytes(record: tuple[Any, ...]) -> tuple[Any, ...]:
    if record[0] != ENDED:
        return record
    *facts, marks, outcomes = record
    return (*facts, marks.hex(), outcomes.hex())

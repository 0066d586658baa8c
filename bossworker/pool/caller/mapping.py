"""``BossWorker.map``: an iterable of jobs in, their results out, a bounded number in flight."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping
from itertools import chain
from typing import Any, NamedTuple

from bossworker.errors import PoolClosed
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.caller.sent_jobs import as_submitted
from bossworker.pool.caller.state import HandleState
from bossworker.pool.wire.batch import JobOptions
from bossworker.pool.wire.codec import Blocks
from bossworker.result import Result

MAP_FIRST = 8  # map() has this many jobs a worker in flight at first, and as many more as have come back,
MAP_JOBS = 4096  # but at most this many, or as an engine wants,
MAP_BYTES = 1 << 26  # or as many as make this much when pickled,
MAP_STEP = 512  # and adds them in steps of at most this many,
MAP_STEP_SECONDS = 0.001  # or of what the iterable gives in this many seconds


class PoolParts(NamedTuple):
    """What a map needs of a handle."""

    outbox: Outbox
    inbox: Inbox
    connection: Connection
    state: HandleState


class Map:
    """One call of ``map``: what it has in flight."""

    def __init__(
        self,
        parts: PoolParts,
        jobs: Iterator[Mapping[Any, Any]],
        job_options: JobOptions,
        ordered: bool,
        workers: int,
        add: Callable[..., None] | None = None,
    ) -> None:
        """`add` sends jobs, as ``Outbox.send``; None: it is that."""
        self.outbox, self.inbox, self.connection, self.state = parts
        self.jobs: Iterator[Mapping[Any, Any]] | None = jobs
        self.job_options = job_options
        self.ordered = ordered
        self.add = add or self.outbox.send
        self.queue = ResultQueue()  # results that have arrived,
        self.early: dict[int, Result] = {}  # and those of them that others have to be yielded before
        self.ids: deque[range] = deque()  # in order, of the jobs of which no result was yielded
        self.step = 2 * workers
        self.window = MAP_FIRST * workers  # how many may be in flight,
        self.most = MAP_JOBS  # and may ever be
        self.problems: list[Exception] = []  # why no more jobs are taken: raised after the results of those before

    def results(self) -> Generator[Result, None, None]:
        try:
            while True:
                self._feed()
                if not self.in_flight:
                    break
                yield from self._arrived()
            if self.problems:
                raise self.problems.pop()
        finally:
            try:
                self._drop()
            except BaseException:  # Ctrl-C: else its jobs would be waited for, and their results kept, for ever
                self._drop()
                raise

    def _feed(self) -> None:
        """Add jobs while there is room; stop as soon as a result is there to be yielded."""
        while self.jobs is not None and self.in_flight + self.step <= self.window:
            chunk = self._take()
            blocks = self._encode(chunk) if chunk else None
            if blocks is not None:
                ids = self.outbox.reserve(len(chunk))
                if self.ordered:
                    self.ids.append(ids)
                self.add(ids, chunk, blocks, self.job_options, self.queue)
                mean = max(1, sum(blocks.sizes) // len(chunk))
                self.most = max(2 * self.step, min(self._ceiling(), MAP_BYTES // mean))
                self.window = min(self.window, self.most)
                self.step = min(self.step * 2, MAP_STEP, max(1, self.window // 4))
            if self.queue:
                return

    @property
    def in_flight(self) -> int:
        """Jobs whose results have not been yielded."""
        return self.queue.pending + len(self.early)

    def _ceiling(self) -> int:
        return max(MAP_JOBS, self.connection.jobs_wanted)

    def _take(self) -> list[Mapping[Any, Any]]:
        """A step's worth of jobs, or what a slow iterable gives in a millisecond."""
        assert self.jobs is not None
        chunk: list[Mapping[Any, Any]] = []
        limit = time.monotonic() + MAP_STEP_SECONDS
        try:
            for job in self.jobs:
                chunk.append(as_submitted(job))
                if len(chunk) >= self.step or time.monotonic() > limit:
                    return chunk
        except Exception as problem:
            self.problems.append(problem)
        self.jobs = None
        return chunk

    def _encode(self, chunk: list[Mapping[Any, Any]]) -> Blocks | None:
        """None when one of them cannot be sent: then they are taken again, and one by one those before it are."""
        try:
            return self.outbox.encode(chunk, self.queue.sent)
        except Exception as problem:
            if len(chunk) > 1:
                self.jobs = chain(chunk, self.jobs or ())
                self.step = 1
            else:
                self.jobs = None
                self.problems.append(problem)
            return None

    def _arrived(self) -> Iterator[Result]:
        """Wait for results; those that may be yielded now."""
        inbox, line = self.inbox, self.connection
        if not line.wait_until(lambda: inbox.has_news(self.queue)):
            self.state.check_results(self.queue)
            if line.closed:
                raise PoolClosed("the pool was shut down under a map")
        inbox.fill(self.queue)
        yield from self._in_order() if self.ordered else self._as_they_come()

    def _as_they_come(self) -> Iterator[Result]:
        while self.queue:
            self.window = min(self.window + 1, self.most)
            yield self.queue.popleft()

    def _in_order(self) -> Iterator[Result]:
        """Those that follow on what was yielded last."""
        while self.queue:
            result = self.queue.popleft()
            self.window = min(self.window + 1, self.most)
            self.early[result.job_id] = result
        while self.ids:
            ids = self.ids[0]
            for job_id in ids:
                if job_id not in self.early:
                    self.ids[0] = range(job_id, ids.stop)
                    return
                yield self.early.pop(job_id)
            self.ids.popleft()

    def _drop(self) -> None:
        """Forget what is still in flight, and have it cancelled. Takes no lock: the garbage collector may call this."""
        if self.state.is_foreign():
            return
        # Closed before we ask for what is on its way: a result that comes in between goes nowhere, and its job is
        # cancelled in vain, which does no harm.
        self.inbox.close_queue(self.queue)
        if self.queue.waiting:
            self.outbox.dropped.extend(self.inbox.jobs.waited_for_in(self.queue))
            self.outbox.cancel_dropped()

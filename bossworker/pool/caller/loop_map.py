"""``map`` on an event loop: jobs are added as there is room, while results are taken."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable, Iterable, Mapping
from contextlib import aclosing, closing
from typing import Any

from bossworker.pool.caller.mapping import MAP_FIRST, MAP_JOBS
from bossworker.pool.caller.on_loop import LoopJobs, LoopPool
from bossworker.pool.caller.tickets import Ticket
from bossworker.pool.wire.batch import JobOptions
from bossworker.result import Result
from bossworker.watch.progress_bar import REPAINT_SECONDS, Tally

Jobs = Iterable[Mapping[Any, Any]] | AsyncIterable[Mapping[Any, Any]]
TURN_RESULTS = 32  # of a map that are there already, before the loop has its turn again


class LoopMap:
    """One ``map``: jobs in, as there is room, and results out."""

    def __init__(
        self, jobs: LoopJobs, pool: LoopPool, job_options: JobOptions, ordered: bool, resume: bool = False
    ) -> None:
        self._jobs = jobs
        self._resume = resume
        self._job_options = job_options
        self._ordered = ordered
        self._connection = pool._connection
        self._window = MAP_FIRST * pool._options.worker_count  # how many may be in flight
        self._flight: set[Ticket] = set()
        self._ready: deque[Ticket] = deque()  # those in flight in their order or, without one, those that are done
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._fed = False  # no more will come
        self._problem: BaseException | None = None  # raised after the last result
        self._taken = 0

    async def feed(self, source: Jobs) -> None:
        """Add jobs while there is room. A task of its own, since an async iterable may take its time."""
        take = _taker(source)
        try:
            while self._problem is None:
                while len(self._flight) >= self._window:
                    # No other task runs between the look at the window and the wait, so no room is given back unseen.
                    self._room.clear()
                    await self._room.wait()
                self._add(await take())
        except StopAsyncIteration:
            pass
        except Exception as problem:
            self._problem = self._problem or problem
        finally:
            self._fed = True
            self._changed.set()

    def _add(self, job: Mapping[Any, Any]) -> None:
        ticket = self._jobs.add(job, self._job_options, self._resume)
        self._flight.add(ticket)
        if self._ordered:
            self._ready.append(ticket)
        ticket.future.add_done_callback(lambda future: self._on_done(ticket))

    def _on_done(self, ticket: Ticket) -> None:
        if not self._ordered:
            self._ready.append(ticket)
        self._changed.set()

    async def next(self) -> Result | None:
        """The next result; None when there are no more."""
        self._taken += 1
        if not self._taken % TURN_RESULTS:
            await asyncio.sleep(0)
        while self._flight or not self._fed:
            if not self._ready or not self._ready[0].future.done():
                # The same: what is done sets it, and cannot come between the look and the wait.
                self._changed.clear()
                await self._changed.wait()
                continue
            ticket = self._ready.popleft()
            self._flight.remove(ticket)
            self._window = min(self._window + 1, max(MAP_JOBS, self._connection.jobs_wanted))
            self._room.set()
            error = ticket.future.exception()
            if error is None:
                return ticket.future.result()
            self._problem = self._problem or error  # no more are taken
            if self._ordered:
                break
        if self._problem is not None:
            raise self._problem
        return None

    def drop(self) -> None:
        """Cancel what is in flight."""
        self._jobs.drop(ticket for ticket in self._flight if not ticket.future.done())


def _taker(source: Jobs) -> Callable[[], Awaitable[Mapping[Any, Any]]]:
    """What gives the next job when it is awaited; StopAsyncIteration at the end."""
    if isinstance(source, AsyncIterable):
        return aiter(source).__anext__
    numbered = enumerate(source, 1)

    async def take() -> Mapping[Any, Any]:
        for number, job in numbered:
            if not number % TURN_RESULTS:
                await asyncio.sleep(0)
            return job
        raise StopAsyncIteration

    return take


async def with_bar(
    results: AsyncGenerator[Result, None], total: int | None, seconds: float, pool: LoopPool
) -> AsyncGenerator[Result, None]:
    """The same results, with a bar."""
    with closing(Tally(total, seconds, lambda: pool._connection.running_progress() if pool.started else ())) as tally:
        looking = asyncio.create_task(_look_again_and_again(tally))
        try:
            async with aclosing(results):
                async for result in results:
                    tally.add(result)
                    yield result
        finally:
            looking.cancel()


async def _look_again_and_again(tally: Tally) -> None:
    while tally.shown:
        tally.look()
        await asyncio.sleep(REPAINT_SECONDS)

"""``AsyncBossWorker``: a pool for programs on asyncio."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable, Mapping
from contextlib import suppress
from functools import partial
from types import EllipsisType, TracebackType
from typing import TYPE_CHECKING, Any, Generic, Self, TypeVar, Unpack

from bossworker.errors import PoolClosed, WorkerStartError
from bossworker.pool.boss.stats import Stats, stats_of
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.controls import Handler, stack_request
from bossworker.pool.caller.job_types import Answer_co, Job_contra
from bossworker.pool.caller.loop_map import TURN_RESULTS, Jobs, LoopMap, with_bar
from bossworker.pool.caller.on_loop import LoopJobs, LoopPool
from bossworker.pool.options import check_workers
from bossworker.pool.reloading import pack_renewed
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind
from bossworker.result import Result
from bossworker.system.checks import check_bool, check_seconds
from bossworker.watch.event_records import FROM_NOW
from bossworker.watch.pool_events import Event, check_since, events_left, last_number, unpack_events
from bossworker.watch.progress_bar import check_progress, length_of

if TYPE_CHECKING:
    from bossworker.pool.caller.pool_settings import PoolSettings

__all__ = ["AsyncBossWorker"]

SENT_TICK = 0.001  # seconds between looks whether all jobs have been sent, before a pool is closed

T = TypeVar("T")


class AsyncBossWorker(Generic[Job_contra, Answer_co]):
    """A `BossWorker` whose calls are awaited, and block the event loop for nothing.

    Takes the arguments of `BossWorker`, and checks them; the processes are started by ``async with``, or by the first
    call, and belong to that event loop. No thread is started for jobs. With ``max_pending``, ``run`` waits for room::

        async with AsyncBossWorker(handle, worker_count=4) as pool:
            result = await pool.run({"n": 1}, timeout=5)
            async for result in pool.map({"n": n} for n in range(100)): ...

    A ``result_handler`` is not called: whoever awaits a result can handle it.
    """

    def __init__(
        self, work_handler: Callable[[Job_contra], Answer_co | None], **settings: Unpack[PoolSettings]
    ) -> None:
        self._pool = LoopPool(work_handler, **settings)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: LoopJobs | None = None
        self._starting: asyncio.Task[LoopJobs] | None = None
        self._closed = False

    @property
    def pool(self) -> BossWorker:
        """The `BossWorker` beneath, for what is not here; its calls block. RuntimeError before it is started."""
        if not self._pool.started:
            raise RuntimeError("the pool is not started yet: enter its `async with` first")
        return self._pool

    # -- the start --------------------------------------------------------------------------------------

    async def _started(self) -> LoopJobs:
        """The pool's jobs; starts it. WorkerStartError when a worker does not come up."""
        loop = self._check_loop()
        if self._closed:
            raise PoolClosed("the pool has been shut down and takes no more work")
        if self._jobs is None:
            self._loop = loop
            if self._starting is None:
                self._starting = loop.create_task(self._start(loop))
            self._jobs = await asyncio.shield(self._starting)  # others may wait for it, too
        return self._jobs

    def _check_loop(self) -> asyncio.AbstractEventLoop:
        loop = asyncio.get_running_loop()
        if self._loop not in (None, loop):
            raise RuntimeError("this pool belongs to another event loop: use it there, or make one for this loop")
        return loop

    async def _ready(self) -> LoopJobs:
        """The same; also of a pool that has been shut down since."""
        if self._jobs is None or self._loop is not asyncio.get_running_loop():
            return await self._started()
        return self._jobs

    async def _start(self, loop: asyncio.AbstractEventLoop) -> LoopJobs:
        pool = self._pool
        if pool._options.journal:
            await _in_thread(pool.open_journal)
        if pool.start_waits:
            await _in_thread(pool.start)  # which sends the handlers to an interpreter that has yet to come up
        else:
            pool.start()  # a fork from another thread would be no quicker for the loop, and is warned of
        line = pool._connection
        jobs = LoopJobs(pool._parts(), line, loop)
        await jobs.until(lambda: (line.said.up and line.all_recalled) or bool(line.said.failure) or line.gone)
        if not line.said.up:
            reason = line.why_not_up()  # which its end takes along
            await self._end(jobs, force=True)
            raise WorkerStartError(reason)
        return jobs

    async def __aenter__(self) -> Self:
        try:
            await self._started()
        except asyncio.CancelledError:  # `__aexit__` will not be called
            if self._starting is not None:
                self._starting.cancel()
                await self._kill()
            raise
        return self

    # -- jobs -------------------------------------------------------------------------------------------

    async def run(
        self,
        job: Job_contra,
        *,
        timeout: float | None = None,
        priority: int = 0,
        retries: int | None = None,
        resume: bool = False,
    ) -> Result[Answer_co]:
        """The `Result` of a job. What went wrong with it is in there: ``raise_for_error()`` raises it.

        If the task that awaits it is cancelled, so is the job: one that is queued never runs, one that runs is stopped
        as by a timeout, and its end is awaited, for ``kill_grace`` seconds at most.

        With a journal, the job is on the disk before it runs, and its result before it is here. A job that the journal
        does not take, since the disk is full, has a result of kind ``bad_job`` that says so.

        Args and errors as for ``BossWorker.add_work``. BossDied, PoolClosed: The pool ended before the job did.
        """
        jobs = await self._ready()
        job_options = self._pool._outbox.job_options(timeout, priority, retries)
        ticket = jobs.add(job, job_options, self._pool.check_resume(resume))
        try:
            return await ticket.future
        except asyncio.CancelledError:
            await jobs.cancel(ticket)
            raise

    def map(
        self,
        jobs: Iterable[Job_contra] | AsyncIterable[Job_contra],
        *,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool | float = False,
        resume: bool = False,
    ) -> AsyncGenerator[Result[Answer_co], None]:
        """Run the jobs of an iterable, or of an async iterable, endless if you like; yield a Result a job.

        Lazy, as ``BossWorker.map``: takes from `jobs` as results are taken from it, and keeps a bounded number in
        flight. Those are cancelled when it is closed early (``aclose``, or ``contextlib.aclosing`` around it). What
        `jobs` raises is raised after the results of the jobs before.

        Args:
            ordered: Yield in the order of `jobs`; otherwise, as completed.
            timeout: Seconds each of these jobs may run; None: the pool's ``global_timeout``.
            progress: Show how far it is, as ``BossWorker.map`` does.
            resume: As of ``BossWorker.add_work``: jobs that have a good result in the journal are not run.
        """
        if not isinstance(jobs, AsyncIterable | Iterable):
            raise TypeError(f"jobs must be an iterable or an async iterable, not {type(jobs).__name__}")
        if timeout is not None:
            check_seconds("timeout", timeout)
        seconds = check_progress(progress)
        results = self._map(jobs, ordered, timeout, self._pool.check_resume(resume))
        return results if seconds is None else with_bar(results, length_of(jobs), seconds, self._pool)

    async def _map(
        self, source: Jobs, ordered: bool, timeout: float | None, resume: bool
    ) -> AsyncGenerator[Result, None]:
        jobs = await self._ready()
        flow = LoopMap(jobs, self._pool, self._pool._outbox.job_options(timeout, 0, None), ordered, resume)
        feeder = asyncio.get_running_loop().create_task(flow.feed(source))
        try:
            while (result := await flow.next()) is not None:
                yield result
        finally:
            feeder.cancel()
            flow.drop()
            await asyncio.wait([feeder])

    async def results(self) -> AsyncGenerator[Result[Answer_co], None]:
        """Results that nobody awaits, as they come, until there are no more: with a journal, those that its earlier
        owner has left, of jobs that it did not come to run, or whose results it did not come to get.

        Also those of jobs that were added to ``.pool`` by ``add_work``. What ``run`` and ``map`` give never comes here.

        BossDied, PoolClosed: The pool ended before these jobs did.
        """
        jobs, taken = await self._ready(), 0
        while (result := await jobs.next_of_nobody()) is not None:
            yield result
            taken += 1
            if not taken % TURN_RESULTS:
                await asyncio.sleep(0)

    # -- orders -----------------------------------------------------------------------------------------

    async def stats(self) -> Stats:
        """The pool at this instant. PoolClosed after ``shut_down``."""
        return stats_of(await self._ask(Kind.STATS))

    async def pause(self) -> None:
        """Start no new job from now on, as ``BossWorker.pause``."""
        await self._ask(Kind.PAUSE, messages.SWITCH.pack(True))

    async def resume(self) -> None:
        """Start jobs again."""
        await self._ask(Kind.PAUSE, messages.SWITCH.pack(False))

    async def stack(self, job_id: int | None = None) -> str:
        """What a job is doing, or all workers, as ``BossWorker.stack``."""
        text: str = (await self._ask(Kind.STACK, stack_request(job_id)))["text"]
        return text

    async def reload(
        self,
        work_handler: Callable[[Any], Mapping[Any, Any] | None] | None = None,
        *,
        init_handler: Handler | EllipsisType = ...,
        exit_handler: Handler | EllipsisType = ...,
    ) -> None:
        """Replace the workers, one by one, by such with these handlers, as ``BossWorker.reload``."""
        jobs, pool = await self._ready(), self._pool
        handlers = pool._other_handlers(work_handler, init_handler, exit_handler)
        packed = await _in_thread(partial(pack_renewed, handlers, pool._loaded))
        if self._closed:
            raise PoolClosed("the pool has been shut down")
        answer = await jobs.ask(Kind.RELOAD, body=[packed])
        if answer is None:
            raise pool._state.why_ended()
        pool._take_over(handlers, answer)

    async def resize(self, n: int) -> None:
        """Change the number of workers. Surplus workers leave when they have finished their job."""
        await self._ask(Kind.RESIZE, messages.COUNT.pack(check_workers("n", n)))

    async def events(self, since: int | None = None) -> AsyncGenerator[Event, None]:
        """What happens in the pool, as it happens: as ``BossWorker.events``, and ends with the pool.

        BossDied, after the events that have arrived: The boss has died.
        """
        number = check_since(since)
        jobs = await self._ready()
        line, seen = self._pool._connection, FROM_NOW if number is None else number
        while True:
            answer: Mapping[str, Any] | None = None
            if not (line.closed or line.gone):
                answer = await jobs.ask(Kind.EVENTS, messages.EVENTS.pack(seen, seen != FROM_NOW))
            answer = answer or events_left(line.said.last_events, seen)
            if answer is None:
                self._pool._state.check_death()
                return
            for event in unpack_events(answer, seen):
                yield event
            seen = last_number(answer)

    async def _ask(self, kind: Kind, head: bytes = b"") -> dict[str, Any]:
        jobs = await self._ready()
        if self._closed:
            raise PoolClosed("the pool has been shut down")
        answer = await jobs.ask(kind, head)
        if answer is None:
            raise self._pool._state.why_ended()
        return answer

    # -- the end ----------------------------------------------------------------------------------------

    async def shut_down(self, force: bool = False, timeout: float | None = None) -> None:
        """End the pool, as ``BossWorker.shut_down`` does. May be called again.

        In order: what was asked for is run, and whoever awaits it has its result. With ``force=True``, whoever still
        awaits one gets PoolClosed.

        Raises:
            TimeoutError: The work was not done in `timeout` seconds.
            BossDied: The boss died before it was.
        """
        check_bool("force", force)
        if timeout is not None:
            check_seconds("timeout", timeout)
        self._check_loop()
        jobs = None if self._starting is None else await self._after_start(self._starting)
        self._closed = True
        if jobs is None:
            return
        if not force:
            try:
                async with asyncio.timeout(timeout):
                    await self._wind_down(jobs)
            except TimeoutError:
                raise TimeoutError(f"the pool was not through with its work after {timeout} seconds") from None
        await self._end(jobs, force)

    async def _after_start(self, starting: asyncio.Task[LoopJobs]) -> LoopJobs | None:
        """None: it failed, which whoever wanted it has heard, or was given up."""
        await asyncio.wait([starting])
        return None if starting.cancelled() or starting.exception() else starting.result()

    async def aclose(self) -> None:
        """``shut_down()``."""
        await self.shut_down()

    async def _wind_down(self, jobs: LoopJobs) -> None:
        line = self._pool._connection
        while jobs.unsent and not line.gone:
            await asyncio.sleep(SENT_TICK)
        await _in_thread(partial(self._pool._outbox.close, None))  # another thread may be adding jobs
        await jobs.until(lambda: line.said.orderly or line.gone or line.closed)

    async def _end(self, jobs: LoopJobs, force: bool) -> None:
        """What is left to be done by a thread does not take long."""
        self._closed = True
        self._pool._connection.detach()
        try:
            await _in_thread(partial(self._pool.shut_down, force))
        finally:
            jobs.give_up()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """As ``BossWorker``: an exception stops running handlers, which have ``kill_grace`` to tidy up."""
        if kind is not None:
            await self._stop()
            return
        try:
            await self.shut_down()
        except BaseException:
            if not self._pool._state.ended:  # we are cancelled while we wait
                await self._stop()
            raise

    async def _stop(self) -> None:
        self._closed = True
        if self._jobs is not None:
            self._pool._connection.detach()
            try:
                await _in_thread(partial(self._pool.__exit__, asyncio.CancelledError, None, None))
            finally:
                self._jobs.give_up()

    async def _kill(self) -> None:
        self._closed = True
        if self._pool.started:
            self._pool._connection.detach()
            await _in_thread(partial(self._pool.shut_down, True))

    def __repr__(self) -> str:
        return f"<AsyncBossWorker, {self._pool!r}>"


# What help() and notebooks show instead of `**settings`.
AsyncBossWorker.__init__.__wrapped__ = BossWorker.__init__  # type: ignore[attr-defined]


async def _in_thread(call: Callable[[], T]) -> T:
    """Await a call that blocks, but not for long: the loop's own threads may all be in use for longer."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def end(value: T | None, error: BaseException | None) -> None:
        if future.done():  # cancelled
            return
        if error is not None:
            future.set_exception(error)
        else:
            future.set_result(value)  # type: ignore[arg-type]

    def work() -> None:
        try:
            ended = partial(end, call(), None)
        except BaseException as error:
            ended = partial(end, None, error)
        with suppress(RuntimeError):  # the loop has been closed
            loop.call_soon_threadsafe(ended)

    threading.Thread(target=work, name="bossworker aio", daemon=True).start()
    return await future

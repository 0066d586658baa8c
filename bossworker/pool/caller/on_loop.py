"""A pool on an event loop: nothing here waits, and no thread is started.

The loop's thread listens to the boss whenever the loop finds that something has arrived (another thread may listen
too: whoever takes something in tells the loop). All that there is to do, it does in slices, so that ten thousand
results that arrive at once do not keep the loop from everything else.
"""

from __future__ import annotations

import asyncio
from array import array
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice, takewhile
from typing import TYPE_CHECKING, Any

from bossworker.errors import BossDied, BossWorkerError, JournalError, PoolClosed, WorkerStartError
from bossworker.pool.caller.adding import no_journal
from bossworker.pool.caller.connection import DEATH_TICK
from bossworker.pool.caller.deferred import DeferredPool
from bossworker.pool.caller.loop_connection import LoopConnection
from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.caller.sent_jobs import as_submitted
from bossworker.pool.caller.tickets import Ticket, fail
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import JobOptions
from bossworker.pool.wire.codec import Blocks
from bossworker.pool.wire.messages import Kind
from bossworker.result import Result
from bossworker.system.checks import check_bool

if TYPE_CHECKING:
    from bossworker.pool.caller.journal_outbox import Asking, JournalOutbox

SLICE_JOBS = 64  # jobs that are sent, or results that are given out, before the loop has its turn again


class LoopPool(DeferredPool):
    """The ``BossWorker`` beneath an ``AsyncBossWorker``."""

    _connection_type = LoopConnection
    _connection: LoopConnection

    def open_journal(self) -> None:
        """Before `start`, in any thread: it takes as long as there is to be recovered. JournalInUse, JournalError."""
        self._open_journal()

    def check_resume(self, resume: bool) -> bool:
        """ValueError: There is no journal to resume from."""
        if check_bool("resume", resume) and not self._options.journal:
            raise no_journal()
        return resume

    @property
    def start_waits(self) -> bool:
        """Whether `start` may take its time, and should not be called in the loop's thread."""
        return self._options.start_method == "spawn" or self._waits_to_start

    def _check_inline(self) -> None:
        why = "an inline pool runs its jobs in the thread that waits for them, and would block the loop"
        raise ValueError(f"worker_count of an AsyncBossWorker must be at least 1, not 0: {why}")

    def __repr__(self) -> str:
        return super().__repr__().replace(type(self).__name__, "BossWorker")


class LoopJobs:
    """The jobs of a pool that an event loop waits for. Used in the loop's thread only."""

    def __init__(self, parts: PoolParts, connection: LoopConnection, loop: asyncio.AbstractEventLoop) -> None:
        self._outbox, self._inbox, _, self._state = parts
        self._connection = connection
        self._loop = loop
        self._open: dict[int, Ticket] = {}
        self._queue = ResultQueue()  # results that have arrived
        self._unsent: deque[Ticket] = deque()
        self._to_cancel: list[int] = []
        self._conditions: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []
        self._scheduled = False
        self._resumed: set[asyncio.Task[None]] = set()  # runs of jobs that the journal is being asked for
        connection.attach(loop, self._work)

    # -- what can be asked for --------------------------------------------------------------------------

    def add(self, job: Mapping[Any, Any], job_options: JobOptions, resume: bool = False) -> Ticket:
        """Send a job, with others that are added before the loop has its turn."""
        self._state.check_open()
        ticket = Ticket(as_submitted(job), job_options, self._loop.create_future(), resume)
        self._unsent.append(ticket)
        self._schedule()
        return ticket

    async def cancel(self, ticket: Ticket) -> None:
        """Cancel a job, and wait for its end; cancelled once more, no longer."""
        if not self._give_back([ticket]):
            return
        self._open[ticket.job_id] = ticket
        ticket.future = self._loop.create_future()
        with suppress(BossWorkerError):  # then it has ended, too
            await ticket.future

    def drop(self, tickets: Iterable[Ticket]) -> None:
        """Cancel jobs, and let go of their results."""
        self._inbox.forget([ticket.job_id for ticket in self._give_back(tickets)])

    def _give_back(self, tickets: Iterable[Ticket]) -> list[Ticket]:
        """Have jobs cancelled; those of them that a worker may have."""
        sent = []
        for ticket in tickets:
            ticket.future.cancel()
            if self._open.pop(ticket.job_id, None) is not None:
                sent.append(ticket)
            ticket.withdrawn, ticket.job = True, {}
        self._to_cancel += [ticket.job_id for ticket in sent]
        self._schedule()
        return sent

    async def ask(self, kind: Kind, head: bytes = b"", body: Sequence[bytes] = ()) -> dict[str, Any] | None:
        """The boss's answer to a request; None when it is gone."""
        line = self._connection
        number = line.ask(kind, head, body)
        try:
            await self.until(lambda: line.answered(number) or line.gone or line.closed)
        except asyncio.CancelledError:
            line.disown(number)
            raise
        return line.answer(number)

    async def until(self, condition: Callable[[], bool]) -> None:
        """Wait until something arrives that makes a condition true."""
        if not condition():
            future = self._loop.create_future()
            self._conditions.append((condition, future))
            await future

    async def next_of_nobody(self) -> Result | None:
        """The next result that no ticket waits for; None when there will be none. BossDied, PoolClosed."""
        inbox, line = self._inbox, self._connection
        while (result := inbox.next()) is None:
            if inbox.outstanding <= 0:
                line.poll()  # of jobs that a journal's `retry` has added, the line may have to tell us yet
            if inbox.outstanding <= 0:
                return None
            if line.gone or line.closed:
                raise self._state.why_ended()
            await self.until(lambda: inbox.has_news() or inbox.outstanding <= 0)
        line.on_given_out()
        return result

    @property
    def unsent(self) -> bool:
        """Whether jobs wait to be sent."""
        return bool(self._unsent or self._resumed)

    def give_up(self) -> None:
        """Once the pool has ended, and all that it sent is here: those that are left will never have results."""
        while self._settle():
            pass
        left = [*self._open.values(), *(ticket for ticket in self._unsent if not ticket.withdrawn)]
        self._open.clear()
        self._unsent.clear()
        if left:
            fail(left, self._state.why_ended())
            self._inbox.forget([ticket.job_id for ticket in left])
        self._look_at_conditions(all_of_them=True)

    # -- slices -----------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._work)

    def _work(self) -> None:
        """A slice of all that there is to do."""
        # Before the work: what is asked for while it is done is scheduled anew, and not taken for seen to.
        self._scheduled = False
        try:
            self._do_slice()
        except BaseException:  # by a signal handler: the rest is to be done all the same
            self._loop.call_later(DEATH_TICK, self._work)
            raise

    def _do_slice(self) -> None:
        more = self._settle()
        more |= self._send()
        self._send_cancels()
        self._look_at_conditions()
        if more:
            self._schedule()
        elif self._connection.gone or self._connection.closed:
            self.give_up()

    def _settle(self) -> bool:
        """Give out results; whether there are more."""
        inbox, queue = self._inbox, self._queue
        if not inbox.fill(queue):
            return False
        for _ in range(min(SLICE_JOBS, len(queue))):
            # Other threads add to this queue, at its other end; only the loop's thread takes from it.
            result = queue[0]  # until it is given out: a signal handler may raise in between
            ticket = self._open.get(result.job_id)
            if ticket is not None and not ticket.future.done():
                ticket.future.set_result(result)
            self._open.pop(result.job_id, None)
            queue.popleft()
        return inbox.has_news(queue)

    def _send(self) -> bool:
        """Send jobs; whether there are more for which there is room."""
        if not self._unsent:
            return False
        if self._connection.link.unsent:
            # The boss takes no more now; or another thread is at it, and would not tell us when it is through.
            # It may have been sent between that look and here: then the socket takes more at once, and we are called
            # again.
            self._connection.send_rest()
            return False
        if (room := self._outbox.room()) <= 0:
            return False
        run = self._next_run(min(SLICE_JOBS, room))
        # Those that have an id were sent when we were interrupted.
        if left := [ticket for ticket in run if not (ticket.withdrawn or ticket.job_id)]:
            self._send_run(left)
        for _ in run:
            self._unsent.popleft()
        return bool(self._unsent)

    def _next_run(self, most: int) -> list[Ticket]:
        """The first of them, as many as have the same options."""
        first = self._unsent[0]
        alike = takewhile(lambda one: (one.job_options, one.resume) == (first.job_options, first.resume), self._unsent)
        return list(islice(alike, most))

    def _send_run(self, run: list[Ticket]) -> None:
        jobs = [ticket.job for ticket in run]
        try:
            blocks = self._outbox.encode(jobs)
        except Exception as error:
            self._on_wrong_job(run, error)
            return
        try:
            ids = self._outbox.reserve(len(run))
            if run[0].resume:
                self._begin_resuming(run, ids, jobs, blocks)
                return
            self._open_tickets(run, ids)
            self._outbox.send(ids, jobs, blocks, run[0].job_options, self._queue)
        except (PoolClosed, BossDied, WorkerStartError, JournalError) as error:
            fail(run, error)
        except BaseException:  # by a signal handler
            self._recall(run)
            raise

    def _recall(self, run: list[Ticket]) -> None:
        """Those that were not sent after all may be sent again."""
        for ticket in run:
            # Known jobs have gone out, or will: they keep their ids, and their results find their tickets.
            if not self._inbox.jobs.knows(ticket.job_id):
                self._open.pop(ticket.job_id, None)
                ticket.job_id = 0

    def _on_wrong_job(self, run: list[Ticket], error: Exception) -> None:
        if len(run) == 1:
            fail(run, error)
            return
        for ticket in run:  # one of them cannot be pickled, or has no key
            self._send_run([ticket])

    def _open_tickets(self, run: list[Ticket], ids: range) -> None:
        for job_id, ticket in zip(ids, run):
            ticket.job_id = job_id
            self._open[job_id] = ticket

    # -- jobs that may be in the journal already --------------------------------------------------------

    def _begin_resuming(self, run: list[Ticket], ids: range, jobs: list[Mapping[Any, Any]], blocks: Blocks) -> None:
        """A task of its own asks the journal, which takes a while."""
        outbox: JournalOutbox = self._outbox  # type: ignore[assignment]
        steps = outbox.resuming(ids, jobs, blocks, run[0].job_options, self._queue)
        try:
            first = next(steps)
        except TypeError as error:
            self._on_wrong_job(run, error)
            return
        self._open_tickets(run, ids)
        task = self._loop.create_task(self._resume(run, steps, first))
        self._resumed.add(task)
        task.add_done_callback(self._resumed.discard)

    async def _resume(self, run: list[Ticket], steps: Asking, question: tuple[Kind, bytes, list[bytes]]) -> None:
        try:
            with suppress(StopIteration):
                while True:
                    answer = await self.ask(*question)
                    question = steps.send(answer) if answer is not None else steps.throw(self._state.why_ended())
        except BossWorkerError as error:
            for ticket in run:
                self._open.pop(ticket.job_id, None)
            fail(run, error)
        # Whoever was cancelled meanwhile was so before there was a job to be cancelled.
        self._to_cancel += [ticket.job_id for ticket in run if ticket.withdrawn]
        self._schedule()

    def _send_cancels(self) -> None:
        if self._to_cancel and not self._connection.gone:
            ids, self._to_cancel = array("Q", self._to_cancel).tobytes(), []
            self._connection.send(Kind.CANCEL, messages.REQUEST.pack(0), [ids])

    def _look_at_conditions(self, all_of_them: bool = False) -> None:
        for entry in list(self._conditions):
            condition, future = entry
            if future.done() or all_of_them or condition():
                self._conditions.remove(entry)
                if not future.done():
                    future.set_result(None)

"""Calls of functions as jobs of a pool: their futures, and the outbox that collects them.

**The outbox.** A frame and a system call for each call would cost more than the call. So while a worker may be idle, a
call is sent at once; otherwise calls are collected, and sent together: by the thread that adds the next one, when there
are many or the last ones left a millisecond ago; by the thread that waits for one of them; or by the attendant, a
millisecond after it was called. Nobody waits longer for that, as the workers have other calls to run meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any

from bossworker.errors import BossDied, PoolClosed, WorkerStartError
from bossworker.function_calls import ARGUMENTS, FUNCTION, KEYWORDS, VALUE, Function, FunctionCall, name_of
from bossworker.pickling import dumps
from bossworker.pool.caller.call_errors import broken, error_of
from bossworker.pool.caller.futures import OpenFutures
from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.caller.pool_future import CANCELLED, ENDED, FINISHED, PENDING, PoolFuture
from bossworker.pool.wire.batch import JobOptions
from bossworker.pool.wire.codec import Blocks
from bossworker.result import Result

COLLECT_CALLS = 128  # this many are sent together,
COLLECT_SECONDS = 0.001  # or as many as there are after this
LOOK_SECONDS = 0.05  # between looks at what has arrived that nobody waits for
BUSY_CALLS = 2  # to a worker, from which on it is not idle while others are collected

Job = dict[str, Any]


class CallFuture(PoolFuture[Any]):
    """The future of one call, from ``Executor.submit``. Its ``result()`` is what the function returned, or raises."""

    _failure: Result | None = None  # while nobody has asked for its exception

    def _take_in(self, result: Result) -> str:
        if result.ok:
            self._result = result.get(VALUE)
        elif result.error_kind == "cancelled":
            return CANCELLED
        else:
            self._failure = result
        return FINISHED

    def result(self, timeout: float | None = None) -> Any:
        """What the function returned, or raises; as long as it takes, or ``TimeoutError`` after that many seconds."""
        try:
            if self._state not in ENDED:
                self._book.wait_for(self, timeout)
            if self._state == FINISHED and self._failure is None and self._exception is None:
                return self._result
            return super().result(timeout)
        finally:
            del self  # an error's traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as ``result`` does, and return what it would raise; None if it would return."""
        super().exception(timeout)
        failure = self._failure
        if failure is not None and self._exception is None:
            self._exception = error_of(failure)
        self._failure = None
        return self._exception

    def __repr__(self) -> str:
        if self._failure is not None:
            self.exception()  # so that it is shown
        return super().__repr__()

    def _how(self) -> str:
        return "add_exception" if self._failure is not None else super()._how()


_Call = tuple[CallFuture, Job]


class CallFutures(OpenFutures):
    """The calls of a pool that are not done, and those that are not sent yet. See the module."""

    def __init__(self, parts: PoolParts, workers: int, plain: bool) -> None:
        """
        Args:
            workers: How many calls run at once.
            plain: Whether the pool's handler is ``run_call``; another pool has to be told that a job is a call.
        """
        super().__init__(parts)
        self.parts = parts
        self.closing = False
        self._busy = BUSY_CALLS * workers
        self._plain = plain
        self._last_name: tuple[Function, str] | tuple[None, None] = (None, None)
        self._unsent: deque[tuple[CallFuture, Job, JobOptions]] = deque()
        self._sending = threading.RLock()
        self._sent_at = 0.0  # monotonic seconds

    @property
    def unsent(self) -> bool:
        """Whether any calls are collected now."""
        return bool(self._unsent)

    # -- calls in ---------------------------------------------------------------------------------------

    def job(self, function: Function, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Job:
        """A call as a job."""
        job: Job = {FUNCTION: self._name(function) or function, ARGUMENTS: args}
        if kwargs:
            job[KEYWORDS] = kwargs
        return job if self._plain else FunctionCall(job)

    def jobs(self, function: Function, calls: Iterable[tuple[Any, ...]]) -> Iterator[Job]:
        """Many calls of a function, which is pickled once for all of them; their arguments."""
        travels = self._name(function) or dumps(function, self._outbox.by_value)
        jobs = ({FUNCTION: travels, ARGUMENTS: args} for args in calls)
        return jobs if self._plain else map(FunctionCall, jobs)

    def _name(self, function: Function) -> str | None:
        last, name = self._last_name
        if last is not function:
            name = name_of(function, self._outbox.definitions)
            if name is not None:  # others are not kept alive
                self._last_name = (function, name)
        return name

    def add(self, job: Job, job_options: JobOptions) -> CallFuture:
        """A call's future; it is sent now or soon. RuntimeError once no more are taken."""
        self.check_open()
        future = CallFuture(self)
        try:
            # The attendant may leave just after this look. Then nobody looks for the call's result but whoever asks for
            # it, which starts another one.
            if not self._unsent and len(self.open) < self._busy and self._attendant is not None:
                return self._add_at_once(future, job, job_options)
            return self._collect(future, job, job_options)
        except BaseException:
            self._withdraw(future)
            raise

    def _collect(self, future: CallFuture, job: Job, job_options: JobOptions) -> CallFuture:
        """Put it with the others that are collected, and see to it that they are sent."""
        with self.lock:
            # `close_entry` sets this under the lock, and sends what is collected after it: so a call that gets in here
            # is sent or cancelled by it.
            if self.closing:  # since we looked
                self.check_open()
            self._unsent.append((future, job, job_options))
            waiting = len(self._unsent)
            if self._attendant is None:
                self._attend()
        if len(self.open) < self._busy or waiting >= COLLECT_CALLS or self._is_time():
            self.flush()
        elif waiting == 1:
            self._needed.wake()
            if self._watched:  # then the attendant listens
                self._connection.wake()
        return future

    def _add_at_once(self, future: CallFuture, job: Job, job_options: JobOptions) -> CallFuture:
        """The same where a worker may be idle and nothing is collected: the short way."""
        with self._sending:
            if self.closing:  # since we looked: what is sent from now on may not be cancelled
                self.check_open()
            self._send_one(future, job, job_options)
            self._sent_at = time.monotonic()
        return future

    def _withdraw(self, future: CallFuture) -> None:
        """Nobody gets it: we were interrupted (Ctrl-C). A call that is still here must not be made by a later flush.

        (Another thread may be sending it; then it looks at the state once more, after that.)
        """
        with self.lock:
            # It may be among those that another thread sends at this moment; that one looks at the state once it has
            # sent them.
            if not future.job_id and future._state == PENDING:
                future._state = CANCELLED

    def check_open(self) -> None:
        line, state = self._connection, self._state
        if self.closing or state.closing:
            raise RuntimeError("cannot schedule new futures after shutdown")
        if state.foreign:
            raise RuntimeError("this executor belongs to the process that this one was forked from")
        if line.gone or (line.said.failure and not line.said.up):
            raise self._why()

    def _is_time(self) -> bool:
        return time.monotonic() - self._sent_at > COLLECT_SECONDS

    def flush(self) -> None:
        """Send what has been collected. Interrupted (Ctrl-C), it leaves the rest to the next."""
        with self._sending:
            self._send_all()
        if len(self.open) > COLLECT_CALLS:
            self.look()

    def _send_all(self) -> None:
        while run := self._next_run():
            # Those that were sent are still here if we were interrupted since.
            self._send([(future, job) for future, job, _ in run if not future.job_id], run[0][2])
            for entry in run:
                if self._unsent and self._unsent[0] is entry:  # a signal handler may have ended the pool meanwhile
                    self._unsent.popleft()
        self._sent_at = time.monotonic()

    def _next_run(self) -> list[tuple[CallFuture, Job, JobOptions]]:
        """The first of them, as many as have the same options."""
        run: list[tuple[CallFuture, Job, JobOptions]] = []
        for n in range(min(len(self._unsent), COLLECT_CALLS)):
            entry = self._unsent[n]
            if run and entry[2] != run[0][2]:
                break
            run.append(entry)
        return run

    def _send(self, calls: list[_Call], job_options: JobOptions) -> None:
        calls = [(future, job) for future, job in calls if future._state == PENDING]
        if len(calls) < 2:
            for future, job in calls:
                self._send_one(future, job, job_options)
            return
        try:
            blocks = self._outbox.encode([job for _, job in calls])
        except BaseException:
            good = self._picklable(calls)
            if len(good) == len(calls):  # it was not their pickling that raised, but a signal handler
                raise
            self._send(good, job_options)
            return
        try:
            self._send_encoded(calls, blocks, job_options)
        except (PoolClosed, BossDied, WorkerStartError) as error:
            self._fail_unsent(calls, broken(error))
        self._stop_cancelled(calls)

    def _send_one(self, future: CallFuture, job: Job, job_options: JobOptions) -> None:
        """The short way for programs that make one call at a time."""
        call = [(future, job)]
        try:
            self._outbox.add_one(job, job_options, self._queue, partial(self.admit, future))
        except (PoolClosed, BossDied, WorkerStartError) as error:
            self._recall(call)
            self._fail_unsent(call, broken(error))
        except BaseException:
            self._recall(call)
            if self._picklable(call):
                raise
        if future._state == CANCELLED:
            self._stop_cancelled(call)

    def _picklable(self, calls: list[_Call]) -> list[_Call]:
        """Fail those that cannot be pickled, with what their pickling raised."""
        good = []
        for future, job in calls:
            try:
                self._outbox.encode([job])
            except KeyboardInterrupt:
                raise
            except BaseException as error:  # sys.exit, for one
                self._fail_unsent([(future, job)], error.__cause__ or error)
            else:
                good.append((future, job))
        return good

    def _send_encoded(self, calls: list[_Call], blocks: Blocks, job_options: JobOptions) -> None:
        ids = self._outbox.reserve(len(calls))
        try:
            with self.lock:
                for job_id, (future, _) in zip(ids, calls):
                    self.admit(future, job_id)
            self._outbox.send(ids, [job for _, job in calls], blocks, job_options, self._queue)
        except BaseException:
            self._recall(calls)
            raise

    def _stop_cancelled(self, calls: list[_Call]) -> None:
        """Those that were cancelled while we sent them: the order to stop may have been sent before the call."""
        for future, _ in calls:
            if future._state == CANCELLED and future.job_id:
                self.open.pop(future.job_id, None)
                self._inbox.forget((future.job_id,))
                self._stop_job(future)

    def _recall(self, calls: list[_Call]) -> None:
        """Those that were not sent after all may be sent again."""
        with self.lock:
            for future, _ in calls:
                self._recall_one(future)

    def _recall_one(self, future: CallFuture) -> None:
        # What has gone out in spite of the interruption has an id for good; and one that was cancelled meanwhile must
        # not be sent again.
        if not self._inbox.jobs.knows(future.job_id) and future._state == PENDING:
            self.open.pop(future.job_id, None)
            future.job_id = 0

    def _fail_unsent(self, calls: list[_Call], error: BaseException) -> None:
        with self.lock:
            for future, _ in calls:
                self._fail_if_unsent(future, error)
        self._connection.wake()

    def _fail_if_unsent(self, future: CallFuture, error: BaseException) -> None:
        if not future.job_id:
            self._fail(future, error)

    # -- results out ------------------------------------------------------------------------------------

    def wait_for(self, future: PoolFuture[Any], timeout: float | None) -> None:
        if not future.job_id:
            self.flush()
        super().wait_for(future, timeout)

    def _why(self) -> Exception:
        return broken(super()._why())

    # -- the end ----------------------------------------------------------------------------------------

    def close_entry(self, cancel: bool) -> None:
        """Take no more calls; send, or cancel, those that were collected. `cancel`: also those that no worker has."""
        with self.lock:
            self.closing = True
        if cancel:
            for future, _, _ in list(self._unsent):
                # Another thread may be sending it: it stays in the list until it is sent, and is stopped then.
                future.cancel()
        self.flush()

    def close(self) -> None:
        self.closing = True
        self.flush()
        super().close()

    def disown(self) -> None:
        super().disown()
        self._sending = threading.RLock()

    # -- the attendant ----------------------------------------------------------------------------------

    def _is_idle(self) -> bool:
        return not (self.open or self._unsent) and super()._is_idle()

    def _has_business(self) -> bool:
        return bool(self._unsent) or super()._has_business()

    def _do_business(self) -> None:
        if self._watched:
            super()._do_business()
        elif not self._unsent:  # nobody waits, or whoever does listens: what is forgotten is freed all the same
            self._needed.wait(LOOK_SECONDS)
            self.look()
        else:
            time.sleep(COLLECT_SECONDS)
        self.flush()

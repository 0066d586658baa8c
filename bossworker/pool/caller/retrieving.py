"""Results out: the part of a `BossWorker` that gives them out."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from itertools import chain
from typing import TYPE_CHECKING, Any, Generic, Literal, overload

from bossworker.errors import NothingPending, PoolClosed, ResultHandlerError
from bossworker.pool.caller.connection import Connection
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.job_types import Answer_co, Job_contra
from bossworker.pool.caller.mapping import Map, PoolParts
from bossworker.pool.caller.outbox import Outbox
from bossworker.pool.caller.state import HandleState
from bossworker.pool.options import Options
from bossworker.pool.wire.codec import type_phrase
from bossworker.result import Result, make_result
from bossworker.system.checks import check_bool, check_seconds
from bossworker.watch.progress_bar import check_progress, length_of, with_bar

if TYPE_CHECKING:
    from bossworker.pool.caller.futures import OpenFutures
    from bossworker.pool.caller.journal_outbox import JournalOutbox


class PoolResults(Generic[Job_contra, Answer_co]):
    """See the module."""

    _connection: Connection
    _inbox: Inbox
    _state: HandleState
    _outbox: Outbox
    _options: Options
    _books: list[OpenFutures]
    _waiters: Any  # threads that wait for the one that listens
    _result_handler: Callable[[Result[Answer_co]], Mapping[Any, Any] | None] | None

    def _parts(self) -> PoolParts:
        raise NotImplementedError

    def _journal_outbox(self) -> JournalOutbox:
        raise NotImplementedError

    def pending(self) -> int:
        """How many jobs were added whose results have not been retrieved. Truthy while there are any.

        A job of ``submit`` counts until its future is done.
        """
        if self._state.foreign:
            self._state.check_owner()
        if self._books:
            for book in self._books:
                book.look(glance=True)
        pending = self._inbox.pending()
        return self._inbox.pending() if not pending and self._is_any_outstanding() else pending

    @overload
    def get_result(self, blocking: Literal[True] = True, timeout: None = None) -> Result[Answer_co]: ...

    @overload
    def get_result(self, blocking: bool = True, timeout: float | None = None) -> Result[Answer_co] | None: ...

    def get_result(self, blocking: bool = True, timeout: float | None = None) -> Result[Answer_co] | None:
        """The next finished job's result, in order of completion.

        Args:
            blocking: Wait for one. Otherwise, None when none is ready.
            timeout: Wait for at most this many seconds; then None.

        Raises:
            NothingPending: Blocking, with no job outstanding.
            ResultHandlerError: The ``result_handler`` raised; ``.result`` is what it was given.
            BossDied: The boss is gone, and every result that it sent has been retrieved.
        """
        try:
            for result in self._inbox.pops:  # noqa: B007 - as in `Inbox.next`, without that call
                break
        except IndexError:
            result = None
        if result is None:
            result = self._await_result(blocking, timeout)
            if result is None:
                return None
        try:  # here, not in what is called: a signal handler may run before its first line
            if self._state.tells_others or self._waiters:
                self._tell_others()
            return result if self._result_handler is None else self._handle(result)
        except ResultHandlerError:
            raise
        except BaseException:  # Ctrl-C: as if it had not been asked for
            # It is the next one again. Meanwhile another thread may have found nothing, and have fallen asleep over it:
            # so those that wait are woken, too.
            self._inbox.ready.appendleft(result)
            self._connection.tell_of_news()
            raise

    def get_result_nb(self) -> Result[Answer_co] | None:
        """``get_result(blocking=False)``."""
        return self.get_result(blocking=False)

    def results(self, *, progress: bool | float = False) -> Iterator[Result[Answer_co]]:
        """Results as they come, until nothing is pending. `progress`: with a bar, as of ``map``."""
        seconds = check_progress(progress)
        if seconds is None:
            return self._results()
        return with_bar(self._results(), self._inbox.outstanding, seconds, self._connection)

    def _is_any_outstanding(self) -> bool:
        """Whether there are jobs whose results are nobody's in particular.

        Of those that a journal's `retry` has added, the line may have to tell us yet.
        """
        if self._inbox.outstanding <= 0 and self._options.journal and not self._state.ended:
            self._connection.glance()
        return self._inbox.outstanding > 0

    def _results(self) -> Iterator[Result[Answer_co]]:
        """(A generator that yields from another costs each result as much again as a chain of them does.)"""
        return chain.from_iterable(self._stretches())

    def _stretches(self) -> Iterator[Iterable[Result[Answer_co]]]:
        while self._is_any_outstanding():
            try:
                result = self.get_result()
            except NothingPending:  # another thread took the last one
                return
            if result is not None:
                yield (result,)
            if self._result_handler is None:
                yield self._those_here()
        self._state.check_owner()

    def _those_here(self) -> Iterator[Result[Answer_co]]:
        """Results that need not be waited for, or taken apart first: as from `get_result`, without its calls."""
        state = self._state
        try:
            for result in self._inbox.pops:
                try:
                    if state.tells_others or self._waiters:
                        self._tell_others()
                    elif state.foreign:  # forked since the last one
                        state.check_owner()
                except BaseException:  # Ctrl-C
                    self._inbox.ready.appendleft(result)
                    self._connection.tell_of_news()
                    raise
                yield result
        except IndexError:
            return

    def _await_result(self, blocking: bool, timeout: float | None) -> Result | None:
        self._state.check_owner()
        inbox, line = self._inbox, self._connection
        if timeout is not None:
            timeout = check_seconds("timeout", timeout)
        if not blocking:
            line.poll()
            result = inbox.next()
            if result is None:
                self._state.check_results()
                self._tell_others()
            return result
        deadline = None if timeout is None else time.monotonic() + timeout
        while (result := inbox.next()) is None:
            if not self._is_any_outstanding():
                raise NothingPending("no job is outstanding: add_work first, or ask without blocking")
            # Another thread may take what we have waited for: so the loop asks again, and only what `next` gives is
            # ours.
            if not line.wait_until(self._has_news, deadline):
                self._state.check_results()
                return inbox.next()
        return result

    def _has_news(self) -> bool:
        return self._inbox.has_news() or self._inbox.outstanding <= 0

    def _tell_others(self) -> None:
        """Keep fileno() readable while results wait here; let threads go that wait for nothing any more."""
        if self._state.fileno_used:
            self._connection.show_readiness(self._inbox.has_news)
        if self._inbox.outstanding <= 0:
            self._connection.wake()
        self._connection.on_given_out()

    def _handle(self, result: Result) -> Result:
        assert self._result_handler is not None
        try:
            handled = self._result_handler(result)
            if handled is result:
                return result
            if not isinstance(handled, Mapping | None):
                raise TypeError(f"it returned {type_phrase(handled)}, not a mapping or None")
            return make_result(handled or {}, result._origin, result._at)
        except Exception as error:
            text = f"result_handler failed on job {result.job_id}: {type(error).__name__}: {error}"
            raise ResultHandlerError(text, result) from error

    def map(
        self,
        jobs: Iterable[Job_contra],
        *,
        ordered: bool = True,
        timeout: float | None = None,
        progress: bool | float = False,
        resume: bool = False,
    ) -> Generator[Result[Answer_co], None, None]:
        """Run the jobs of an iterable, endless if you like; yield a Result a job.

        Lazy: takes from `jobs` only as results are taken from it, and keeps a bounded number in flight: eight a worker
        at first, and as many more as have come back, up to 4,096. Results of other jobs are left for ``get_result``.
        When it is closed early, the jobs in flight are cancelled and their results dropped. When `jobs` raises, or
        gives what is not a job (TypeError, with its index), map raises that after the results of the jobs before it.

        Args:
            ordered: Yield in the order of `jobs`; otherwise, as completed.
            timeout: Seconds each of these jobs may run; None: the pool's ``global_timeout``.
            progress: Show how far it is, with the rate, the failures and the time that is left: by tqdm where that is
                installed, in notebooks too, else by a line on stderr where that is a terminal. A number: where it is no
                terminal, a line every this many seconds. How many jobs there are is known if `jobs` has a length. What
                running jobs say by ``current_job().progress`` is shown, of three of them. (Of a pool that is reached by
                ``connect`` it cannot be seen.)
            resume: As of ``add_work``: jobs that have a good result in the journal are not run.
        """
        seconds = check_progress(progress)
        iterator = iter(jobs)
        job_options = self._outbox.job_options(timeout, 0, None)
        self._state.check_open()
        add = self._journal_outbox().send_resumed if check_bool("resume", resume) else self._outbox.send
        results = Map(self._parts(), iterator, job_options, ordered, self._options.worker_count or 1, add).results()
        if seconds is not None:
            results = with_bar(results, length_of(jobs), seconds, self._connection)
        return self._handled(results)

    def _handled(self, results: Generator[Result, None, None]) -> Generator[Result, None, None]:
        """Results after the ``result_handler``, if there is one."""
        if self._result_handler is None:
            return results
        return self._handle_each(results)

    def _handle_each(self, results: Generator[Result, None, None]) -> Generator[Result, None, None]:
        with closing(results):
            for result in results:
                yield self._handle(result)

    def fileno(self) -> int:
        """A descriptor that is readable when a result may be ready, for select, selectors or asyncio's add_reader.

        It stays readable while results wait. After it fired, call ``get_result_nb`` until it returns None.
        """
        self._state.check_owner()
        if self._state.ended and not self._state.fileno_used:
            raise PoolClosed("the pool has been shut down")
        fd = self._connection.fileno()
        if not self._state.fileno_used:
            self._state.fileno_used = self._state.tells_others = True
            self._connection.show_readiness(self._inbox.has_news)
        return fd

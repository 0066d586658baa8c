"""The futures of a pool, as programs see them; ``futures.py`` says how they are resolved."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from typing import TYPE_CHECKING, Any, Generic, NoReturn, Protocol, TypeVar

from bossworker.result import Answer_co, Result

# States, as Future has them.
PENDING, CANCELLED, FINISHED = "PENDING", "CANCELLED_AND_NOTIFIED", "FINISHED"
ENDED = (FINISHED, CANCELLED)

T = TypeVar("T")
_logger = logging.getLogger("concurrent.futures")  # where the other futures tell of what their callbacks raise


class FutureBook(Protocol):
    """What a future asks of whoever made it, and resolves it: ``OpenFutures`` (``futures.py``)."""

    lock: threading.RLock

    def look(self) -> None: ...
    def watch(self, future: PoolFuture[Any]) -> bool: ...
    def wait_for(self, future: PoolFuture[Any], timeout: float | None) -> None: ...
    def cancel(self, future: PoolFuture[Any]) -> bool: ...
    def is_running(self, future: PoolFuture[Any]) -> bool: ...


class PoolFuture(Future[T]):
    """What the futures of a pool have in common. ``OpenFutures`` (``futures.py``) makes and resolves them."""

    job_id: int
    """The job's id, as ``add_work`` would have returned it."""

    def __init__(self, book: FutureBook) -> None:  # not Future's, which makes a lock and three containers
        self._book = book
        self._state = PENDING
        self._result: Any = None
        self._exception = None
        self._done_callbacks: Any = ()
        self._watchers: list[Any] | None = None  # of ``wait`` and ``as_completed``
        self.job_id = 0

    if not TYPE_CHECKING:  # where they stay what Future has, so that a future of ours may stand for one

        @property
        def _condition(self) -> threading.RLock:
            """``wait`` and ``as_completed`` lock by it. A Condition, in Python, could be left locked by Ctrl-C."""
            return self._book.lock

        @property
        def _waiters(self) -> list[Any]:
            """Only ``wait`` and ``as_completed`` ask for it, with the lock held: somebody must listen for them."""
            if self._watchers is None:
                self._watchers = []
            # Whoever reads this holds the lock: a future that is resolved from now on has this waiter in its list.
            if self._state == PENDING:
                self._book.watch(self)
            return self._watchers

    def _take_in(self, result: Result) -> str:
        """Keep a result; the state to be in with it. May be done twice."""
        self._result = result
        return FINISHED

    def _how(self) -> str:
        """By which call waiters are told of its end."""
        if self._state == CANCELLED:
            return "add_cancelled"
        return "add_result" if self._exception is None else "add_exception"

    def __reduce__(self) -> NoReturn:
        """A copy would be resolved by nobody: whoever waited for it would wait for ever."""
        raise TypeError(f"a {type(self).__name__} belongs to its pool: copy or pickle its result(), or its job_id")

    def done(self) -> bool:
        """Whether it has a result, or was cancelled."""
        if self._state == PENDING:
            self._book.look()
        return self._state in ENDED

    def cancelled(self) -> bool:
        """Whether ``cancel`` came before the job's end."""
        return self.done() and self._state == CANCELLED

    def running(self) -> bool:
        """Whether a worker is at the job now. Asks the boss, as ``stats`` does."""
        return not self.done() and self._book.is_running(self)

    def cancel(self) -> bool:
        """Cancel the job: a queued one never runs, a running one is stopped as by a timeout.

        Returns:
            False only if the job ended before.

        ``result`` and ``exception`` then raise ``CancelledError``. The callbacks are called here.
        """
        return self._book.cancel(self)

    def result(self, timeout: float | None = None) -> T:
        """Wait for the job's end.

        Args:
            timeout: Seconds to wait at most; None: no limit.

        Raises:
            TimeoutError: It had not ended by then.
            CancelledError: ``cancel`` was called.
            BossDied, PoolClosed: The pool ended before the job did.
        """
        try:
            error = self.exception(timeout)
            if error is not None:
                raise error.with_traceback(None)
            return self._result  # type: ignore[no-any-return]
        finally:
            error = None
            del self  # the error's traceback refers to this frame

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait as ``result`` does, and return what it would raise; None if it would return."""
        if self._state not in ENDED:
            self._book.wait_for(self, timeout)
        if self._state == CANCELLED:
            raise CancelledError
        return self._exception

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Call `fn` with this future once it is done: from a thread of its own, or at once if it is done.

        Callbacks are called in the order in which they were added. What they raise is logged (``concurrent.futures``).
        """
        with self._book.lock:
            # Under the lock under which futures are resolved: it is resolved later, and the callback is found then; or
            # it is done, and called below.
            if self._book.watch(self):
                self._done_callbacks = [*self._done_callbacks, fn]
                return
        call_back(fn, self)


class JobFuture(PoolFuture[Result[Answer_co]], Generic[Answer_co]):
    """The future of one job, from ``submit``. Its ``result()`` is the job's `Result`, also of one that failed.

    A ``concurrent.futures.Future``: it works with ``as_completed``, ``wait`` and ``asyncio.wrap_future``. ``result``
    raises for what concerns the pool, never for what the job did; ``result().raise_for_error()`` does.
    """


def call_back(callback: Callable[[Any], object], future: Future[Any]) -> None:
    try:
        callback(future)
    except BaseException:  # a SystemExit here, too, is no concern of whoever resolves futures
        _logger.exception("exception calling callback for %r", future)

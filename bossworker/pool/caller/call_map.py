"""``Executor.map``: all calls of one, sent at once, and their values in order."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterable, Iterator
from itertools import chain, islice
from typing import Any

from bossworker.function_calls import VALUE
from bossworker.pool.caller.call_errors import error_of
from bossworker.pool.caller.call_futures import CallFuture, CallFutures, Job
from bossworker.pool.caller.mapping import MAP_STEP
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.wire.batch import JobOptions
from bossworker.result import Result

_TIME_IS_UP = "not all values were there when the time was up"


def value_of(future: CallFuture, deadline: float | None) -> Any:
    """What a call of a map returned, or raises. TimeoutError when the map's time is up (monotonic seconds)."""
    try:
        # Not `result`: the call may have raised a TimeoutError itself.
        future.exception(None if deadline is None else deadline - time.monotonic())
    except TimeoutError:
        raise TimeoutError(_TIME_IS_UP) from None
    return future.result()


class CallMap:
    """All calls of one ``Executor.map``: sent at once, and their values in order."""

    def __init__(self, book: CallFutures, job_options: JobOptions, deadline: float | None) -> None:
        self._book = book
        self._outbox, self._inbox, self._connection, self._state = book.parts
        self._job_options = job_options
        self._deadline = deadline  # for all values (monotonic seconds)
        self._sent: list[range] = []  # job ids
        self._queue = ResultQueue()
        self._here: dict[int, Result] = {}  # by job id, those that have come before their turn
        self._problem: BaseException | None = None  # why no more were sent; raised after the values of those before

    def send(self, jobs: Iterator[Job]) -> None:
        """Send all of them. What the iterator raises is raised here."""
        try:
            self._send_all(jobs)
        except BaseException:
            self._drop(cancel=True)
            raise

    def _send_all(self, jobs: Iterator[Job]) -> None:
        while self._problem is None and (chunk := list(islice(jobs, MAP_STEP))):
            self._send(chunk)

    def _send(self, chunk: list[Job]) -> None:
        try:
            blocks = self._outbox.encode(chunk)
        except Exception as problem:
            if len(chunk) == 1:
                self._problem = problem.__cause__ or problem
                return
            for job in chunk:  # one by one, up to the one at fault
                if self._problem is None:
                    self._send([job])
            return
        ids = self._outbox.reserve(len(chunk))
        self._sent.append(ids)
        self._outbox.send(ids, chunk, blocks, self._job_options, self._queue)

    def values(self) -> Generator[Any, None, None]:
        values = self._values()
        next(values)
        return values

    def _values(self) -> Generator[Any, None, None]:
        wanted = False
        try:
            yield  # where it stands from the beginning, so that what follows is done even if nobody takes a value
            wanted = True
            yield from self._in_order()
            if self._problem is not None:
                raise self._problem
        finally:
            self._here.clear()
            self._drop(cancel=wanted)

    def _in_order(self) -> Generator[Any, None, None]:
        here, take = self._here, self._here.pop
        for job_id in chain.from_iterable(self._sent):
            while (result := take(job_id, None)) is None:
                here.update(self._arrived())
            if result._origin.errors is not None and not result.ok:  # the first is mostly so, and quick
                raise error_of(result)
            yield result.pop(VALUE)

    def _arrived(self) -> Iterable[tuple[int, Result]]:
        """Wait for results, and take them; with their job ids."""
        inbox, line, queue = self._inbox, self._connection, self._queue
        if not line.wait_until(lambda: inbox.has_news(queue), self._deadline) and not inbox.has_news(queue):
            if line.gone or line.closed:
                raise self._book._why()
            raise TimeoutError(_TIME_IS_UP)
        inbox.fill(queue)
        run = list(islice(iter(queue.popleft, None), len(queue)))
        return [(result.job_id, result) for result in run]

    def _drop(self, cancel: bool) -> None:
        """Let go of what has not been taken. Takes no lock: the garbage collector may call this.

        Args:
            cancel: Do not run it either. (If nobody has asked for a value, the calls were made for what they do.)
        """
        if self._state.is_foreign():
            return
        self._inbox.close_queue(self._queue)
        if cancel and self._queue.waiting:
            self._outbox.dropped.extend(self._inbox.jobs.waited_for_in(self._queue))
            self._outbox.cancel_dropped()

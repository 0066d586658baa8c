"""``Executor``: a pool in the place of ``concurrent.futures.ProcessPoolExecutor``.

Like that one, it starts its processes with the first call, so that a call finds what the program has defined until
then; it needs no ``if __name__ == "__main__"`` for that, nor with ``"spawn"``. What is written for the one works with
the other. What differs:

- A worker that dies costs its own call (``WorkerDied``, a ``BrokenProcessPool``); the others, and the pool, go on.
- ``cancel()`` of a future stops a call that runs, too; so does an ``asyncio.wait_for`` around ``run_in_executor``.
- Lambdas, closures and what is defined in ``__main__`` after the start travel. ``chunksize`` is not needed.
- ``timeout``, ``retries`` and ``priority``, for all calls or, by ``with_options``, for some.
"""

from __future__ import annotations

import concurrent.futures
import copy
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from bossworker.display import shorten
from bossworker.function_calls import Initializer
from bossworker.pool.boss.stats import Stats
from bossworker.pool.caller.call_futures import CallFuture
from bossworker.pool.caller.call_map import CallMap, value_of
from bossworker.pool.caller.call_pools import ForeignPool, Lease, OwnPool
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.options import MAX_WORKERS, StartMethod, check_priority, check_workers, start_method_of
from bossworker.pool.wire.batch import JobOptions
from bossworker.system.checks import check_callable, check_count, check_seconds
from bossworker.system.cpus import usable_cpus

if TYPE_CHECKING:
    from multiprocessing.context import BaseContext

__all__ = ["Executor"]


class Executor(concurrent.futures.Executor):
    """Runs calls in the processes of a pool. See the module for what is different from ``ProcessPoolExecutor``.

    Args:
        max_workers: Number of processes; None: the CPUs that this process may use. With an `engine`, of each node.
        mp_context: Its start method is taken: ``"fork"``, or anything else for ``"spawn"``.
        initializer: Called with `initargs` in each worker, before its first call. If it raises, the pool is broken.
        max_tasks_per_child: Replace a worker after this many calls.
        timeout: Seconds a call may run; 0: no limit. Then its future raises ``JobTimedOut``, a ``TimeoutError``.
        kill_grace: Seconds between the soft timeout (``JobTimeout`` in the function) and SIGKILL.
        retries: How often a call whose worker died is given to another worker.
        max_job_memory: Bytes by which a call may have its worker grow; 0: no limit.
        start_method: ``"fork"`` or ``"spawn"``, where there is no `mp_context`.
        pool: A ``BossWorker`` to run the calls, whatever its handler, instead of a pool of its own. It decides on all
            of the above but `timeout` and `retries`, and is not shut down with the executor.
        engine: Where the processes are, if not here, as for ``BossWorker``.
    """

    def __init__(
        self,
        max_workers: int | None = None,
        mp_context: BaseContext | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        *,
        max_tasks_per_child: int | None = None,
        timeout: float = 0,
        kill_grace: float = 1.0,
        retries: int = 0,
        max_job_memory: int = 0,
        start_method: StartMethod = "fork",
        pool: BossWorker | None = None,
        engine: object = None,
    ) -> None:
        if mp_context is not None:
            start_method = start_method_of(mp_context)
        if pool is not None and engine is not None:
            raise ValueError("engine must be None with a pool, which has its own")
        max_workers = None if engine is not None and max_workers is None else _check_workers(max_workers)
        timeout = check_seconds("timeout", 0 if timeout is None else timeout)
        if max_tasks_per_child is not None:
            check_count("max_tasks_per_child", max_tasks_per_child, 1)
        self._max_workers = max_workers or 1  # by this name, others ask for it: dask, for one
        settings: dict[str, Any] = {
            "init_handler": _init_handler(initializer, initargs),
            "global_timeout": timeout,
            "worker_count": max_workers,
            "kill_grace": kill_grace,
            "retries": retries,
            "max_jobs_per_worker": max_tasks_per_child or 0,
            "max_job_memory": max_job_memory,
            "start_method": start_method,
            "name": "Executor",
            "engine": engine,
        }
        self._pool = ForeignPool(pool) if pool is not None else OwnPool(settings)
        own = pool is None  # otherwise its settings hold, unless others are given here
        self._options: dict[str, Any] = {
            "timeout": None if own or not timeout else timeout,
            "priority": 0,
            "retries": None if own or not retries else retries,
        }
        self._terms: JobOptions | None = None  # the same, checked, once the pool is there
        self._lease = Lease(self._pool)

    def with_options(
        self, *, timeout: float | None = None, priority: int | None = None, retries: int | None = None
    ) -> Self:
        """The same executor, with other settings for what is called by it; None: as here.

        Args:
            timeout: Seconds a call may run; 0: no limit.
            priority: Calls of a higher one run first.
            retries: How often a call is given to another worker after its worker died.
        """
        changes: dict[str, Any] = {
            "timeout": None if timeout is None else check_seconds("timeout", timeout),
            "priority": None if priority is None else check_priority(priority),
            "retries": None if retries is None else check_count("retries", retries),
        }
        other = copy.copy(self)
        other._options = self._options | {name: value for name, value in changes.items() if value is not None}
        other._terms = None
        return other

    def _find_terms(self) -> JobOptions:
        terms = self._pool.book()._outbox.job_options(**self._options)
        self._terms = terms
        return terms

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> CallFuture:
        """Have ``fn(*args, **kwargs)`` called by a worker; the future of what it returns.

        Raises:
            RuntimeError: After ``shutdown``.
            BrokenProcessPool: The boss died, or no worker can be started.
        """
        book = self._pool.book()
        return book.add(book.job(fn, args, kwargs), self._terms or self._find_terms())

    def map(
        self,
        fn: Callable[..., Any],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """As the builtin ``map``, but workers make the calls. Values come in order; an error is raised in its turn.

        Args:
            timeout: Seconds for all; then ``TimeoutError``.
            chunksize: Taken, and of no effect: the pool sizes its batches itself.
            buffersize: Take no more than this many from the iterables beyond what was yielded; None: take all, now.
        """
        check_count("chunksize", chunksize, 1)
        deadline = None if timeout is None else time.monotonic() + timeout
        if buffersize is not None:
            check_count("buffersize", buffersize, 1)
            return self._map_some(fn, zip(*iterables), deadline, buffersize)
        book = self._pool.book()
        book.check_open()
        book.flush()  # what was called before goes before
        calls = CallMap(book, self._terms or self._find_terms(), deadline)
        calls.send(book.jobs(fn, zip(*iterables)))
        return calls.values()

    def _map_some(
        self, fn: Callable[..., Any], calls: Iterator[tuple[Any, ...]], deadline: float | None, buffersize: int
    ) -> Iterator[Any]:
        futures = deque(self.submit(fn, *args) for args in islice(calls, buffersize))
        executor = weakref.ref(self)  # one that is dropped submits no more

        def values() -> Iterator[Any]:
            while futures:
                if (alive := executor()) is not None and (args := next(calls, None)) is not None:
                    futures.append(alive.submit(fn, *args))
                del alive
                yield value_of(futures.popleft(), deadline)

        def in_order() -> Iterator[Any]:
            try:
                yield from values()
            finally:
                for future in futures:
                    future.cancel()

        return in_order()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls, and end the pool once those that were made have ended. May be called again.

        Args:
            wait: For that end. Otherwise, the program waits for it when it ends itself.
            cancel_futures: Cancel the calls that no worker has begun.
        """
        self._pool.shut_down(wait, cancel_futures)

    def terminate_workers(self) -> None:
        """End the pool now, and what it runs: boss and workers are gone within a second. Open futures raise."""
        self._pool.terminate()

    def kill_workers(self) -> None:
        """``terminate_workers()``."""
        self._pool.terminate()

    # -- beyond ProcessPoolExecutor: what the pool beneath can do ----------------------------------------

    def pause(self) -> None:
        """Begin no more calls from now on; those that run go on."""
        self._started_pool().pause()

    def resume(self) -> None:
        """Begin calls again."""
        self._started_pool().resume()

    def stats(self) -> Stats:
        """The pool at this instant: how many calls are queued, running, done, and its workers."""
        return self._started_pool().stats()

    def stack(self, future: CallFuture | None = None) -> str:
        """The Python stack of a call, with the processes below it; empty if it does not run. None: of all workers."""
        return self._started_pool().stack(None if future is None else future.job_id)

    def _started_pool(self) -> BossWorker[Any, Any]:
        self._pool.book()
        return self._pool.pool

    def __repr__(self) -> str:
        return f"<Executor, {self._pool!r}>"


def _init_handler(initializer: Callable[..., object] | None, initargs: object) -> Initializer | None:
    check_callable("initializer", initializer)
    if not isinstance(initargs, Iterable):
        raise TypeError(f"initargs must be a tuple of arguments for the initializer, not {shorten(initargs)}")
    return None if initializer is None else Initializer(initializer, *initargs)


def _check_workers(value: object) -> int:
    if value is None:
        return min(usable_cpus(), MAX_WORKERS)
    if isinstance(value, int) and value < 1:
        raise ValueError(f"max_workers must be greater than 0: an int up to {MAX_WORKERS}, or None, not {value}")
    return check_workers("max_workers", value)

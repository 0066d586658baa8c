"""joblib's ``Parallel`` on a pool (the extra ``joblib``)::

    import bossworker.joblib  # makes the name known

    with joblib.parallel_config(backend="bossworker", n_jobs=-1):
        ...  # scikit-learn's n_jobs, too

What else ``parallel_config`` is given goes to the `Executor`: ``timeout``, ``retries``, ``start_method`` and so on. A
worker that dies costs its own batch of calls (``WorkerDied``); when a call raises, those that still run are stopped.
The workers live as long as the configuration does.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any
from weakref import WeakSet

try:
    from joblib import cpu_count, register_parallel_backend
    from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, SequentialBackend
    from joblib.parallel import ParallelBackendBase
except ImportError as error:
    text = "bossworker.joblib needs joblib: pip install 'bossworker[joblib]'"
    raise ImportError(text, name=error.name) from error

from bossworker.executor import Executor
from bossworker.pool.caller.call_futures import CallFuture

__all__ = ["BossWorkerBackend"]


class BossWorkerBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]  # joblib has no types
    """The backend of that name."""

    supports_retrieve_callback = True
    supports_inner_max_num_threads = True

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self._executor: Executor | None = None
        self._workers = 0
        self._futures: WeakSet[CallFuture] = WeakSet()

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """How many calls run at once; negative: as many less one than there are CPUs, and so on."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cpu_count() + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_of_other_backends: Any) -> int:
        """Make ready for a call of ``Parallel``; how many workers there are."""
        workers = self.effective_n_jobs(n_jobs)
        if workers == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        if self._executor is None or self._workers != workers:
            limits = self._prepare_worker_env(workers)
            self._executor = Executor(workers, initializer=partial(limit_threads, limits), **self.backend_kwargs)
            self._workers = workers
        return workers

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> CallFuture:
        """Have a batch of calls made."""
        assert self._executor is not None
        future = self._executor.submit(func)
        self._futures.add(future)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.4

    def retrieve_result_callback(self, future: CallFuture) -> Any:
        """What the batch returned, or raises."""
        return future.result()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Stop what runs; the workers stay."""
        for future in list(self._futures):
            future.cancel()

    def terminate(self) -> None:
        """A call of ``Parallel`` is through."""
        self.reset_batch_stats()


def limit_threads(limits: Mapping[str, str]) -> None:
    """In a worker: the libraries that have threads of their own get a share of the CPUs."""
    os.environ.update(limits)
    try:
        from threadpoolctl import threadpool_limits
    except ImportError:
        return  # then those that are loaded already keep what they have
    threadpool_limits(int(limits["OMP_NUM_THREADS"]))


register_parallel_backend("bossworker", BossWorkerBackend)

"""Ray as an engine: each of its worker processes that runs a task of ours is a node, as with any executor.

Ray has no ``concurrent.futures.Executor``, so here is what we need of one. It runs each task once (``max_retries=0``).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any

import ray

from bossworker.engines.adapter import when_done
from bossworker.engines.executor_engine import ExecutorEngine

HERE = "auto"  # the address of the cluster that this machine belongs to


class RayExecutor(Executor):
    """Runs functions as tasks of Ray's, one for each of its CPUs at a time."""

    def __init__(self, address: str) -> None:
        """`address`: as of ``ray.init``; where this program is connected already, it stays so."""
        if not ray.is_initialized():
            ray.init(address=address, log_to_driver=True, ignore_reinit_error=True)
        self._max_workers = max(1, int(ray.cluster_resources().get("CPU", 1)))
        self._run = ray.remote(num_cpus=1, max_retries=0)(_call)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """As of any executor. ``cancel`` of the future stops nothing."""
        future: Future[Any] = Future()
        when_done(self._run.remote(fn, args, kwargs).future(), future.set_result, future.set_exception)
        future.set_running_or_notify_cancel()
        return future


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


class RayEngine(ExecutorEngine):
    """See the module."""

    def __init__(self, address: str) -> None:
        place = address.removeprefix("ray://")
        super().__init__(RayExecutor(HERE if place == HERE else address))
        self.title = f"Ray cluster {place}"

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
from bossworker.engines.node_messages import NodeRequest
from bossworker.errors import WorkerStartError

HERE = "auto"  # the address of the cluster that this machine belongs to
SHUT_DOWN = "Ray has been shut down in this program"


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
        if not ray.is_initialized():  # it would start a cluster of its own, by itself
            raise RuntimeError(SHUT_DOWN)
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()  # before Ray's threads may set its result
        when_done(self._run.remote(fn, args, kwargs).future(), future.set_result, future.set_exception)
        return future


def _call(fn: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    return fn(*args, **kwargs)


class RayEngine(ExecutorEngine):
    """See the module."""

    waits_to_open = True

    def __init__(self, address: str) -> None:
        self._place = address.removeprefix("ray://")
        super().__init__(_Unopened())
        self.title = f"Ray cluster {self._place}"

    def open(self) -> None:
        try:
            self._use(RayExecutor(HERE if self._place == HERE else f"ray://{self._place}"))
        except (OSError, ValueError) as error:  # ConnectionError, above all
            raise WorkerStartError(
                f"engine='ray://{self._place}': no cluster of Ray's answers there ({error}). Start one (ray start "
                "--head), or give the address that it tells"
            ) from error
        super().open()

    def ask(self, request: NodeRequest, nodes: list[str] | None, seconds: float | None) -> Future[dict[str, Any]]:
        if not ray.is_initialized():  # of what it had, nobody tells
            self._give_up(SHUT_DOWN)
        return super().ask(request, nodes, seconds)


class _Unopened(Executor):
    """Until it is connected."""

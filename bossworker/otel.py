"""Spans of jobs for OpenTelemetry, in the extra ``otel``::

    bossworker.otel.instrument(pool)

A span a job, made in the program from the times in its result, as a child of the span that was current as the job was
added. The workers need no exporter. The context travels in the job, under ``traceparent`` (and ``tracestate``), so a
handler that makes spans of its own can go on from there: ``propagate.extract(job)``. A job of commands has it in its
environment instead, as ``TRACEPARENT``. ``result.job`` is what was added, without any of this.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping
from typing import Any

try:
    from opentelemetry import context, propagate, trace
except ImportError as error:
    text = "bossworker.otel needs opentelemetry: pip install 'bossworker[otel]'"
    raise ImportError(text, name=error.name) from error

from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.taps import Tap
from bossworker.result import Result

__all__ = ["instrument"]

_NANO = 1e9


def instrument(pool: BossWorker, tracer: trace.Tracer | None = None) -> None:
    """Make a span of each job of this pool that is added from now on, when its result is taken.

    Args:
        tracer: What makes the spans; None: the global provider's tracer ``bossworker``.

    Raises:
        TypeError: `pool` is none. Of an `AsyncBossWorker`, it is in ``.pool``.
        RuntimeError: It is instrumented already.
    """
    if not isinstance(pool, BossWorker):
        hint = ": take its .pool" if isinstance(getattr(type(pool), "pool", None), property) else ""
        raise TypeError(f"pool must be a BossWorker, not {type(pool).__name__}{hint}")
    pool._tap(_SpanMaker(tracer or trace.get_tracer("bossworker"), pool.name))


class _SpanMaker(Tap):
    def __init__(self, tracer: trace.Tracer, name: str) -> None:
        self._tracer = tracer
        self._name = name
        self._calls: list[tuple[int, Any]] = []  # first ids of calls that added jobs, and the contexts then
        self._most = 100  # of them, before those that nobody needs any more are dropped

    def on_call(self, first_id: int, unfinished: Iterable[int]) -> None:
        if len(self._calls) > self._most:
            oldest = next(iter(unfinished), first_id)  # ids ascend
            del self._calls[: max(0, bisect_right(self._calls, oldest, key=lambda call: call[0]) - 1)]
            self._most = 2 * len(self._calls) + 100
        self._calls.append((first_id, context.get_current()))

    def prepare(self, job: Mapping[Any, Any], command: bool) -> Mapping[Any, Any]:
        carrier: dict[str, str] = {}
        propagate.inject(carrier)
        if not carrier or not isinstance(job, Mapping):
            return job
        if command:
            env = {name.upper(): value for name, value in carrier.items()}
            return {**job, "env": {**env, **(job.get("env") or {})}}
        return {**carrier, **job}

    def on_result(self, result: Result) -> None:
        at = bisect_right(self._calls, result.job_id, key=lambda call: call[0]) - 1
        if at < 0:
            return  # it was added before
        span = self._tracer.start_span(
            f"{self._name} job",
            context=self._calls[at][1],
            kind=trace.SpanKind.CONSUMER,
            start_time=int(result.started_at * _NANO),
            attributes={
                "bossworker.pool": self._name,
                "bossworker.job_id": result.job_id,
                "bossworker.worker_pid": result.worker_pid,
                "bossworker.attempts": result.attempts,
                "bossworker.queued_seconds": max(0.0, result.started_at - result.queued_at),
            },
        )
        if result.error is not None:
            span.set_attribute("error.type", str(result.error_kind))
            span.set_status(trace.StatusCode.ERROR, result.error)
        span.end(int(result.finished_at * _NANO))

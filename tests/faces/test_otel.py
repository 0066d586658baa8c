"""``bossworker.otel``: a span a job."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("opentelemetry.sdk")

from opentelemetry import propagate, trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import bossworker.otel
from bossworker import BossWorker, run_command

Pool = Callable[..., BossWorker]


@pytest.fixture
def spans() -> Iterator[tuple[trace.Tracer, InMemorySpanExporter]]:
    exporter, provider = InMemorySpanExporter(), TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield provider.get_tracer("tests"), exporter
    provider.shutdown()


def act(job: dict[str, Any]) -> dict[str, Any]:
    if "fail" in job:
        raise ValueError("rattle")
    context = trace.get_current_span(propagate.extract(job)).get_span_context()
    return {"trace": context.trace_id, "span": context.span_id}


def test_what_is_no_pool_is_refused() -> None:
    with pytest.raises(TypeError, match="pool must be a BossWorker, not dict"):
        bossworker.otel.instrument({})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match=r"not AsyncBossWorker: take its \.pool"):
        bossworker.otel.instrument(bossworker.AsyncBossWorker(act))  # type: ignore[arg-type]


def test_a_span_is_a_child_of_what_was_current(pool: Pool, spans: Any) -> None:
    tracer, exporter = spans
    bw = pool(act, worker_count=1, name="one")
    bossworker.otel.instrument(bw, tracer)
    with tracer.start_as_current_span("first") as first:
        ids = bw.add_work({"n": 1}, {"n": 2})
    with tracer.start_as_current_span("second") as second:
        future = bw.submit({"n": 3})
        mapped = list(bw.map([{"n": 4}]))
    (untraced,) = bw.add_work({"n": 5})
    results = {r.job_id: r for r in [*bw.results(), future.result(), *mapped]}
    told = {span.attributes["bossworker.job_id"]: span for span in exporter.get_finished_spans() if span.attributes}
    assert sorted(told) == sorted(results)
    for job_id, result in results.items():
        span, parent = told[job_id], first if job_id in ids else second
        assert span.name == "one job"
        assert span.start_time == pytest.approx(result.started_at * 1e9, abs=1e4)
        assert span.end_time == pytest.approx(result.finished_at * 1e9, abs=1e4)
        assert span.status.status_code is trace.StatusCode.UNSET
        assert "traceparent" not in result.job
        if job_id == untraced:
            assert span.parent is None
        else:
            assert span.parent.span_id == parent.get_span_context().span_id
            assert span.context.trace_id == result["trace"], "the handler sees it, too"


def test_a_failure_is_told(pool: Pool, spans: Any) -> None:
    tracer, exporter = spans
    bw = pool(act, worker_count=1)
    bossworker.otel.instrument(bw, tracer)
    bw.add_work({"fail": 1})
    list(bw.results())
    (span,) = exporter.get_finished_spans()
    assert span.status.status_code is trace.StatusCode.ERROR
    assert (span.status.description, span.attributes["error.type"]) == ("ValueError: rattle", "exception")


def test_a_command_has_it_in_its_environment(pool: Pool, spans: Any) -> None:
    tracer, _ = spans
    bw = pool(run_command, worker_count=1)
    bossworker.otel.instrument(bw, tracer)
    with tracer.start_as_current_span("first") as first:
        bw.add_work({"cmd": ["sh", "-c", "echo $TRACEPARENT $MINE"], "env": {"MINE": "1"}})
    (result,) = bw.results()
    version, trace_id, span_id, _ = result["stdout"].split()[0].split("-")
    assert (version, int(trace_id, 16)) == ("00", first.get_span_context().trace_id)
    assert int(span_id, 16) == first.get_span_context().span_id
    assert result["stdout"].split()[1] == "1"


def test_a_pool_is_instrumented_once(pool: Pool, spans: Any) -> None:
    bw = pool(act, worker_count=1)
    bossworker.otel.instrument(bw, spans[0])
    with pytest.raises(RuntimeError, match="instrumented already"):
        bossworker.otel.instrument(bw, spans[0])


def test_the_book_of_contexts_does_not_grow(pool: Pool, spans: Any) -> None:
    bw = pool(act, worker_count=1)
    bossworker.otel.instrument(bw, spans[0])
    for _ in range(500):
        bw.add_work({"n": os.getpid()})
        bw.get_result()
    assert len(bw._inbox.tap._calls) < 200  # type: ignore[union-attr]

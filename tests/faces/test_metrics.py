"""``bossworker.metrics``: what Prometheus gets."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

import bossworker.metrics
from bossworker import AsyncBossWorker, BossWorker
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def act(job: dict[str, Any]) -> None:
    if "fail" in job:
        raise ValueError
    if "die" in job:
        os._exit(3)


def scrape(registry: CollectorRegistry) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """What a server reads: each sample's value, by its name and labels."""
    text = generate_latest(registry).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_what_is_told(pool: Pool) -> None:
    bw = pool(act, worker_count=2, name="one")
    registry = CollectorRegistry()
    registry.register(bossworker.metrics.collector(bw))
    bw.add_work({}, {}, {"fail": 1}, {"die": 1})
    list(bw.results())
    wait_for(lambda: len(bw.worker_pids) == 2)
    told = scrape(registry)
    one = ("pool", "one")
    assert told["bossworker_up", (one,)] == 1
    assert told["bossworker_jobs_total", (("outcome", "ok"), one)] == 2
    assert told["bossworker_jobs_total", (("outcome", "failed"), one)] == 2
    assert told["bossworker_restarts_total", (one, ("reason", "died"))] == 1
    assert told["bossworker_queued", (one,)] == told["bossworker_running", (one,)] == 0
    assert told["bossworker_worker_memory_bytes", (one, ("worker", "0"))] > 1 << 20
    assert told["bossworker_worker_cpu_seconds", (one, ("worker", "1"))] >= 0
    assert told["bossworker_job_latency_seconds", (one, ("quantile", "0.95"))] > 0
    states = [value for (name, _), value in told.items() if name == "bossworker_workers"]
    assert (len(states), sum(states)) == (4, 2)


def test_several_pools_and_one_that_has_ended(pool: Pool) -> None:
    pools = [pool(act, worker_count=1, name=name) for name in ("one", "one", "two")]
    registry = CollectorRegistry()
    registry.register(bossworker.metrics.collector(*pools))
    pools[2].shut_down()
    told = scrape(registry)
    up = {labels[0][1]: value for (name, labels), value in told.items() if name == "bossworker_up"}
    assert up == {"one": 1, "one 2": 1, "two": 0}
    assert {dict(labels)["pool"] for (name, labels) in told if name == "bossworker_queued"} == {"one", "one 2"}


@pytest.mark.parametrize("wrong", [None, "pool", BossWorker])
def test_what_is_no_pool_is_refused(pool: Pool, wrong: Any) -> None:
    with pytest.raises(TypeError, match=f"pools must be BossWorkers, not {type(wrong).__name__}"):
        bossworker.metrics.collector(pool(act, worker_count=1), wrong)


def test_a_pool_on_a_loop_has_one_to_be_given() -> None:
    with pytest.raises(TypeError, match=r"not AsyncBossWorker: take its \.pool"):
        bossworker.metrics.collector(AsyncBossWorker(act))  # type: ignore[arg-type]

"""Figures of pools for Prometheus, in the extra ``metrics``::

    from prometheus_client import REGISTRY
    REGISTRY.register(bossworker.metrics.collector(pool))

All of them come from ``pool.stats()``, when somebody scrapes. The workers need not know of it: there is no multiprocess
mode, and no directory of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

try:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import Collector
except ImportError as error:
    text = "bossworker.metrics needs prometheus_client: pip install 'bossworker[metrics]'"
    raise ImportError(text, name=error.name) from error

from bossworker.errors import BossDied, PoolClosed
from bossworker.pool.boss.stats import Stats
from bossworker.pool.caller.client import BossWorker
from bossworker.pool.caller.remote_operator import RemoteOperator

__all__ = ["collector"]

_POOL = ["pool"]
_GAUGES = {
    "queued": "Jobs that wait for a worker.",
    "running": "Jobs that run.",
    "failed_starts": "Workers that could not be started since one came up.",
}
_SECONDS = {
    "duration": "Seconds from a job's start to its end, of those of the last minute.",
    "latency": "Seconds from when a job was added to its end, of those of the last minute.",
}


def collector(*pools: BossWorker | RemoteOperator) -> Collector:
    """What a registry of ``prometheus_client`` asks for the figures of these pools.

    Each has the label ``pool``: its name. Of a pool that has ended, ``bossworker_up`` is 0, and nothing else is told.
    A pool of another program is one that :func:`bossworker.operate` gives. TypeError: One of them is neither.
    """
    for pool in pools:
        if not isinstance(pool, BossWorker | RemoteOperator):
            hint = ": take its .pool" if isinstance(getattr(type(pool), "pool", None), property) else ""
            raise TypeError(f"pools must be BossWorkers, not {type(pool).__name__}{hint}")
    return _PoolCollector(pools)


class _PoolCollector(Collector):  # type: ignore[misc,unused-ignore]
    def __init__(self, pools: tuple[BossWorker | RemoteOperator, ...]) -> None:
        self._pools = pools

    def describe(self) -> Iterator[Any]:
        """Nothing: to be registered should ask no pool for anything."""
        return iter(())

    def collect(self) -> Iterator[Any]:
        """The figures of this instant."""
        up = GaugeMetricFamily("bossworker_up", "Whether the pool runs.", labels=_POOL)
        counts: dict[str, Stats] = {}
        for name, pool in _named(self._pools):
            try:
                counts[name] = pool.stats()
            except (PoolClosed, BossDied, TimeoutError):
                up.add_metric([name], 0)
            else:
                up.add_metric([name], 1)
        yield up
        yield from _families(counts)


def _named(pools: tuple[BossWorker | RemoteOperator, ...]) -> Iterator[tuple[str, BossWorker | RemoteOperator]]:
    """Two pools of one name are told apart by a number."""
    seen: dict[str, int] = {}
    for pool in pools:
        seen[pool.name] = seen.get(pool.name, 0) + 1
        yield (pool.name if seen[pool.name] == 1 else f"{pool.name} {seen[pool.name]}"), pool


def _families(counts: dict[str, Stats]) -> Iterator[Any]:
    for field, text in _GAUGES.items():
        gauge = GaugeMetricFamily(f"bossworker_{field}", text, labels=_POOL)
        for name, stats in counts.items():
            gauge.add_metric([name], getattr(stats, field))
        yield gauge
    jobs = CounterMetricFamily("bossworker_jobs", "Jobs that have ended.", labels=[*_POOL, "outcome"])
    restarts = CounterMetricFamily("bossworker_restarts", "Workers replaced.", labels=[*_POOL, "reason"])
    for name, stats in counts.items():
        jobs.add_metric([name, "ok"], stats.done)
        jobs.add_metric([name, "failed"], stats.failed)
        for reason, number in stats.restart_reasons.items():
            restarts.add_metric([name, reason], number)
    yield jobs
    yield restarts
    yield from _seconds(counts)
    yield from _workers(counts)


def _seconds(counts: dict[str, Stats]) -> Iterator[Any]:
    for what, text in _SECONDS.items():
        gauge = GaugeMetricFamily(f"bossworker_job_{what}_seconds", text, labels=[*_POOL, "quantile"])
        for name, stats in counts.items():
            for quantile, field in (("0.5", f"{what}_p50"), ("0.95", f"{what}_p95")):
                if (value := getattr(stats, field)) is not None:
                    gauge.add_metric([name, quantile], value)
        yield gauge


def _workers(counts: dict[str, Stats]) -> Iterator[Any]:
    states = GaugeMetricFamily("bossworker_workers", "Workers, by what they do.", labels=[*_POOL, "state"])
    memory = GaugeMetricFamily("bossworker_worker_memory_bytes", "Resident memory.", labels=[*_POOL, "worker"])
    cpu = GaugeMetricFamily("bossworker_worker_cpu_seconds", "Processor time used.", labels=[*_POOL, "worker"])
    for name, stats in counts.items():
        told = [worker.state for worker in stats.workers]
        for state in ("starting", "idle", "busy", "leaving"):
            states.add_metric([name, state], told.count(state))
        for worker in {worker.index: worker for worker in stats.workers}.values():
            memory.add_metric([name, str(worker.index)], worker.rss)
            cpu.add_metric([name, str(worker.index)], worker.cpu_seconds)
    yield states
    yield memory
    yield cpu

"""Ray as an engine, where it is installed: it is no requirement of the tests."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for


@contextmanager
def local_ray(cpus: int) -> Iterator[Any]:
    """A cluster of this machine's own. Ray handles SIGTERM in its own way from then on."""
    module = pytest.importorskip("ray")
    before = signal.getsignal(signal.SIGTERM)
    module.init(num_cpus=cpus, include_dashboard=False, log_to_driver=False)
    try:
        yield module
    finally:
        module.shutdown()
        signal.signal(signal.SIGTERM, before)


@pytest.fixture
def ray() -> Iterator[Any]:
    with local_ray(2) as module:
        yield module


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_ray(ray: Any, pool: Callable[..., BossWorker]) -> None:
    def work(job: dict[str, Any]) -> dict[str, Any]:
        if job["n"] == -1:
            os._exit(3)
        time.sleep(job.get("seconds", 0.0))
        return {"n": job["n"]}

    bw = pool(work, engine="ray://auto")
    bw.add_work(*({"n": n} for n in range(1000)))
    assert sorted(result["n"] for result in bw.results()) == list(range(1000))
    bw.add_work({"n": -1})
    assert bw.get_result().exit_code == 3
    (running,) = bw.add_work({"n": 0, "seconds": 60})
    wait_for(lambda: bw.stats().running == 1, 60)
    assert bw.cancel(running) == 1
    assert bw.get_result().error_kind == "cancelled"
    bw.add_work({"n": 1, "seconds": 60}, timeout=0.2)
    assert bw.get_result().error_kind == "timeout"
    assert bw.stats().nodes
    bw.shut_down()

"""Ray as an engine, where it is installed: it is no requirement of the tests."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for


@pytest.fixture
def ray() -> Iterator[Any]:
    """A cluster of this machine's own, with two CPUs."""
    module = pytest.importorskip("ray")
    module.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield module
    module.shutdown()


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

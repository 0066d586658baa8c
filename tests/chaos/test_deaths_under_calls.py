"""Boss, fork server or scribe are killed while a call waits: it hears of it, whichever call it is."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from concurrent.futures import wait
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker
from tests.chaos.test_storms import _servers
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


def hang(job: dict[str, Any]) -> None:
    Path(job["begun"]).touch()
    time.sleep(300)


def fill(pool: BossWorker, job: dict[str, Any]) -> None:
    while True:
        pool.add_work(job)


def await_future(pool: BossWorker, job: dict[str, Any]) -> None:
    future = pool.submit(job)
    assert not wait([future]).not_done
    future.result()


def end(pool: BossWorker, job: dict[str, Any]) -> None:
    pool.add_work(job)
    pool.shut_down()


CALLS: dict[str, Callable[[BossWorker, dict[str, Any]], object]] = {
    "get_result": lambda pool, job: (pool.add_work(job), pool.get_result()),
    "results": lambda pool, job: (pool.add_work(job), list(pool.results())),
    "map": lambda pool, job: list(pool.map([job])),
    "add_work": fill,
    "future": lambda pool, job: pool.submit(job).result(),
    "wait": await_future,
    "events": lambda pool, job: (pool.add_work(job), list(pool.events())),
    "shut_down": end,
}


@pytest.mark.parametrize("whom", ["boss", "fork server", "scribe"])
@pytest.mark.parametrize("call", CALLS)
def test_whoever_waits_hears_of_it(pool: Pool, tmp_path: Path, call: str, whom: str) -> None:
    kept = {"journal": tmp_path / "jobs.db"} if whom == "scribe" else {}
    bw = pool(hang, worker_count=1, max_pending=2, **kept)
    victim, begun, line = _servers(bw)[whom], tmp_path / "begun", bw._connection

    def kill() -> None:
        wait_for(lambda: begun.exists() and line.turns.taken)
        os.kill(victim, signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    began = time.monotonic()
    with pytest.raises(BossDied):
        CALLS[call](bw, {"begun": str(begun)})
    assert time.monotonic() < began + 60
    killer.join()
    bw.shut_down(force=True)
    assert bw.pending() == 0

"""A signal handler that raises, at any instant of a call to a pool on an engine: see `tests.chaos.test_interrupts`."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from bossworker import BossWorker
from tests.chaos.instants import raising
from tests.chaos.test_interrupts import Books, echo, instants_of, storm


@instants_of("Connection.", "PoolResults.")
def test_each_job_has_one_result(pool: Callable[..., BossWorker], part: str, long: bool) -> None:
    with ThreadPoolExecutor(1) as threads, raising():
        books = Books(pool(echo, worker_count=1, engine=threads))

        storm(part, long, books.go_through, books.check, 20)
        books.pool.shut_down()

"""Futures resolved in runs: each once, whatever interrupts, and whoever waits is told once."""

from __future__ import annotations

import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from bossworker.errors import PoolClosed
from bossworker.pool.caller.futures import OpenFutures
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.listener_turns import ListenerTurns
from bossworker.pool.caller.mapping import PoolParts
from bossworker.pool.caller.pool_future import JobFuture
from bossworker.pool.caller.said_by_boss import SaidByBoss
from tests.conftest import wait_for
from tests.unit.storm import Interruption, Storm
from tests.unit.test_inbox import good


class Line:
    """A connection over which nothing comes but what a test puts into the inbox."""

    def __init__(self) -> None:
        self.gone = self.closed = False
        self.said = SaidByBoss()
        self.turns = ListenerTurns(lambda: None)

    def poll(self) -> None: ...

    def wake(self) -> None:
        """Whoever waits looks again and again. (An Event could be left locked by an interruption.)"""

    def wait_until(self, ready: Callable[[], bool], deadline: float | None = None) -> bool:
        while not ready():
            if self.gone:
                return False
            time.sleep(0.001)
        return True


@pytest.fixture
def line() -> Line:
    return Line()


@pytest.fixture
def book(line: Line) -> OpenFutures:
    closed = PoolClosed("the pool was shut down")
    state = SimpleNamespace(foreign=False, check_owner=lambda: None, why_ended=lambda: closed)
    parts: Any = (SimpleNamespace(), Inbox(), line, state)
    return OpenFutures(PoolParts(*parts))


def submitted(book: OpenFutures, count: int) -> list[JobFuture]:
    futures = [JobFuture(book) for _ in range(count)]
    book._inbox.note_call(1)
    book._inbox.expect(1, [{}] * count, book._queue)
    for job_id, future in enumerate(futures, 1):
        book.admit(future, job_id)
    return futures


def arrive(book: OpenFutures, count: int, step: int = 20) -> None:
    for first in range(1, count + 1, step):
        book._inbox.receive(good(first, step))


class Waiter:
    """As ``wait`` installs them."""

    def __init__(self) -> None:
        self.told: list[JobFuture] = []
        self.add_result = self.told.append


def test_results_that_arrive_together_are_resolved_together(book: OpenFutures) -> None:
    futures = submitted(book, 100)
    arrive(book, 100)
    book.settle()
    assert [future.result()["n"] for future in futures] == list(range(1, 101))
    assert (len(book.open), len(book._inbox.jobs), book._inbox.pending()) == (0, 0, 0)


def check_all_are_told(book: OpenFutures, futures: list[JobFuture], waiter: Waiter, calls: list[JobFuture]) -> None:
    assert [future.result()["n"] for future in futures] == list(range(1, len(futures) + 1))
    assert (len(book.open), len(book._inbox.jobs), book._inbox.pending()) == (0, 0, 0)
    wait_for(lambda: len(calls) >= len(futures))
    assert waiter.told == futures
    assert calls == futures


def insist(call: Callable[[], None], book: OpenFutures, seed: int) -> int:
    """Call it, interrupted, until no future is open and no result is left; how often it was interrupted."""
    with Storm(Interruption, random.Random(seed)) as storm:
        while book.open or book._inbox.pending():
            try:
                storm.open = True
                call()
                storm.open = False
            except Interruption:
                pass
    return storm.hits


def test_interrupts_at_any_instant_leave_no_future_open(book: OpenFutures) -> None:
    hits = 0
    for round_ in range(200):
        futures = submitted(book, 1000)
        waiter, calls = Waiter(), list[JobFuture]()
        for future in futures:
            future._waiters.append(waiter)  # type: ignore[arg-type]
            future.add_done_callback(calls.append)  # type: ignore[arg-type]
        arrive(book, len(futures))
        hits += insist(book.settle, book, round_)
        check_all_are_told(book, futures, waiter, calls)
        if hits > 40:
            return
    pytest.fail(f"only {hits} interruptions")


def test_interrupts_while_all_are_given_up(book: OpenFutures, line: Line) -> None:
    count = 2000
    futures = submitted(book, count)
    calls: list[JobFuture] = []
    for future in futures:
        future.add_done_callback(calls.append)  # type: ignore[arg-type]
    line.gone = True
    insist(book.give_up, book, 6)
    wait_for(lambda: len(calls) >= count)
    assert sorted(calls, key=id) == sorted(futures, key=id)
    assert all("was shut down" in str(future.exception()) for future in futures)


def test_whoever_comes_while_a_run_is_resolved_is_told_at_most_once(book: OpenFutures) -> None:
    """A second thread installs itself at each line of the first: it must find the future done, or be told."""
    for stop in range(1, 60):
        future = submitted(book, 1)[0]
        future._waiters.append(Waiter())  # type: ignore[arg-type]
        book._inbox.receive(good(1, 1))
        late = Waiter()
        found: list[bool] = []

        def come(future: JobFuture = future, late: Waiter = late, found: list[bool] = found) -> None:
            with book.lock:
                found.append(future._state == "FINISHED")
                future._waiters.append(late)  # type: ignore[arg-type]

        lines = 0

        def trace(frame: FrameType, event: str, arg: object, stop: int = stop) -> Any:
            nonlocal lines
            if event == "line" and "futures.py" in frame.f_code.co_filename:
                lines += 1
                if lines == stop:
                    thread = threading.Thread(target=come)
                    thread.start()
                    thread.join(0.02)  # it may have to wait for the lock
            return trace

        sys.settrace(trace)
        try:
            book.settle()
        finally:
            sys.settrace(None)
        wait_for(lambda future=future: future not in book._watched)  # type: ignore[misc]
        wait_for(lambda found=found, lines=lines, stop=stop: found or lines < stop)  # type: ignore[misc]
        if found:
            assert late.told == ([] if found[0] else [future])


def test_two_threads_may_settle_at_once(book: OpenFutures) -> None:
    count = 4000
    futures = submitted(book, count)
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=book.settle) for _ in range(4)]
        arrive(book, count)
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    book.settle()
    assert [future.result()["n"] for future in futures] == list(range(1, count + 1))
    assert book._queue == deque()

"""A signal handler that raises, at any instant of any call, costs no job its result, and nothing hangs from then on.

At some of all instants; with ``--long``, at each of most functions.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from bossworker import BossWorker, JobFuture, jobs
from bossworker.commands.supervision import interpreter, launching
from bossworker.forkqueue import ForkQueue
from bossworker.system import signals
from tests.chaos.instants import NUMBER, Interrupted, each, raising
from tests.conftest import wait_for

SECONDS = 30.0  # in which nothing takes so long but what hangs

Pool = Callable[..., BossWorker]


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    with raising():
        yield


def echo(job: dict[str, Any]) -> dict[str, Any]:
    return {"n": job["n"]}


class Books:
    """What was asked of a pool, and what came of it."""

    def __init__(self, pool: BossWorker) -> None:
        self.pool = pool
        self.numbers = 0  # jobs that were tried to be added
        self.accepted: set[int] = set()  # those of calls that returned
        self.got: list[int] = []

    def add(self, count: int) -> None:
        numbers = range(self.numbers, self.numbers + count)
        self.numbers += count
        self.pool.add_work(*[{"n": n} for n in numbers])
        self.accepted.update(numbers)

    def take(self) -> None:
        while self.pool.pending():
            self.got.append(self.pool.get_result(timeout=SECONDS)["n"])  # type: ignore[index]

    def go_through(self) -> None:
        """Some jobs in, and their results out."""
        self.add(1)
        self.add(2)
        self.take()

    def check(self, n: int) -> None:
        """Take the rest: there is exactly one result of each job that was accepted, and at most one of each."""
        while (result := self.pool.get_result(self.pool.pending() > 0, timeout=SECONDS)) is not None:
            self.got.append(result["n"])
        counts = Counter(self.got)
        assert self.accepted <= counts.keys(), f"lost at instruction {n}"
        assert max(counts.values(), default=1) == 1, f"twice at instruction {n}"
        assert self.pool.pending() == 0, f"at instruction {n}"
        self.got.clear()
        self.accepted.clear()


Test = TypeVar("Test", bound=Callable[..., None])


def instants_of(*parts: str) -> Callable[[Test], Test]:
    """At instants of some functions, and of all of ours; with ``--long`` at many more of them."""
    return pytest.mark.parametrize("part", [*parts, pytest.param("/bossworker/", id="all")])


def storm(part: str, long: bool, act: Callable[[], object], check: Callable[[int], object], most: int = 50) -> None:
    hits = each(act, check, part, 20 * most if long else most)
    assert hits > 5 or sys.version_info >= (3, 13)  # which may not tell of the instructions of a function's first call


@instants_of("PoolResults.get_result", "Outbox.")
@pytest.mark.parametrize("settings", [{}, {"max_pending": 3}, {"result_handler": lambda result: result}], ids=" ".join)
def test_jobs_in_and_results_out(pool: Pool, part: str, long: bool, settings: dict[str, Any]) -> None:
    books = Books(pool(echo, worker_count=1, **settings))

    storm(part, long, books.go_through, books.check)


@instants_of("PoolResults.", "Connection.", "ReadinessFd.", "Link.")
def test_a_program_that_waits_for_the_descriptor(pool: Pool, part: str, long: bool) -> None:
    """It calls nothing before that is readable: so what an interrupted call has left to be done must make it so."""
    books = Books(pool(echo, worker_count=1))
    fd = books.pool.fileno()

    def act() -> None:
        books.add(1)
        books.add(2)
        take()

    def take() -> None:
        while books.pool.pending():
            assert select.select([fd], [], [], SECONDS)[0], "nothing tells of what is there"
            for result in iter(books.pool.get_result_nb, None):  # (an assignment may be cut off from what follows)
                books.got.append(result["n"])

    def check(n: int) -> None:
        take()
        books.check(n)

    storm(part, long, act, check)


@instants_of("Map.results", "Map._drop", "Outbox.")
def test_maps(pool: Pool, part: str, long: bool) -> None:
    """Whose iterator is interrupted, has no more; what it had in flight is forgotten."""
    bw = pool(echo, worker_count=1)

    def act() -> None:
        for ordered in (True, False):
            found = [result["n"] for result in bw.map(({"n": n} for n in range(5)), ordered=ordered)]
            assert sorted(found) == list(range(5))

    def check(n: int) -> None:
        wait_for(lambda: bw.pending() == 0)

    storm(part, long, act, check)
    act()


@instants_of("Futures.", "Future.", "Outbox.")
def test_futures(pool: Pool, part: str, long: bool) -> None:
    bw = pool(echo, worker_count=1)
    made: list[JobFuture] = []

    def act() -> None:
        for n in range(3):
            made.append(bw.submit({"n": n}))
        assert made[-1].result(SECONDS)["n"] == 2
        made[0].cancel()
        assert made[1].exception(SECONDS) is None

    def check(n: int) -> None:
        for future in made:
            if not future.cancelled():
                future.result(SECONDS)
        made.clear()
        wait_for(lambda: bw.pending() == 0)

    storm(part, long, act, check)
    assert bw._futures is not None
    assert bw._futures.open == {}


@instants_of("Outbox.close", "PoolEnding.")
def test_the_end_in_order(pool: Pool, part: str, long: bool) -> None:
    """Who is interrupted in it may call again."""
    pools: list[BossWorker] = []

    def act() -> None:
        pools[-1].shut_down(timeout=SECONDS)

    def renew() -> None:
        pools.append(pool(echo, worker_count=1))
        pools[-1].add_work({"n": 1}, {"n": 2})

    def check(n: int) -> None:
        pools[-1].shut_down(timeout=SECONDS)
        assert [result["n"] for result in pools[-1].results()] == [1, 2]
        pools[-1].shut_down()
        renew()

    renew()
    storm(part, long, act, check, 12)


def test_jobs_and_calls_that_are_not_started_leave_no_descriptor(long: bool, tmp_path: Path) -> None:
    queue = ForkQueue(2)

    def start() -> None:
        jobs.start(["true"], stdin=b"", root=tmp_path)

    def call() -> None:
        assert queue.call(abs, -1).result() == 1

    def check(n: int) -> None:
        start()  # whose launcher an interrupted one may have closed
        assert descriptors() <= most, f"at instruction {n}"

    for act, part in ((start, "/bossworker/"), (call, "ForkQueue.call")):
        act()
        start()
        most = descriptors()
        storm(part, long, act, check, 25)
    launching.close_launcher()


def test_a_wait_for_a_child_leaves_no_descriptor(long: bool) -> None:
    queue = ForkQueue(2)
    held = queue.run_back(signal.pause)
    with suppress(TimeoutError):
        queue.waitpids(held, timeout=0)
    most = descriptors()

    def wait() -> None:
        with suppress(TimeoutError):
            queue.waitpids(held, timeout=0.001)

    def check(n: int) -> None:
        assert descriptors() <= most, f"at instruction {n}"
        assert not queue._children._sleepers

    storm("/forkqueue/", long, wait, check, 200)
    os.kill(held, signal.SIGKILL)
    assert queue.wait() == (held, signal.SIGKILL)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def test_a_job_that_cannot_be_started_for_long_can_be_interrupted(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def wait(*_: object) -> tuple[bytes, bool]:
        signal.raise_signal(NUMBER)
        pytest.fail("the signal waits for the launcher")

    launching.close_launcher()
    monkeypatch.setattr(interpreter, "_listen", wait)
    with pytest.raises(Interrupted):
        jobs.start(["true"], root=tmp_path)
    assert jobs.listing(root=tmp_path) == []


def test_held_back_signals_leave_every_handler_in_its_place(long: bool) -> None:
    heard: list[int] = []
    numbers = (signal.SIGUSR2, signal.SIGALRM, signal.SIGINT)
    before = {number: signal.signal(number, lambda number, frame: heard.append(number)) for number in numbers}
    ours = {number: signal.getsignal(number) for number in (*numbers, NUMBER)}

    def act() -> None:
        with signals.held():
            signals.let_through(lambda: signal.raise_signal(numbers[0]))
            for number in numbers:
                signal.raise_signal(number)

    def check(n: int) -> None:
        assert signals._holds == []
        assert {number: signal.getsignal(number) for number in ours} == ours
        for number in numbers:
            signal.raise_signal(number)

    try:
        storm("system/signals.py", long, act, check)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

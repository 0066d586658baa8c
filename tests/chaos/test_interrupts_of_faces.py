"""The same of the other faces of a pool: with a journal, through a door, as an executor, watched, on an event loop."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import as_completed, wait
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest

from bossworker import AsyncBossWorker, BossWorker, Executor, JobEnded, connect
from bossworker import journal as journals
from tests.chaos.instants import raising
from tests.chaos.test_interrupts import SECONDS, Books, echo, instants_of, storm
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]


@pytest.fixture(autouse=True)
def handler() -> Iterator[None]:
    with raising():
        yield


@instants_of("JournalOutbox.", "JournalConnection.", "GivenOut.", "PoolResults.")
def test_a_journal(pool: Pool, part: str, long: bool, tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    books = Books(pool(echo, worker_count=1, journal=path))

    storm(part, long, books.go_through, books.check, 12)
    books.pool.shut_down()
    found = journals.open(path)
    assert all(job.retrieved for job in found.jobs())
    assert found.counts()["done"] == sum(found.counts().values())


@instants_of("DoorConnection.", "PoolLine.", "PoolResults.")
def test_a_client_of_a_door(pool: Pool, part: str, long: bool) -> None:
    door = pool(echo, worker_count=1).listen()
    with connect(door.address) as client:
        books = Books(client)

        storm(part, long, books.go_through, books.check, 30)


@instants_of("Executor.", "CallFutures.", "OpenFutures.", "_Waiter.")
def test_an_executor(part: str, long: bool) -> None:
    ran: list[int] = []
    with Executor(1) as ex:

        def act() -> None:
            futures = [ex.submit(abs, n) for n in (-1, -2)]
            assert [future.result(SECONDS) for future in futures] == [1, 2]
            futures = [ex.submit(abs, n) for n in (-1, -2)]
            assert not wait(futures, SECONDS).not_done
            assert {future.result() for future in as_completed(futures, SECONDS)} == {1, 2}
            assert list(ex.map(abs, [-1, -2], timeout=SECONDS)) == [1, 2]

        def check(n: int) -> None:
            assert ex.submit(abs, -n).result(SECONDS) == n
            ran.append(n)

        storm(part, long, act, check, 30)
        book = ex._pool.book()
        wait_for(lambda: not book.open and not book.unsent)


def printing(job: dict[str, Any]) -> dict[str, Any]:
    print(f"job {job['n']}", flush=True)
    return {"n": job["n"]}


@instants_of("RelayedLines.", "LinkReading.")
def test_relayed_lines(pool: Pool, part: str, long: bool, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    books = Books(pool(printing, worker_count=1, logs="relay"))

    def act() -> None:
        books.add(2)
        books.take()

    def check(n: int) -> None:
        books.check(n)

    storm(part, long, act, check, 30)
    books.pool.shut_down()
    shown = [record.getMessage() for record in caplog.records if record.name == "bossworker.job"]
    assert len(shown) == len(set(shown)), "a line was shown twice"


@instants_of("EventReader.", "PoolLooks.")
def test_events(pool: Pool, part: str, long: bool) -> None:
    books = Books(pool(echo, worker_count=1))
    events = books.pool.events()
    seen: list[int] = []

    def read(until: int) -> None:
        for event in events:
            seen.append(event.seq)
            if isinstance(event, JobEnded) and event.job_id == until:
                return

    def act() -> None:
        last = books.pool.add_work({"n": books.numbers}, {"n": books.numbers + 1})[-1]
        books.numbers += 2
        books.take()
        read(last)

    def check(n: int) -> None:
        books.check(n)

    storm(part, long, act, check, 30)
    assert seen == sorted(set(seen))


def test_what_an_event_loop_was_cut_off_in_it_does_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """The loop logs what a signal handler raises in a callback of ours, and goes on: nothing else may call it again."""

    def cut_off(where: object, name: str) -> None:
        def raising(*_: object, **__: object) -> None:
            monkeypatch.undo()
            raise TimeoutError(name)

        monkeypatch.setattr(where, name, raising)

    async def main() -> None:
        heard: list[str] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: heard.append(str(context["exception"])))
        async with AsyncBossWorker(echo, worker_count=1) as pool:
            parts = pool.pool._parts()
            for where, name in ((parts.outbox, "_submit"), (parts.connection, "_on_frame"), (parts.inbox, "fill")):
                cut_off(where, name)
                assert (await asyncio.wait_for(pool.run({"n": 1}), SECONDS))["n"] == 1
        assert heard == ["_submit", "_on_frame", "fill"]

    asyncio.run(main())


def test_tasks_that_are_cancelled_at_each_turn_of_the_loop() -> None:
    async def use(pool: AsyncBossWorker) -> None:
        async with aclosing(pool.map({"n": n} for n in range(3))) as results:
            assert [result["n"] async for result in results] == [0, 1, 2]
        assert (await pool.run({"n": 1}))["n"] == 1
        await pool.stats()

    async def cancel_at(turn: int, act: Coroutine[Any, Any, None]) -> bool:
        task = asyncio.create_task(act)
        for _ in range(turn):
            await asyncio.sleep(0)
        running = task.cancel()
        await asyncio.wait_for(asyncio.wait([task]), SECONDS)
        assert task.cancelled() or task.exception() is None
        return running

    async def main() -> None:
        async with AsyncBossWorker(echo, worker_count=1) as pool:
            turn = 0
            while await cancel_at(turn, use(pool)):
                assert (await asyncio.wait_for(pool.run({"n": turn}), SECONDS))["n"] == turn
                turn += 1
        assert turn > 10

    asyncio.run(main())

"""Batches reach Dask in the order in which they were cut, whatever each takes on its way; none waits in vain."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for
from tests.engines.marks import PATIENCE

Way = Callable[[int], Awaitable[None]]
"""What happens to the token of a batch that is the first, second, ... to be made."""


@pytest.fixture
def dask_engine() -> ModuleType:
    return pytest.importorskip("bossworker.engines.dask_engine")  # type: ignore[no-any-return]


@pytest.fixture
def on_the_way(monkeypatch: pytest.MonkeyPatch, dask_engine: ModuleType) -> Callable[[Way], None]:
    """Has each token that is made from now on do something first."""

    def set_way(way: Way) -> None:
        count = iter(range(1, 1000))

        async def make_token(self: Any, batch: Any, name: str) -> None:
            await way(next(count))
            await make(self, batch, name)

        monkeypatch.setattr(dask_engine.DaskEngine, "_make_token", make_token)

    make = dask_engine.DaskEngine._make_token
    return set_way


def add_two(bw: BossWorker) -> list[int]:
    """Two batches, which are cut at the same time; their jobs' ids."""
    bw.pause()
    ids = [*bw.add_work({"n": 1}, priority=1), *bw.add_work({"n": 2})]
    bw.resume()
    return ids


def taken(bw: BossWorker, count: int) -> list[Any]:
    found = [result for _ in range(count) if (result := bw.get_result(timeout=PATIENCE)) is not None]
    return [result.error_kind or result["n"] for result in found]


def work(job: dict[str, Any]) -> dict[str, Any]:
    while "until" in job and not Path(job["until"]).exists():
        time.sleep(0.01)
    return {"n": job["n"]}


def test_a_batch_does_not_overtake_one_that_is_more_urgent(
    pool: Callable[..., BossWorker], dask_client: Any, on_the_way: Callable[[Way], None]
) -> None:
    """The token of the second is there long before that of the first."""
    second = asyncio.Event()

    async def way(number: int) -> None:
        if number == 2:
            second.set()
        else:
            await second.wait()
            await asyncio.sleep(0.3)  # enough to run the second, were it there already

    bw = pool(work, engine=dask_client, worker_count=1)
    on_the_way(way)
    add_two(bw)
    assert taken(bw, 2) == [1, 2]


def test_a_batch_does_not_wait_for_one_that_cannot_be_sent(
    pool: Callable[..., BossWorker], dask_client: Any, on_the_way: Callable[[Way], None]
) -> None:
    """That one is tried again, a moment later."""

    async def way(number: int) -> None:
        if number == 1:
            raise OSError("no way")

    bw = pool(work, engine=dask_client, worker_count=1)
    on_the_way(way)
    add_two(bw)
    assert sorted(taken(bw, 2)) == [1, 2]


def test_a_batch_does_not_wait_for_one_that_was_cancelled(
    pool: Callable[..., BossWorker], dask_client: Any, on_the_way: Callable[[Way], None]
) -> None:
    waiting: list[int] = []

    async def way(number: int) -> None:
        waiting.append(number)
        if number == 1:
            await asyncio.Event().wait()  # for ever

    bw = pool(work, engine=dask_client, worker_count=1)
    on_the_way(way)
    first, _ = add_two(bw)
    wait_for(lambda: len(waiting) == 2, PATIENCE)
    assert bw.cancel(first) == 1
    assert taken(bw, 2) == ["cancelled", 2]


def test_turns(dask_engine: ModuleType) -> None:
    """What was taken back, perhaps before its first step, is passed over; what should have gone before it is not."""

    async def main() -> None:
        first = dask_engine._DaskBatch(None)
        second = dask_engine._DaskBatch(first)
        third = dask_engine._DaskBatch(second)
        turn = asyncio.create_task(third.turn())
        second.settled.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert not turn.done()
        first.settled.set()
        await turn
        assert third.before is None  # or all that ever went would stay

    asyncio.run(main())


def test_the_scheduler_forgets_the_tokens(tmp_path: Path, pool: Callable[..., BossWorker], dask_client: Any) -> None:
    """Those of batches that were run, and with the pool, those that were taken back."""
    bw = pool(work, engine=dask_client, worker_count=1)
    prefix = bw._adapter._prefix  # type: ignore[attr-defined]

    def tokens() -> list[str]:
        """Those of programs that were killed stay."""
        return [name for name in list(dask_client.cluster.scheduler.extensions["queues"].queues) if prefix in name]

    bw.add_work(*({"n": n} for n in range(50)))
    assert sorted(taken(bw, 50)) == list(range(50))
    wait_for(lambda: not tokens(), PATIENCE)
    until, batches = tmp_path / "until", bw._adapter._batches  # type: ignore[attr-defined]
    bw.add_work({"n": 1, "until": str(until)})
    (cancelled,) = bw.add_work({"n": 2}, timeout=1000.0)  # not joined to one batch
    wait_for(lambda: len(batches) == 2 and all(one.submitted for one in batches.values()), PATIENCE)
    assert bw.cancel(cancelled) == 1
    until.touch()
    assert taken(bw, 2) == ["cancelled", 1]
    bw.shut_down()
    wait_for(lambda: not tokens(), PATIENCE)

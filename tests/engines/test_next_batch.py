"""While a node runs a quick batch, it has the next one already; which may go elsewhere if it turns out to be long."""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.engines import resident as resident_module
from bossworker.engines.batch_book import BatchBook
from bossworker.engines.batch_sizes import BatchSizes
from bossworker.engines.home_line import WayHome
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind
from tests.conftest import wait_for
from tests.engines.marks import PATIENCE
from tests.engines.test_batch_book import NOW, batch_of, fly
from tests.engines.test_losses import two_nodes  # noqa: F401


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "until" in job:
        begun(Path(job["until"])).touch()
        while not Path(job["until"]).exists():
            time.sleep(0.01)
    return {"n": job["n"]}


def begun(until: Path) -> Path:
    """What says that a worker runs the job that waits for that file."""
    return until.with_suffix(".begun")


def take(bw: BossWorker, count: int) -> list[int]:
    """Results, as they come; not for ever."""
    found = [result for _ in range(count) if (result := bw.get_result(timeout=PATIENCE)) is not None]
    assert len(found) == count
    return sorted(result["n"] for result in found)


def learn_that_jobs_are_quick(bw: BossWorker) -> None:
    bw.add_work(*({"n": n} for n in range(50)))
    assert take(bw, 50) == list(range(50))


def flights(bw: BossWorker) -> list[Any]:
    """The batches that the engine has."""
    return list(bw._connection.line.batches.book.flights.values())  # type: ignore[attr-defined]


def nodes(bw: BossWorker) -> list[str]:
    """Where they have been claimed."""
    return [flight.node for flight in flights(bw) if flight.node]


def test_quick_is_what_is_known_to_be_so() -> None:
    sizes = BatchSizes()
    assert not sizes.quick(1, workers=1, slots=1)
    sizes.learn(1, 0.1)
    assert sizes.quick(1, workers=1, slots=1)
    assert sizes.quick(20, workers=4, slots=1)
    assert not sizes.quick(6, workers=1, slots=1)
    assert not sizes.quick(21, workers=4, slots=1)


def test_a_batch_behind_a_long_one_may_go_to_an_idle_slot() -> None:
    book = BatchBook()
    for first_id in (1, 2, 3):
        book.on_submit(batch_of(first_id, 1))
    flights = fly(book, window=3)
    for flight in flights[:2]:
        book.on_claimed(flight.number, "node")
    assert book.overdue(2, NOW + 60) == []  # a slot is busy with the first, and one will be with the third
    book.on_claimed(flights[2].number, "node")
    assert book.overdue(2, NOW + 60) == flights  # of which those that run do not come back
    assert book.overdue(2, NOW + 60, lambda node: 2) == []


def test_a_node_has_the_next_batch_while_it_runs_one(
    tmp_path: Path, pool: Callable[..., BossWorker], dask_client: Any
) -> None:
    bw = pool(work, engine=dask_client, worker_count=1)
    learn_that_jobs_are_quick(bw)
    until = tmp_path / "until"
    bw.add_work({"n": 100, "until": str(until)})
    wait_for(lambda: len(nodes(bw)) == 1, PATIENCE)
    for n in range(101, 110):
        bw.add_work({"n": n}, timeout=1000.0 + n)  # not joined to one batch
    wait_for(lambda: len(nodes(bw)) == 2, PATIENCE)
    wait_for(lambda: bw.stats().running == 1, PATIENCE)
    until.touch()
    assert take(bw, 10) == list(range(100, 110))


def test_what_is_behind_a_long_job_goes_to_an_idle_node(
    tmp_path: Path,
    pool: Callable[..., BossWorker],
    two_nodes: Any,  # noqa: F811
) -> None:
    bw = pool(work, engine=two_nodes, worker_count=1)
    learn_that_jobs_are_quick(bw)
    long, short = tmp_path / "long", tmp_path / "short"
    bw.add_work({"n": 100, "until": str(long)})
    bw.add_work({"n": 101, "until": str(short)})
    wait_for(lambda: len(set(nodes(bw))) == 2, PATIENCE)
    for n in range(102, 110):
        bw.add_work({"n": n}, timeout=1000.0 + n)
    wait_for(lambda: len(nodes(bw)) == 4, PATIENCE)  # each has one more
    short.touch()
    assert take(bw, 9) == list(range(101, 110))
    long.touch()
    assert take(bw, 1) == [100]
    assert bw.pending() == 0


def test_what_was_given_back_comes_again_to_the_same_node(tmp_path: Path, pool: Callable[..., BossWorker]) -> None:
    """While the batch that it was in is still there: results are those of the batch that they belong to now."""
    until = tmp_path / "until"
    with ThreadPoolExecutor(2) as executor, pool(work, engine=executor, worker_count=1) as bw:
        learn_that_jobs_are_quick(bw)
        bw.add_work({"n": 100, "until": str(until)}, *({"n": n} for n in range(101, 105)))
        line = bw._connection.line  # type: ignore[attr-defined]
        first = wait_for(lambda: flights(bw), PATIENCE)[0]
        assert first.jobs == 2
        wait_for(lambda: first.node, PATIENCE)  # the other one may be claimed before it
        wait_for(begun(until).exists, PATIENCE)  # until then it would come back, too
        line.calls.post(lambda: line.beats.ask_back(first))
        wait_for(lambda: first.jobs == 1, PATIENCE)
        bw.resize(2)
        assert take(bw, 4) == list(range(101, 105))
        assert flights(bw) == [first]
        until.touch()
        result = bw.get_result(timeout=PATIENCE)
        assert result is not None
        assert (result.error, result["n"]) == (None, 100)


def test_what_a_worker_has_not_begun_comes_back(tmp_path: Path, pool: Callable[..., BossWorker]) -> None:
    """Also what the boss has given to it behind a long job, as it took them all for quick."""
    bw = pool(work, worker_count=1)
    learn_that_jobs_are_quick(bw)
    until = tmp_path / "until"
    ids = bw.add_work({"n": 100, "until": str(until)}, *({"n": n} for n in range(101, 105)))
    wait_for(lambda: bw.stats().running == 1, PATIENCE)
    answer = bw._connection.request(Kind.CANCEL, messages.UNBEGUN, [array("Q", ids).tobytes()])
    assert answer == {"count": 4}
    assert [bw.get_result(timeout=PATIENCE).error_kind for _ in range(4)] == ["cancelled"] * 4  # type: ignore[union-attr]
    until.touch()
    assert take(bw, 1) == [100]


def test_what_is_asked_back_as_it_is_claimed_is_not_stopped(
    tmp_path: Path, pool: Callable[..., BossWorker], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node has asked for the batch, and does not have it yet: what its boss begins until then goes on."""
    until = tmp_path / "until"
    claim = WayHome.claim

    def claim_and_wait(way: WayHome, number: int) -> bool:
        mine = claim(way, number)
        wait_for(lambda: flights(bw)[0].node, PATIENCE)
        line.calls.post(lambda: line.beats.ask_back(flights(bw)[0]))
        (resident,) = resident_module._residents.values()
        wait_for(lambda: resident.batches[number].wanted_back, PATIENCE)
        return mine

    with ThreadPoolExecutor(1) as executor, pool(work, engine=executor, worker_count=1) as bw:
        line = bw._connection.line  # type: ignore[attr-defined]
        monkeypatch.setattr(WayHome, "claim", claim_and_wait)
        bw.add_work({"n": 100, "until": str(until)})
        wait_for(lambda: bw.stats().running == 1 or not flights(bw), PATIENCE)
        monkeypatch.undo()
        until.touch()
        assert take(bw, 1) == [100]

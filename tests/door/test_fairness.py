"""Clients of one pool take turns."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bossworker import BossWorker
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.messages import CLIENT_BITS
from tests.conftest import wait_for

Make = Callable[..., BossWorker]


def batch(client: int, first: int, count: int, priority: int = 0) -> Batch:
    options = JobOptions(priority, 0.0, 0, 1)
    return Batch(
        client << CLIENT_BITS | first, count, 0, options, array("I", [1] * count), array("Q", [1] * count), b"x" * count
    )


def clients_of(queue: Queue, most: int = 2) -> list[int]:
    found = []
    while queue.jobs:
        found.append(queue.cut(most).first_id >> CLIENT_BITS)
    return found


def test_each_client_has_its_turn() -> None:
    queue = Queue()
    queue.add(batch(0, 1, 8))
    queue.add(batch(1, 1, 4))
    queue.add(batch(2, 1, 2))
    assert clients_of(queue) == [0, 1, 2, 0, 1, 0, 0]


def test_of_a_thousand_clients_none_has_two_turns_before_each_has_had_one() -> None:
    queue = Queue()
    queue.add(batch(1, 1, 100_000))
    for client in range(2, 1002):
        queue.add(batch(client, 1, 1))
    turns = [queue.cut(500) for _ in range(1001)]
    assert sorted(one.first_id >> CLIENT_BITS for one in turns) == list(range(1, 1002))
    assert sum(one.count for one in turns) == 1000 + 500
    assert clients_of(queue, 500) == [1] * 199


def test_priorities_go_before_turns() -> None:
    queue = Queue()
    queue.add(batch(1, 1, 4))
    queue.add(batch(2, 1, 4, priority=1))
    queue.add(batch(3, 1, 2, priority=1))
    assert clients_of(queue) == [2, 3, 2, 1, 1]


def test_what_is_put_back_is_next_again() -> None:
    queue = Queue()
    queue.add(batch(1, 1, 6))
    queue.add(batch(2, 1, 2))
    assert queue.cut(2).first_id >> CLIENT_BITS == 1
    only = queue.cut(2)
    queue.put_back(only)
    assert clients_of(queue) == [2, 1, 1]


def test_dropped_clients_leave_the_rest() -> None:
    queue = Queue()
    for client in (0, 1, 2):
        queue.add(batch(client, 1, 4))
        queue.add(batch(client, 10, 4, priority=3))
    queue.drop(range(1, 2))
    assert queue.jobs == 16
    assert set(clients_of(queue)) == {0, 2}
    queue.drop(range(1, 9))
    assert queue.jobs == 0


def test_a_client_with_many_jobs_does_not_hold_up_the_one_with_few(pool: Make, clients: Make, tmp_path: Path) -> None:
    order = tmp_path / "order"

    def note(job: dict[str, Any]) -> dict[str, Any]:
        if "wait" in job:
            wait_for((tmp_path / "gate").exists)
        with order.open("a") as file:
            file.write(job["who"])
        return {}

    bw = pool(note, worker_count=1)
    door = bw.listen()
    many, few = clients(door), clients(door)
    bw.add_work({"who": "", "wait": True})
    wait_for(lambda: bw.stats().running == 1)
    many.add_work(*({"who": "m"} for _ in range(20_000)))
    wait_for(lambda: bw.stats().queued == 20_000)
    few.add_work(*({"who": "f"} for _ in range(10)))
    wait_for(lambda: bw.stats().queued == 20_010)
    bw.add_work({"who": "o"})
    wait_for(lambda: bw.stats().queued == 20_011)
    (tmp_path / "gate").touch()
    assert sum(1 for _ in few.results()) == 10
    assert bw.get_result().ok
    done = order.read_text()
    assert done.count("f") == 10
    assert done.index("o") < 2000
    assert done.rindex("f") < 10_000
    assert sum(1 for _ in many.results()) == 20_000

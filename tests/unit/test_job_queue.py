"""The queue against a plain list, with random orders; and what it costs to strike jobs out."""

from __future__ import annotations

import random
from array import array

import pytest

from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.wire.batch import Batch, JobOptions


def run_of(first_id: int, counts: list[int], priority: int = 0) -> Batch:
    """Blocks of this many jobs each; a block's bytes tell its first id."""
    blocks, at = [], first_id
    for count in counts:
        blocks.append(b"<%d>" % at)
        at += count
    sizes = array("Q", map(len, blocks))
    return Batch(first_id, sum(counts), 0, JobOptions(priority, 0.0, 0, 1), array("I", counts), sizes, b"".join(blocks))


def ids_of(batch: Batch) -> list[int]:
    """The ids as its blocks tell them."""
    found: list[int] = []
    at = 0
    for count, size in zip(batch.counts, batch.sizes, strict=True):
        first = int(bytes(batch.payload[at : at + size]).strip(b"<>"))
        found += range(first, first + count)
        at += size
    return found[batch.skip : batch.skip + batch.count]


@pytest.mark.parametrize("seed", range(20))
def test_any_order_of_calls(seed: int) -> None:
    rng = random.Random(seed)
    queue, model, next_id = Queue(), [], 1
    for _ in range(300):
        match rng.choice(["add", "add", "cut", "remove", "put back"]):
            case "add":
                counts = [rng.randint(1, 5) for _ in range(rng.randint(1, 6))]
                priority = rng.choice([0, 0, 0, 5, -1])
                queue.add(run_of(next_id, counts, priority))
                model += [(-priority, job_id) for job_id in range(next_id, next_id + sum(counts))]
                model.sort(key=lambda item: item[0])
                next_id += sum(counts)
            case "cut" if model:
                got = ids_of(queue.cut(rng.randint(1, 12)))
                assert got == [job_id for _, job_id in model[: len(got)]]
                del model[: len(got)]
            case "put back" if model:
                batch = queue.cut(rng.randint(1, 12))
                queue.put_back(batch)
            case "remove":
                ids = [rng.randint(1, next_id + 3) for _ in range(rng.choice([1, 2, 10, 100]))]
                if rng.random() < 0.3:
                    ids += range(ids[0], ids[0] + 20)
                here = {job_id for _, job_id in model}
                assert sorted(queue.remove(ids)) == [(job_id, 1) for job_id in sorted(here.intersection(ids))]
                model = [item for item in model if item[1] not in set(ids)]
        assert queue.jobs == len(model)
    left = [job_id for cursor in queue for job_id in cursor.ids]
    assert left == [job_id for _, job_id in model]
    assert queue.drain() == [(job_id, 1) for job_id in left]
    assert queue.jobs == 0


def test_a_run_without_the_job_is_left_as_it_is() -> None:
    queue = Queue()
    for n in range(3):
        queue.add(run_of(1 + 1000 * n, [1] * 10))
    before = [cursor.batch for cursor in queue]
    assert queue.remove([1003]) == [(1003, 1)]
    after = [cursor.batch for cursor in queue]
    assert (after[0], after[-1]) == (before[0], before[-1])
    assert before[1] not in after

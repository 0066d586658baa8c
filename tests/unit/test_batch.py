"""Runs, cut and joined at random, against a plain list of jobs, each job being (block, index in the block)."""

from __future__ import annotations

import random
from array import array

import pytest

from bossworker.pool.wire.batch import JOINED_BYTES, SUBMIT_BYTES, SUBMIT_JOBS, Batch, BatchCursor, JobOptions, cut_up

Job = tuple[int, int]

TERMS = JobOptions(priority=-3, timeout=1.5, retries=2, attempt=1)
SEEDS = range(12)


def make(first_id: int, counts: list[int], rng: random.Random, first_block: int = 0, skip: int = 0) -> Batch:
    """A run of blocks of this many jobs each. A block's bytes tell its number and are of a length of their own."""
    blocks = [f"<{first_block + n}:{count}>".encode().ljust(rng.randint(8, 40)) for n, count in enumerate(counts)]
    sizes = array("Q", map(len, blocks))
    return Batch(first_id, sum(counts) - skip, skip, TERMS, array("I", counts), sizes, b"".join(blocks))


def some_batch(rng: random.Random, first_id: int = 1, first_block: int = 0) -> Batch:
    counts = [rng.choice([1, 1, 2, 3, 7]) for _ in range(rng.randint(1, 9))]
    skip = rng.randint(0, counts[0] - 1)
    return make(first_id, counts, rng, first_block, skip)


def jobs_of(whole: Batch) -> list[Job]:
    """What a worker would make of it."""
    found: list[Job] = []
    at = 0
    for count, size in zip(whole.counts, whole.sizes, strict=True):
        block, _, announced = bytes(whole.payload[at : at + size]).strip().strip(b"<>").partition(b":")
        assert int(announced) == count
        found += [(int(block), n) for n in range(count)]
        at += size
    assert at == len(whole.payload)
    assert whole.skip < whole.counts[0]
    return found[whole.skip : whole.skip + whole.count]


def carries_no_more_than_it_needs(whole: Batch) -> bool:
    """Whether its first and its last job are in its first and its last block."""
    return whole.skip < whole.counts[0] and whole.skip + whole.count > sum(whole.counts[:-1])


def test_a_batch_that_came_in_a_frame_goes_on_as_it_is() -> None:
    rng = random.Random(1)
    whole = some_batch(rng)
    head, body = whole.head(), b"".join(map(bytes, whole.body()))
    again = Batch.read(memoryview(head), view := memoryview(body))
    assert again.head() == head
    (passed_on,) = again.body()
    assert passed_on is view
    assert jobs_of(again) == jobs_of(whole)  # taken apart now, and the same afterwards:
    assert (again.head(), b"".join(map(bytes, again.body()))) == (head, body)


def test_a_batch_from_a_frame_that_another_was_joined_to_is_sent_as_both() -> None:
    rng = random.Random(2)
    first, second = make(1, [2, 1], rng), make(4, [3], rng, first_block=2)
    joined = Batch.read(memoryview(first.head()), memoryview(b"".join(map(bytes, first.body()))))
    assert joined.join(second)
    again = Batch.read(memoryview(joined.head()), memoryview(b"".join(map(bytes, joined.body()))))
    assert jobs_of(again) == jobs_of(first) + jobs_of(second)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_is_the_same_part_of_the_list(seed: int) -> None:
    rng = random.Random(seed)
    whole = some_batch(rng)
    jobs = jobs_of(whole)
    for start in range(whole.count):
        for stop in range(start + 1, whole.count + 1):
            part = whole.part(start, stop)
            assert jobs_of(part) == jobs[start:stop]
            assert part.ids == whole.ids[start:stop]
            assert part.job_options == TERMS
            assert carries_no_more_than_it_needs(part)
    assert jobs_of(whole) == jobs


@pytest.mark.parametrize("seed", SEEDS)
def test_a_part_of_a_part_is_a_part(seed: int) -> None:
    rng = random.Random(seed)
    whole = some_batch(rng)
    jobs, first = jobs_of(whole), whole.first_id
    while whole.count > 1:
        start = rng.randint(0, whole.count - 1)
        stop = rng.randint(start + 1, whole.count)
        whole, jobs, first = whole.part(start, stop), jobs[start:stop], first + start
        assert jobs_of(whole) == jobs
        assert whole.ids == range(first, first + len(jobs))
        if (start, stop) == (0, whole.count):
            break


@pytest.mark.parametrize("seed", SEEDS)
def test_cutting_gives_out_every_job_once_in_order(seed: int) -> None:
    rng = random.Random(seed)
    whole = some_batch(rng)
    jobs = jobs_of(whole)
    cursor = BatchCursor(whole)
    out: list[Job] = []
    ids: list[int] = []
    while len(cursor):
        most = rng.randint(1, 6)
        batch = cursor.cut(most, 1 << 20)
        assert batch.count == min(most, len(jobs) - len(out))
        assert carries_no_more_than_it_needs(batch)
        out += jobs_of(batch)
        ids += batch.ids
        assert len(cursor) == len(jobs) - len(out)
        if len(cursor):
            rest = cursor.rest()
            assert jobs_of(rest) == jobs[len(out) :]
            assert rest.ids == whole.ids[len(out) :]
            assert carries_no_more_than_it_needs(rest)
    assert out == jobs
    assert ids == list(whole.ids)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_keeps_to_the_bytes_it_may_have_but_has_one_job_at_least(seed: int) -> None:
    rng = random.Random(seed)
    whole = some_batch(rng)
    jobs = jobs_of(whole)
    cursor = BatchCursor(whole)
    out: list[Job] = []
    while len(cursor):
        most_bytes = rng.randint(1, 120)
        rest = cursor.rest()
        batch = cursor.cut(1000, most_bytes)
        assert batch.count >= 1
        assert len(batch.payload) <= most_bytes or len(batch.counts) == 1
        blocks = len(batch.counts)
        if len(cursor):  # it is as long as it may be
            assert batch.skip + batch.count == sum(batch.counts)
            assert sum(rest.sizes[: blocks + 1]) > most_bytes
        out += jobs_of(batch)
    assert out == jobs


@pytest.mark.parametrize("seed", SEEDS)
def test_joined_runs_are_one_list(seed: int) -> None:
    rng = random.Random(seed)
    whole = some_batch(rng)
    jobs = jobs_of(whole)
    cursor = BatchCursor(whole)
    taken = 0
    for n in range(1, 6):
        if rng.random() < 0.6 and len(cursor) > 1:
            batch = cursor.cut(rng.randint(1, len(cursor) - 1), 1 << 20)
            assert jobs_of(batch) == jobs[taken : taken + batch.count]
            taken += batch.count
        counts = [rng.choice([1, 2, 5]) for _ in range(rng.randint(1, 4))]
        other = make(whole.first_id + whole.count, counts, rng, 100 * n)
        jobs += jobs_of(other)
        assert whole.join(other)
        assert jobs_of(whole) == jobs
    assert jobs_of(cursor.rest()) == jobs[taken:]
    while len(cursor):
        batch = cursor.cut(rng.randint(1, 4), 1 << 20)
        assert jobs_of(batch) == jobs[taken : taken + batch.count]
        taken += batch.count
    assert taken == len(jobs)


def test_runs_join_only_if_they_follow_on_with_the_same_terms_and_whole_blocks() -> None:
    rng = random.Random(1)
    whole = make(1, [2, 3], rng)
    follows = make(6, [2], rng, 10)
    before = jobs_of(whole)
    assert not whole.join(make(7, [2], rng, 10))
    assert not whole.join(make(5, [2], rng, 10))
    assert not whole.join(follows.with_options(TERMS._replace(retries=3)))
    assert not whole.join(make(6, [2, 2], rng, 10, skip=1))
    assert not whole.part(0, 4).join(make(5, [2], rng, 10))
    assert jobs_of(whole) == before
    assert whole.join(follows)
    assert jobs_of(whole) == [*before, (10, 0), (10, 1)]


def test_a_run_does_not_grow_without_end() -> None:
    half = JOINED_BYTES // 2 + 1
    whole = Batch(1, 1, 0, TERMS, array("I", [1]), array("Q", [half]), bytes(half))
    other = Batch(2, 1, 0, TERMS, array("I", [1]), array("Q", [half]), bytes(half))
    assert not whole.join(other)


def test_joining_changes_no_batch_that_was_cut_before() -> None:
    rng = random.Random(2)
    whole = make(1, [2, 2], rng)
    cursor = BatchCursor(whole)
    batch = cursor.cut(3, 1 << 20)
    seen = jobs_of(batch)
    whole.join(make(5, [4], rng, 10))
    cursor.cut(2, 1 << 20)
    assert jobs_of(batch) == seen == [(0, 0), (0, 1), (1, 0)]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_run_travels(seed: int) -> None:
    whole = some_batch(random.Random(seed), first_id=(1 << 40) + seed)
    there = Batch.read(memoryview(whole.head()), memoryview(b"".join(map(bytes, whole.body()))))
    assert (there.first_id, there.count, there.skip) == (whole.first_id, whole.count, whole.skip)
    assert there.job_options == TERMS
    assert (there.counts, there.sizes, bytes(there.payload)) == (whole.counts, whole.sizes, bytes(whole.payload))
    assert jobs_of(there) == jobs_of(whole)
    assert jobs_of(there.part(0, 1)) == jobs_of(whole)[:1]


@pytest.mark.parametrize("priority", [-(1 << 63), (1 << 63) - 1])
def test_extreme_terms_travel(priority: int) -> None:
    job_options = JobOptions(priority, 1e9, (1 << 32) - 1, (1 << 32) - 1)
    whole = make(1, [1], random.Random(0)).with_options(job_options)
    head, body = memoryview(whole.head()), memoryview(b"".join(map(bytes, whole.body())))
    assert Batch.read(head, body).job_options == job_options


def test_with_terms_changes_the_terms_alone() -> None:
    whole = some_batch(random.Random(3))
    again = whole.with_options(TERMS._replace(attempt=2))
    assert again.job_options.attempt == 2
    assert whole.job_options.attempt == 1
    assert jobs_of(again) == jobs_of(whole)


def test_a_small_run_travels_in_one_piece() -> None:
    whole = some_batch(random.Random(4))
    assert cut_up(whole) == [whole]


@pytest.mark.parametrize("counts", [[1] * 40_000, [64] * 700, [1, SUBMIT_JOBS, 1, 5]])
def test_many_jobs_travel_in_pieces(counts: list[int]) -> None:
    whole = make(5, counts, random.Random(5))
    pieces = cut_up(whole)
    assert len(pieces) > 1
    assert max(piece.count for piece in pieces) <= SUBMIT_JOBS
    assert [job for piece in pieces for job in jobs_of(piece)] == jobs_of(whole)
    assert [job_id for piece in pieces for job_id in piece.ids] == list(whole.ids)


def test_large_jobs_travel_in_pieces_of_about_a_size() -> None:
    sizes = [SUBMIT_BYTES // 2, SUBMIT_BYTES // 2, 3 * SUBMIT_BYTES, 1, 1, SUBMIT_BYTES]
    whole = Batch(1, 6, 0, TERMS, array("I", [1] * 6), array("Q", sizes), bytes(sum(sizes)))
    assert [(piece.first_id, list(piece.sizes)) for piece in cut_up(whole)] == [
        (1, sizes[:2]),
        (3, sizes[2:3]),
        (4, sizes[3:5]),
        (6, sizes[5:]),
    ]

"""Batches that are cut, joined, taken in part and sent, in any order, stay the list of jobs that they are."""

from __future__ import annotations

from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.wire.batch import Batch, BatchCursor, JobOptions, cut_up
from tests.unit.test_batch import TERMS, Job, carries_no_more_than_it_needs, jobs_of

pytestmark = pytest.mark.timeout(600)  # to show a failure in few steps takes a while
counts_of_blocks = st.lists(st.integers(1, 6), min_size=1, max_size=6)
widths = st.integers(8, 40)


def make(first_id: int, first_block: int, counts: list[int], width: int, terms: JobOptions = TERMS) -> Batch:
    """Whole blocks, whose bytes tell their numbers; see `jobs_of`."""
    blocks = [f"<{first_block + n}:{count}>".encode().ljust(width + n) for n, count in enumerate(counts)]
    return Batch(first_id, sum(counts), 0, terms, array("I", counts), array("Q", map(len, blocks)), b"".join(blocks))


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    """Any batch, also one that begins and ends inside a block."""
    whole = make(draw(st.integers(1, 1 << 40)), 0, draw(counts_of_blocks), draw(widths))
    start = draw(st.integers(0, whole.count - 1))
    return whole.part(start, draw(st.integers(start + 1, whole.count)))


@given(batches(), st.data())
def test_cut_anywhere_and_laid_end_to_end_it_is_the_same(whole: Batch, data: st.DataObject) -> None:
    cursor = BatchCursor(whole)
    jobs: list[Job] = []
    ids: list[int] = []
    while len(cursor):
        most, most_bytes = data.draw(st.integers(1, 8)), data.draw(st.integers(1, 150))
        piece = cursor.cut(most, most_bytes)
        assert 1 <= piece.count <= most
        assert len(piece.payload) <= most_bytes or len(piece.counts) == 1
        assert carries_no_more_than_it_needs(piece)
        jobs += jobs_of(piece)
        ids += piece.ids
    assert (jobs, ids) == (jobs_of(whole), list(whole.ids))


@given(batches(), st.data())
def test_a_part_joins_the_part_before_it_where_a_block_ends(whole: Batch, data: st.DataObject) -> None:
    if whole.count < 2:
        return
    at = data.draw(st.integers(1, whole.count - 1))
    front, back = whole.part(0, at), whole.part(at, whole.count)
    joined = front.join(back)
    assert joined is (back.skip == 0)
    assert jobs_of(front) == (jobs_of(whole) if joined else jobs_of(whole)[:at])


@given(batches())
def test_what_travels_arrives(batch: Batch) -> None:
    there = Batch.read(memoryview(batch.head()), memoryview(b"".join(map(bytes, batch.body()))))
    assert (there.ids, there.job_options, jobs_of(there)) == (batch.ids, batch.job_options, jobs_of(batch))
    assert [job for piece in cut_up(there) for job in jobs_of(piece)] == jobs_of(batch)


class QueueMachine(RuleBasedStateMachine):
    """The queue, beside a plain list of its jobs for each priority."""

    @initialize()
    def begin(self) -> None:
        self.queue = Queue()
        self.lanes: dict[int, list[tuple[int, Job]]] = {}
        self.out: list[Batch] = []
        self.next_id = 1
        self.next_block = 0

    def waiting(self) -> int:
        return sum(map(len, self.lanes.values()))

    @rule(counts=counts_of_blocks, width=widths, priority=st.integers(-1, 1), gap=st.sampled_from([0, 0, 1]))
    def add(self, counts: list[int], width: int, priority: int, gap: int) -> None:
        batch = make(self.next_id + gap, self.next_block, counts, width, TERMS._replace(priority=priority))
        self.next_id += gap + batch.count
        self.next_block += len(counts)
        self.lanes.setdefault(priority, []).extend(zip(batch.ids, jobs_of(batch), strict=True))
        self.queue.add(batch)

    @precondition(lambda self: self.waiting() > 0)
    @rule(most=st.integers(1, 10))
    def cut(self, most: int) -> None:
        batch = self.queue.cut(most)
        lane = self.lanes[max(self.lanes)]
        assert batch.count <= most
        assert list(zip(batch.ids, jobs_of(batch), strict=True)) == lane[: batch.count]
        del lane[: batch.count]
        self.out.append(batch)
        self.forget_empty_lanes()

    @precondition(lambda self: bool(self.out))
    @rule(data=st.data())
    def put_back(self, data: st.DataObject) -> None:
        """As when a worker has died, or is slow: the jobs behind some position."""
        batch = self.out.pop(data.draw(st.integers(0, len(self.out) - 1)))
        rest = batch.part(data.draw(st.integers(0, batch.count - 1)), batch.count)
        jobs = list(zip(rest.ids, jobs_of(rest), strict=True))
        self.lanes[rest.job_options.priority] = jobs + self.lanes.get(rest.job_options.priority, [])
        self.queue.put_back(rest)

    @rule(ids=st.sets(st.integers(1, 60), max_size=8))
    def remove(self, ids: set[int]) -> None:
        removed = self.queue.remove(ids)
        assert {job_id for job_id, _ in removed} == ids & {one for lane in self.lanes.values() for one, _ in lane}
        for lane in self.lanes.values():
            lane[:] = [(one, job) for one, job in lane if one not in ids]
        self.forget_empty_lanes()

    def forget_empty_lanes(self) -> None:
        self.lanes = {priority: lane for priority, lane in self.lanes.items() if lane}

    @invariant()
    def it_holds_what_the_lists_hold(self) -> None:
        assert self.queue.jobs == self.waiting()
        held = [
            (one, job) for cursor in self.queue for one, job in zip(cursor.ids, jobs_of(cursor.rest()), strict=True)
        ]
        assert held == [entry for priority in sorted(self.lanes, reverse=True) for entry in self.lanes[priority]]


TestQueue = QueueMachine.TestCase

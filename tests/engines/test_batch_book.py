"""What is decided about batches, without an engine: each job has one result, whatever comes back and in which order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from bossworker.engines.batch_book import BatchBook, Flight
from bossworker.engines.batch_sizes import BatchSizes
from bossworker.failure import KIND_BITS, Outcome
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.codec import encode_jobs
from bossworker.pool.wire.segments import Segment, single

NOW = 1000.0


def batch_of(first_id: int, count: int, priority: int = 0, retries: int = 0) -> Batch:
    blocks = encode_jobs([{"n": n} for n in range(first_id, first_id + count)])
    options = JobOptions(priority, 0.0, retries, 1)
    return Batch(first_id, count, 0, options, blocks.counts, blocks.sizes, blocks.payload())  # type: ignore[arg-type]


def ended(job_id: int, outcome: Outcome = Outcome.OK, pid: int = 7) -> Segment:
    return single(job_id, pid, 1, NOW, NOW + 0.01, outcome, b"")


def told(segments: Iterable[Segment]) -> list[tuple[int, str]]:
    """The jobs, and how they ended."""
    return [
        (one.first_id + at, Outcome(one.outcomes[at] & KIND_BITS).name) for one in segments for at in range(one.jobs)
    ]


def fly(book: BatchBook, slots: int = 1, workers: int = 1, window: int = 1) -> list[Flight]:
    return list(book.cut(slots, workers, window, NOW))


def test_batches_grow_until_they_are_worth_it() -> None:
    sizes = BatchSizes()
    assert sizes.jobs_in_batch(workers=4, slots=1) == 4
    sizes.learn(4, 4 * 0.01)
    assert sizes.jobs_in_batch(workers=4, slots=1) == 4 * 10
    sizes.learn(1000, 0.0)
    assert sizes.jobs_in_batch(workers=1, slots=1) == 20  # of jobs of 5 ms, in the mean
    assert sizes.jobs_in_batch(workers=1, slots=1000) == 2000  # on a large cluster, batches are longer
    quick = BatchSizes()
    quick.learn(1, 0.0)
    assert quick.jobs_in_batch(workers=1, slots=1) == 16  # at most 16 times as many as before


def ran(job_id: int, started: float, seconds: float = 0.1) -> Segment:
    return single(job_id, 7, 1, started, started + seconds, Outcome.OK, b"")


def test_batches_get_longer_while_nodes_wait_for_them() -> None:
    book = BatchBook()
    book.sizes.learn(1, 0.1)
    book.on_submit(batch_of(1, 1000))
    starts, sizes = NOW, []
    for _ in range(6):  # each batch comes half a second too late
        (flight,) = fly(book)
        sizes.append(flight.batch.count)
        results = [ran(job_id, starts + 0.1 * n) for n, job_id in enumerate(flight.batch.ids)]
        book.on_answer(flight.number, results, "node", "", NOW)
        starts += 0.1 * len(results) + 0.5
    assert sizes[:2] == [1, 1]
    assert sizes == sorted(sizes)
    assert sizes[-1] == 5
    for _ in range(60):  # and now in time
        (flight,) = fly(book)
        results = [ran(job_id, starts + 0.1 * n) for n, job_id in enumerate(flight.batch.ids)]
        book.on_answer(flight.number, results, "node", "", NOW)
        starts += 0.1 * len(results)
    assert flight.batch.count == 1


def test_nodes_that_have_nothing_to_wait_for_do_not_wait() -> None:
    book = BatchBook()
    book.sizes.learn(1, 0.1)
    for n in range(1, 20):
        book.on_submit(batch_of(n, 1))
        (flight,) = fly(book)
        book.on_answer(flight.number, [ran(n, NOW + 10 * n)], "node", "", NOW)
    assert book.sizes.jobs_in_batch(workers=1, slots=1) == 1


def test_few_jobs_go_to_all_slots() -> None:
    book = BatchBook()
    book.on_submit(batch_of(1, 8))
    assert [flight.batch.count for flight in fly(book, slots=2, workers=8, window=4)] == [4, 4]


def test_a_lost_batch_crashes_or_is_tried_again() -> None:
    book = BatchBook()
    book.on_submit(batch_of(1, 1))
    book.on_submit(batch_of(2, 1, retries=1))
    first, second = fly(book, window=2)
    assert told(book.on_lost(first.number, "node", NOW)) == [(1, "CRASH")]
    assert book.on_lost(second.number, "node", NOW) == []
    (again,) = fly(book)
    assert (again.batch.first_id, again.batch.job_options.attempt) == (2, 2)
    assert told(book.on_lost(again.number, "node", NOW)) == [(2, "CRASH")]


def test_what_came_early_is_not_told_twice_and_not_lost() -> None:
    book = BatchBook()
    book.sizes.learn(1, 0.001)
    book.on_submit(batch_of(1, 3))
    (flight,) = fly(book, workers=3)
    assert told(book.on_early([ended(2)])) == [(2, "OK")]
    assert book.on_early([ended(2)]) == []
    assert told(book.on_lost(flight.number, "node", NOW)) == [(1, "CRASH"), (3, "CRASH")]
    assert book.on_answer(flight.number, [ended(1), ended(2), ended(3)], "node", "", NOW) == []


def test_what_was_asked_back_is_queued_again() -> None:
    book = BatchBook()
    book.on_submit(batch_of(1, 3))
    (flight,) = fly(book, workers=3)
    book.on_claimed(flight.number, "node")
    assert book.overdue(2, NOW) == []
    assert book.overdue(2, NOW + 60) == [flight]
    flight.asked_back |= {1, 2, 3}
    back = [ended(2, Outcome.CANCELLED, pid=0), ended(3, Outcome.CANCELLED, pid=0)]
    assert told(book.on_answer(flight.number, [ended(1), *back], "node", "", NOW)) == [(1, "OK")]
    assert book.queue.jobs == 2
    assert not book.flights


def test_what_is_more_urgent_takes_the_place_of_what_nobody_has_begun() -> None:
    book = BatchBook()
    book.on_submit(batch_of(1, 1))
    book.on_submit(batch_of(2, 1, priority=-1))
    first, second = fly(book, window=2)
    assert book.less_urgent() is None
    book.on_submit(batch_of(3, 1, priority=5))
    assert book.less_urgent() is second
    second.tried_back = True
    book.on_claimed(first.number, "node")
    assert book.less_urgent() is None
    book.on_unstarted(second.number, NOW)
    assert [flight.batch.first_id for flight in fly(book, window=2)] == [3]


def test_with_the_engine_what_had_begun_is_lost() -> None:
    book = BatchBook()
    book.on_submit(batch_of(1, 1))
    book.on_submit(batch_of(2, 1, retries=3))
    book.on_submit(batch_of(3, 2))
    flights = fly(book, window=3)
    for flight in flights[:2]:
        book.on_claimed(flight.number, "node")
    assert told(book.on_engine_gone(NOW)) == [(1, "CRASH")]  # job 2 may have run, and would be tried again
    assert book.never_started([2, 4]) == {4}


class Storm(RuleBasedStateMachine):
    """Whatever happens in whatever order: one result a job."""

    def __init__(self) -> None:
        super().__init__()
        self.book = BatchBook()
        self.next_id = 1
        self.results: Counter[int] = Counter()

    def take(self, segments: list[Segment]) -> None:
        self.results.update(job_id for job_id, _ in told(segments))

    @rule(count=st.integers(1, 20), priority=st.integers(-1, 1), retries=st.integers(0, 1))
    def submit(self, count: int, priority: int, retries: int) -> None:
        self.book.on_submit(batch_of(self.next_id, count, priority, retries))
        self.next_id += count

    @rule(slots=st.integers(1, 3), workers=st.integers(1, 3), window=st.integers(1, 6))
    def dispatch(self, slots: int, workers: int, window: int) -> None:
        fly(self.book, slots, workers, window)

    def some_flight(self, at: int) -> Flight | None:
        flights = list(self.book.flights.values())
        return flights[at % len(flights)] if flights else None

    @rule(at=st.integers(0, 5), share=st.floats(0, 1))
    def early(self, at: int, share: float) -> None:
        flight = self.some_flight(at)
        if flight is not None:
            ids = list(flight.batch.ids)
            self.take(self.book.on_early([ended(job_id) for job_id in ids[: int(share * len(ids))]]))

    @rule(at=st.integers(0, 5), share=st.floats(0, 1))
    def answer(self, at: int, share: float) -> None:
        flight = self.some_flight(at)
        if flight is not None:
            ids = list(flight.batch.ids)
            some = [ended(job_id) for job_id in ids[: int(share * len(ids)) + 1]]
            self.take(self.book.on_answer(flight.number, some, "node", "ended", NOW))

    @rule(at=st.integers(0, 5))
    def lose(self, at: int) -> None:
        flight = self.some_flight(at)
        if flight is not None:
            self.take(self.book.on_lost(flight.number, "node", NOW))

    @rule(at=st.integers(0, 5), share=st.floats(0, 1))
    def take_back(self, at: int, share: float) -> None:
        """Some of its jobs were cancelled."""
        flight = self.some_flight(at)
        if flight is not None:
            ids = sorted(flight.open_ids())
            flight.cancelled |= set(ids[: int(share * len(ids))])
            self.take(self.book.on_unstarted(flight.number, NOW))

    @rule(job_id=st.integers(1, 60))
    def cancel(self, job_id: int) -> None:
        self.take(self.book.cancel_queued([job_id], NOW))

    @invariant()
    def none_is_told_of_twice_or_forgotten(self) -> None:
        queued = [job_id for cursor in self.book.queue for job_id in cursor.ids]
        flying = [job_id for flight in self.book.flights.values() for job_id in flight.open_ids()]
        everywhere = Counter(queued) + Counter(flying) + self.results
        assert everywhere == Counter(range(1, self.next_id))
        assert self.book.queue.jobs == len(queued)


TestStorm = Storm.TestCase

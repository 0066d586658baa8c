"""The caller's results: each given out once, whatever arrives twice, too late, or is asked for by many."""

from __future__ import annotations

import gc
import pickle
import random
import sys
import threading
import tracemalloc
from array import array
from collections.abc import Callable, Iterator, Sequence
from types import FrameType, SimpleNamespace
from typing import Any

import pytest

from bossworker.errors import CANCELLED
from bossworker.failure import Outcome, capture, encode_error, encode_text
from bossworker.pool.caller import inbox as inbox_module
from bossworker.pool.caller import sent_jobs as sent_jobs_module
from bossworker.pool.caller import unpacking as unpacking_module
from bossworker.pool.caller.inbox import Inbox
from bossworker.pool.caller.result_queue import ResultQueue
from bossworker.pool.caller.sent_jobs import kept
from bossworker.pool.wire import codec
from bossworker.pool.wire.codec import encode_jobs, encode_result
from bossworker.pool.wire.parcel import Parcel
from bossworker.pool.wire.segments import Segment, read_segments, single
from bossworker.result import Result
from bossworker.system import one_step
from bossworker.system.compiled import core as compiled_core
from tests.unit.payloads import in_one
from tests.unit.storm import Interruption, Storm

PID = 77


def arrive(*segments: Segment) -> list[Segment]:
    """Segments as they come off the wire."""
    head = b"".join(segment.head() for segment in segments)
    body = b"".join(bytes(part) for segment in segments for part in segment.body())
    return read_segments(memoryview(head), memoryview(body))


def segment(first_id: int, given: Sequence[tuple[int, bytes | Parcel]], base: int = 0, attempt: int = 1) -> Segment:
    """A worker's results, as its recorder holds them from `base` on: each over the full stop of the one before."""
    encoded = [(how, in_one(data)[: -1 if how in (Outcome.OK, Outcome.REPORTED) else None]) for how, data in given]
    ends = array("Q")
    for _, payload in encoded:
        ends.append((ends[-1] if ends else base) + len(payload))
    marks = array("d", [first_id + n / 4 for n in range(len(encoded) + 1)])
    outcomes = bytes(outcome for outcome, _ in encoded)
    payload = b"".join(payload for _, payload in encoded)
    return Segment(first_id, len(encoded), base, PID, attempt, marks.tobytes(), ends.tobytes(), outcomes, payload)


def good(first_id: int, count: int, base: int = 0) -> list[Segment]:
    """Results {"n": id} of consecutive jobs."""
    encoded = [encode_result({"n": first_id + n}) for n in range(count)]
    return arrive(segment(first_id, encoded, base))


def expecting(first_id: int, count: int) -> Inbox:
    inbox = Inbox()
    inbox.note_call(first_id)
    inbox.expect(first_id, [{"job": first_id + n} for n in range(count)])
    return inbox


def drain(inbox: Inbox, queue: ResultQueue | None = None) -> Iterator[Result]:
    while (result := inbox.next(queue)) is not None:
        yield result


def test_results_come_with_the_facts_about_them() -> None:
    inbox = expecting(5, 3)
    inbox.receive(good(5, 3, base=1000))
    results = list(drain(inbox))
    assert results == [{"n": 5}, {"n": 6}, {"n": 7}]
    assert [result.job_id for result in results] == [5, 6, 7]
    assert [result.job for result in results] == [{"job": 5}, {"job": 6}, {"job": 7}]
    assert [result.duration for result in results] == [0.25] * 3
    assert {(result.worker_pid, result.attempts, result.ok) for result in results} == {(PID, 1, True)}


def test_a_result_is_no_larger_for_the_company_it_came_in() -> None:
    inbox = expecting(1, 2000)
    inbox.receive(good(1, 2000))
    result = inbox.next()
    assert len(pickle.dumps(result)) < 2000


def test_every_result_tells_when_its_own_job_was_added(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    clock = SimpleNamespace(monotonic=lambda: now, time=lambda: now)
    monkeypatch.setattr("bossworker.system.wall_clock.time", clock)
    monkeypatch.setattr("bossworker.pool.caller.sent_jobs.time", clock)
    inbox = Inbox()
    for first in range(1, 900, 3):
        now = float(first)
        inbox.note_call(first)
        inbox.expect(first, [{}, {}, {}])
        if first > 600:
            inbox.receive(good(first - 600, 3))
            list(drain(inbox))
    for first in range(301, 900, 7):
        inbox.receive(good(first, min(7, 901 - first)))
    results = list(drain(inbox))
    assert [result.job_id for result in results] == list(range(301, 901))
    assert [result.queued_at for result in results] == [float(n - (n - 1) % 3) for n in range(301, 901)]


def test_each_result_is_given_out_once() -> None:
    inbox = expecting(1, 10)
    inbox.receive(good(1, 10))
    assert len(list(drain(inbox))) == 10
    assert inbox.next() is None
    assert (len(inbox.jobs), inbox.pending(), inbox.has_news()) == (0, 0, False)


def test_an_empty_inbox_has_nothing() -> None:
    inbox = Inbox()
    assert inbox.next() is None
    assert not inbox.has_news()
    assert (inbox.outstanding, inbox.unfinished()) == (0, 0)


def test_news_and_numbers_follow_what_arrives() -> None:
    inbox = expecting(1, 10)
    assert (inbox.outstanding, inbox.unfinished(), inbox.has_news()) == (10, 10, False)
    inbox.receive(good(1, 4))
    assert (inbox.outstanding, inbox.unfinished(), inbox.has_news()) == (10, 6, True)
    inbox.next()
    assert (inbox.outstanding, inbox.unfinished(), inbox.has_news()) == (9, 6, True)
    list(drain(inbox))
    assert (inbox.outstanding, inbox.unfinished(), inbox.has_news()) == (6, 6, False)


def test_a_segment_that_is_received_twice_does_no_harm() -> None:
    inbox = expecting(1, 6)
    inbox.receive(good(1, 3))
    inbox.receive(good(1, 3) + good(4, 3))
    assert [result.job_id for result in drain(inbox)] == [1, 2, 3, 4, 5, 6]
    inbox.receive(good(1, 6))
    assert inbox.next() is None
    assert not inbox.has_news()


@pytest.mark.parametrize("calls", range(1, 12))
def test_an_interruption_while_results_are_unpacked_costs_none_and_doubles_none(
    calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    inbox = expecting(1, 12)
    inbox.receive(arrive(*(segment(1 + 4 * n, [encode_result({"f": lambda: 1})] * 4) for n in range(3))))
    left = calls
    load = codec.load_result

    def interrupted(outcome: int, payload: memoryview) -> dict[Any, Any]:
        nonlocal left
        left -= 1
        if not left:
            raise KeyboardInterrupt
        return load(outcome, payload)

    monkeypatch.setattr("bossworker.pool.caller.unpacking.load_result", interrupted)
    found: list[int] = []
    interruptions = 0
    while len(found) < 12:
        try:
            result = inbox.next()
        except KeyboardInterrupt:
            interruptions += 1
            continue
        assert result is not None
        found.append(result.job_id)
    assert interruptions == 1
    assert found == list(range(1, 13))
    assert inbox.next() is None


def test_results_of_forgotten_jobs_are_dropped() -> None:
    inbox = expecting(1, 9)
    inbox.forget([1, 5, 9, 777])
    assert (inbox.pending(), inbox.unfinished()) == (6, 6)
    inbox.receive(good(1, 3) + good(4, 6))
    assert [result.job_id for result in drain(inbox)] == [2, 3, 4, 6, 7, 8]
    assert (inbox.pending(), inbox.unfinished(), inbox.has_news()) == (0, 0, False)


def test_a_job_forgotten_after_its_result_arrived_is_not_waited_for_a_second_time() -> None:
    inbox = expecting(1, 4)
    inbox.receive(good(1, 4))
    assert inbox.next() == {"n": 1}
    inbox.forget([1, 2])
    assert [result.job_id for result in drain(inbox)] == [2, 3, 4]  # whoever forgets it knows what to do with it
    assert (inbox.pending(), inbox.unfinished()) == (0, 0)


def test_a_job_that_is_forgotten_while_its_result_is_handed_over_is_waited_for_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    inbox = expecting(1, 3)
    inbox.receive(good(1, 1))

    def late(steps: Any) -> Any:
        inbox.forget([1])  # another thread, or a signal handler
        return one_step.steps_of(steps)

    monkeypatch.setattr(inbox_module, "steps_of", late)
    inbox.unpack()
    assert (inbox.unfinished(), inbox.ready.forgotten) == (2, set())


def test_results_of_forgotten_jobs_do_not_make_others_count_as_finished() -> None:
    inbox = expecting(1, 10)
    inbox.forget(range(1, 6))
    inbox.receive(good(1, 5))
    assert inbox.unfinished() == 5


def test_clearing_leaves_nothing() -> None:
    inbox = expecting(1, 7)
    queue = ResultQueue()
    inbox.expect(8, [{}], queue)
    inbox.receive(good(1, 2) + good(3, 2))
    inbox.next()
    inbox.clear()
    assert inbox.next() is None
    assert (len(inbox.jobs), inbox.pending(), inbox.outstanding, inbox.unfinished(), inbox.has_news()) == (
        0,
        0,
        0,
        0,
        False,
    )
    inbox.receive(good(5, 4))
    assert (inbox.next(), inbox.next(queue), inbox.pending()) == (None, None, 0)


def test_a_signal_handler_that_clears_everything_amid_a_segment_leaves_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a forced shutdown from a handler does."""
    inbox = expecting(1, 4)
    inbox.receive(arrive(segment(1, [encode_result({"f": lambda: 1})] * 4)))
    load = codec.load_result

    def cleared(outcome: int, payload: memoryview) -> dict[Any, Any]:
        inbox.clear()
        return load(outcome, payload)

    monkeypatch.setattr("bossworker.pool.caller.unpacking.load_result", cleared)
    assert inbox.next() is None
    assert (len(inbox.jobs), inbox.pending(), inbox.has_news()) == (0, 0, False)


# -- what is known of jobs -------------------------------------------------------------------------------------


def test_jobs_of_plain_data_are_kept_as_bytes_and_told_as_they_were() -> None:
    jobs: list[dict[str, Any]] = [{"n": n, "more": [n, {"x": None}]} for n in range(200)]
    jobs[130]["f"] = test_an_empty_inbox_has_nothing  # so that 64 of them are kept as they are
    inbox = Inbox()
    inbox.expect(1, kept(jobs, encode_jobs(jobs)))
    inbox.receive(good(1, 90) + good(91, 110))
    results = list(drain(inbox))
    assert [result.job for result in results] == jobs
    assert results[5].job is results[5].job
    assert results[5].job["more"] is not jobs[5]["more"]
    assert results[130].job["more"] is jobs[130]["more"]


def test_the_jobs_that_have_no_result_are_known_whatever_has_come() -> None:
    inbox = Inbox()
    inbox.expect(11, [{"n": n} for n in range(11, 21)])  # by a thread that was quicker
    inbox.expect(1, [{"n": n} for n in range(1, 11)])
    for job_id in range(21, 26):
        inbox.expect_one(job_id, {"n": job_id})
    inbox.receive(good(1, 3) + good(9, 4) + good(22, 2))
    inbox.unpack()
    left = [4, 5, 6, 7, 8, *range(13, 22), 24, 25]
    assert list(inbox.jobs) == left
    assert [job_id for job_id in range(40) if job_id in inbox.jobs] == left
    assert inbox.unfinished_jobs() == [(job_id, {"n": job_id}) for job_id in left]
    assert (len(inbox.jobs), inbox.unfinished(), inbox.pending()) == (16, 16, 25)


def test_jobs_that_could_not_be_sent_are_not_waited_for() -> None:
    inbox = expecting(1, 5)
    inbox.expect_one(6, {})
    inbox.expect_one(7, {})
    inbox.jobs.retract(range(7, 8))
    inbox.expect_one(8, {})
    inbox.jobs.retract(range(1, 6))
    inbox.jobs.retract(range(1, 6))  # nothing had been noted
    assert (list(inbox.jobs), inbox.pending()) == ([6, 8], 2)


def test_runs_that_are_through_are_swept_out() -> None:
    inbox = Inbox()
    for first in range(1, 2001, 2):
        inbox.expect(first, [{}, {}])
        inbox.receive(good(first, 2))
        assert len(list(drain(inbox))) == 2
    assert len(inbox.jobs._runs) < 200


def test_what_the_program_has_got_is_told_from_what_waits_for_it() -> None:
    inbox = expecting(1, 6)
    inbox.receive(good(1, 4))
    inbox.next()
    assert inbox.given_out(range(1, 7)) == [1]
    inbox.drop([6])
    assert inbox.given_out(range(1, 7)) == [1, 6]


# -- results with a queue of their own -------------------------------------------------------------------------


def test_results_go_to_the_queue_of_their_jobs_and_no_other() -> None:
    inbox = Inbox()
    queues = [ResultQueue(), ResultQueue(), None]
    for first in range(1, 13, 2):
        inbox.expect(first, [{}, {}], queues[first // 2 % 3])
    assert (inbox.outstanding, inbox.pending()) == (4, 12)
    inbox.receive(good(1, 5) + good(6, 7))
    assert [result.job_id for result in drain(inbox, queues[1])] == [3, 4, 9, 10]
    assert [result.job_id for result in drain(inbox)] == [5, 6, 11, 12]
    assert [result.job_id for result in drain(inbox, queues[0])] == [1, 2, 7, 8]
    assert inbox.pending() == 0


def test_nothing_goes_to_a_queue_that_is_closed() -> None:
    inbox = expecting(4, 1)
    queue = ResultQueue()
    inbox.expect(1, [{}, {}, {}], queue)
    inbox.receive(good(1, 1))
    inbox.unpack()
    assert (len(queue), inbox.jobs.waited_for_in(queue)) == (1, [2, 3])
    inbox.close_queue(queue)
    assert (len(queue), inbox.pending(), inbox.unfinished()) == (0, 1, 1)
    inbox.receive(good(2, 2))
    assert inbox.unfinished() == 1
    assert (len(queue), list(inbox.jobs)) == (0, [4])


def test_results_put_aside_for_a_queue_count_as_arrived() -> None:
    inbox = expecting(3, 2)
    queue = ResultQueue()
    inbox.expect(1, [{}, {}], queue)
    inbox.receive(good(1, 2))
    assert inbox.next() is None
    assert (len(queue), inbox.unfinished(), inbox.pending()) == (2, 2, 4)


# -- threads ---------------------------------------------------------------------------------------------------


def test_several_threads_get_every_result_once() -> None:
    rounds, jobs, threads = 4, 2000, 4
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for seed in range(rounds):
            rng = random.Random(seed)
            inbox = expecting(1, jobs)
            segments = [part for first in range(1, jobs + 1, 10) for part in good(first, 10)]
            segments += rng.sample(segments, 50)  # some twice
            rng.shuffle(segments)
            found: list[list[int]] = [[] for _ in range(threads)]
            start = threading.Barrier(threads + 1)

            def take(mine: list[int], inbox: Inbox = inbox, start: threading.Barrier = start) -> None:
                start.wait()
                while inbox.pending():
                    result = inbox.next()
                    if result is not None:
                        assert result == {"n": result.job_id}
                        mine.append(result.job_id)

            takers = [threading.Thread(target=take, args=(mine,)) for mine in found]
            for taker in takers:
                taker.start()
            start.wait()
            for part in segments:
                inbox.receive([part])
            for taker in takers:
                taker.join()
            assert sorted(job_id for mine in found for job_id in mine) == list(range(1, jobs + 1))
    finally:
        sys.setswitchinterval(switch)


OURS = (inbox_module.__file__, sent_jobs_module.__file__, unpacking_module.__file__)


def taken_with_a_switch(at: int, routed: bool) -> tuple[list[int], Inbox, bool]:
    """Take all results, with another thread taking one as the `at`-th line of ours is reached; whether it was."""
    inbox, route = Inbox(), ResultQueue() if routed else None
    inbox.expect(1, [{"job": n} for n in range(1, 7)], route)
    inbox.receive(good(1, 3) + good(4, 3))
    taken: list[int] = []
    lines = 0

    def take() -> None:
        if (result := inbox.next(route)) is not None:
            taken.append(result["n"])

    def trace(frame: FrameType, event: str, _: object) -> Callable[..., Any] | None:
        nonlocal lines
        if frame.f_code.co_filename not in OURS:
            return None
        lines += event == "line"
        if event == "line" and lines == at:
            other = threading.Thread(target=take)
            other.start()
            others.append(other)
            other.join(0.05)  # while we hold the lock that it waits for, it cannot end
        return trace

    others: list[threading.Thread] = []
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        take()
    finally:
        sys.settrace(before)
    for other in others:
        other.join()
    while (result := inbox.next(route)) is not None:
        taken.append(result["n"])
    return taken, inbox, bool(others)


@pytest.mark.parametrize("routed", [False, True])
def test_each_result_is_given_out_once_whatever_line_threads_are_switched_at(routed: bool) -> None:
    at, switched = 1, True
    while switched:
        taken, inbox, switched = taken_with_a_switch(at, routed)
        assert sorted(taken) == list(range(1, 7)), f"with a switch at line event {at}"
        assert (len(inbox.jobs), inbox.pending(), inbox.has_news()) == (0, 0, False)
        at += 1
    assert at > 10


def test_one_thread_may_add_jobs_while_others_take_results() -> None:
    jobs = 12_000
    inbox = Inbox()
    over = threading.Event()
    found: list[int] = []
    troubles: list[Exception] = []

    def take() -> None:
        while not over.is_set():
            try:
                found.extend(result.job_id for result in drain(inbox))
            except Exception as error:
                troubles.append(error)

    takers = [threading.Thread(target=take) for _ in range(2)]
    switch = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for taker in takers:
            taker.start()
        for job_id in range(1, jobs + 1):
            inbox.note_call(job_id)
            inbox.expect(job_id, [{}])
            inbox.receive(good(job_id, 1))
    finally:
        over.set()
        sys.setswitchinterval(switch)
        for taker in takers:
            taker.join()
    found += [result.job_id for result in drain(inbox)]
    assert not troubles
    assert sorted(found) == list(range(1, jobs + 1))


# -- interrupted -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("routed", [False, True])
def test_no_result_is_lost_or_doubled_whenever_a_signal_handler_raises(routed: bool) -> None:
    jobs = 20_000
    inbox, queue = Inbox(), ResultQueue() if routed else None
    inbox.expect(1, [{"job": n} for n in range(jobs)], queue)
    for first in range(1, jobs + 1, 20):
        inbox.receive(good(first, 20))
    found: list[int] = []
    with Storm(Interruption, random.Random(3)) as storm:
        while len(found) < jobs:
            result = None
            try:
                storm.open = True
                result = inbox.next(queue)
                storm.open = False  # no call since the return: the result is ours, or was never given out
            except Interruption:
                pass
            else:
                assert result is not None, f"{jobs - len(found)} results are lost"
            if result is not None:
                found.append(result.job_id)
    assert storm.hits > 20
    assert found == list(range(1, jobs + 1))
    assert (len(inbox.jobs), inbox.pending()) == (0, 0)


# -- contents --------------------------------------------------------------------------------------------------


class Treacherous:
    """Pickles well, and fails to load."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _fail, ("on purpose",)


def _fail(text: str) -> None:
    raise RuntimeError(text)


def test_a_result_that_does_not_load_is_a_bad_result_and_its_neighbours_are_good() -> None:
    inbox = expecting(1, 3)
    inbox.receive(
        arrive(segment(1, [encode_result({"n": 1}), encode_result({"n": Treacherous()}), encode_result({"n": 3})]))
    )
    first, bad, last = drain(inbox)
    assert (first, last) == ({"n": 1}, {"n": 3})
    assert bad.error_kind == "bad_result"
    assert bad["ERROR"] == bad.error
    assert "RuntimeError: on purpose" in bad["ERROR"]
    assert [result.job_id for result in (first, bad, last)] == [1, 2, 3]


@pytest.mark.parametrize(
    "odd",
    [
        {"bytes": b"a \x80\x03} that begins no result"},
        {str(n): [n] for n in range(300)},  # more objects than there are numbers of one byte
        {"tuple": (1, {"in": {}}), "set": {1, 2}, "dict": {"n": {}}},
        {},
    ],
    ids=["bytes", "many", "nested", "empty"],
)
@pytest.mark.parametrize("compiled", [True, False])
def test_whatever_results_hold_they_are_loaded_as_they_were(
    odd: dict[str, Any], compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking_module, "core", compiled_core if compiled else None)
    inbox = expecting(1, 3)
    inbox.receive(arrive(segment(1, [encode_result({"n": 1}), encode_result(odd), encode_result({"n": odd})])))
    results = list(drain(inbox))
    assert [dict(result) for result in results] == [{"n": 1}, odd, {"n": odd}]
    assert [(type(result), result.job_id) for result in results] == [(Result, 1), (Result, 2), (Result, 3)]
    assert type(results[2]["n"]) is dict


def test_bytes_that_are_no_error_are_a_bad_result() -> None:
    inbox = expecting(1, 1)
    inbox.receive(arrive(single(1, PID, 1, 0.0, 1.0, Outcome.EXCEPTION, b"garbage")))
    (bad,) = drain(inbox)
    assert bad.error_kind == "bad_result"


def test_a_segment_of_every_kind_of_outcome_is_told_apart() -> None:
    error = encode_error(capture(ValueError("rattle")))
    inbox = expecting(1, 6)
    encoded = [
        encode_result({"n": 1}),
        (Outcome.EXCEPTION, error),
        encode_result({"ERROR": "mine", "n": 3}),
        encode_result({"f": lambda: 4}),
        (Outcome.CANCELLED | Outcome.TEXT, encode_text(CANCELLED)),
        encode_result(None),
    ]
    inbox.receive(arrive(segment(1, encoded, base=50)))
    one, raised, reported, whole, cancelled, empty = drain(inbox)
    assert one == {"n": 1}
    assert (raised.error_kind, raised["ERROR"]) == ("exception", "ValueError: rattle")
    assert type(raised.exception) is ValueError
    assert (reported.error_kind, reported.error, reported["n"], reported.ok) == ("reported", "mine", 3, False)
    assert (whole["f"](), whole.ok) == (4, True)
    assert (cancelled.error_kind, cancelled["ERROR"]) == ("cancelled", CANCELLED)
    assert (empty, empty.ok) == ({}, True)


def test_an_error_of_the_handlers_own_may_be_no_text() -> None:
    inbox = expecting(1, 1)
    inbox.receive(arrive(segment(1, [encode_result({"ERROR": 404})])))
    (result,) = drain(inbox)
    assert (result["ERROR"], result.error, result.error_kind) == (404, "404", "reported")


def test_a_job_of_plain_data_that_waits_takes_no_more_than_its_bytes() -> None:
    """For programs that add more jobs than they could hold as dicts: each would take 300 bytes."""
    inbox = Inbox()
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for first in range(1, 20_001, 500):
            jobs = [{"a": n, "b": n + 1} for n in range(first, first + 500)]
            inbox.expect(first, kept(jobs, encode_jobs(jobs)))
        del jobs
        gc.collect()
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (after - before) / 20_000 < 40

"""The ledger's orderings: events in, actions out, no process anywhere."""

from __future__ import annotations

import logging
import time
from array import array
from collections.abc import Iterable
from typing import Any, TypeVar

import pytest

from bossworker.errors import CANCELLED, TIMED_OUT, WORKER_DIED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import (
    Action,
    Actions,
    Assign,
    Finish,
    Interrupt,
    Kill,
    Leave,
    Spawn,
    TakeBack,
    Tell,
    Tried,
)
from bossworker.pool.boss.deadlines import GLANCE_SECONDS, OVERDUE_SECONDS, REPEAT_SECONDS, SENDING_SECONDS
from bossworker.pool.boss.job_lengths import BATCH_SECONDS
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.starts import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from bossworker.pool.boss.workers import Exit, State
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.recorder import MAX_BATCH, PAYLOAD_SIZE, Snapshot

GRACE = 1.0
A = TypeVar("A")

NOTHING_YET = Snapshot(claimed=0, published=0, started=0.0, running=False)
KILLED = Exit("signal 9, SIGKILL)", -9)
LEFT = Exit("exit code 0)", 0)


def run_of(
    first_id: int, count: int, *, timeout: float = 0.0, priority: int = 0, retries: int = 0, attempt: int = 1
) -> Batch:
    """Jobs of a byte each, each a block of its own."""
    job_options = JobOptions(priority, timeout, retries, attempt)
    return Batch(first_id, count, 0, job_options, array("I", [1] * count), array("Q", [1] * count), b"j" * count)


def running(claimed: int, started: float = 0.0) -> Snapshot:
    """The worker is in its `claimed`th job."""
    return Snapshot(claimed, claimed - 1, started, True)


def of(kind: type[A], actions: Iterable[Any]) -> list[A]:
    return [action for action in actions if isinstance(action, kind)]


def exactly(actions: Actions, *expected: Action) -> bool:
    """Whether these are the actions: of the same kinds too, which a comparison of the tuples alone passes over."""
    return actions == list(expected) and list(map(type, actions)) == list(map(type, expected))


def assigned(actions: Actions) -> list[tuple[int, list[int]]]:
    """Which slot got which jobs."""
    return [(action.slot, list(action.batch.ids)) for action in of(Assign, actions)]


def queued(ledger: Ledger) -> list[tuple[int, int]]:
    """(id, attempt) of what waits, most urgent first."""
    found = [(job_id, c.batch.job_options.attempt) for c in ledger.queue for job_id in c.rest().ids]
    assert len(found) == ledger.queue.jobs
    return found


def queued_ids(ledger: Ledger) -> list[int]:
    return [job_id for job_id, _ in queued(ledger)]


def new_ledger(workers: int, **settings: Any) -> Ledger:
    return Ledger(workers, **{"kill_grace": GRACE, "max_jobs_per_worker": 0, **settings})


def up(ledger: Ledger, *slots: int, now: float = 0.0) -> Actions:
    """These slots' workers come up, with pid 100 + slot."""
    actions: Actions = []
    for slot in slots:
        ledger.on_spawned(slot, 100 + slot)
        actions += ledger.on_up(slot, now)
    return actions


def started(workers: int, **settings: Any) -> Ledger:
    """A ledger whose workers are all up and idle."""
    ledger = new_ledger(workers, **settings)
    spawns = ledger.on_tick(0.0)
    assert exactly(spawns, *map(Spawn, range(workers)))
    assert up(ledger, *range(workers)) == []
    assert ledger.staff.complete
    return ledger


def complete(
    ledger: Ledger, slot: int, now: float = 0.0, seconds: float | None = None, leaves: bool = False
) -> Actions:
    """The worker is through with what is left to it of its batch."""
    worker = ledger.workers[slot]
    ledger.on_taken(slot, worker.limit)
    return ledger.on_done(slot, worker.limit * 1.0 if seconds is None else seconds, leaves, now)


def with_batch(jobs: int, *, extra: int = 0, workers: int = 1, first_id: int = 1, **job_options: Any) -> Ledger:
    """A ledger in which slot 0 has a batch of `jobs` short jobs, the others are idle, and `extra` are queued."""
    ledger = started(workers, max_batch=jobs)
    for slot in range(1, workers):  # keep them out of the way
        ledger.on_submit(run_of(10_000 + slot, 1), 0.0)
        assert ledger.workers[workers - slot].state is State.BUSY
    ledger.on_submit(run_of(9_999, 1), 0.0)
    complete(ledger, 0, seconds=1e-6)
    total = max(jobs + extra, 2 * workers * jobs)
    (action,) = of(Assign, ledger.on_submit(run_of(first_id, total, **job_options), 0.0))
    assert action.batch.ids == range(first_id, first_id + jobs)
    surplus = range(first_id + jobs + extra, first_id + total)
    ledger.queue.remove(surplus)
    assert queued_ids(ledger) == list(range(first_id + jobs, first_id + jobs + extra))
    for slot in range(1, workers):
        worker = ledger.workers[slot]
        worker.batch, worker.state = None, State.IDLE
        ledger.staff.idle.append(slot)
    return ledger


# -- handing out -----------------------------------------------------------------------------------------------


def test_a_job_goes_to_an_idle_worker_at_once() -> None:
    ledger = started(2)
    ((slot, jobs),) = assigned(ledger.on_submit(run_of(1, 1), 0.0))
    assert jobs == [1]
    assert ledger.workers[slot].state is State.BUSY


def test_every_idle_worker_gets_work_and_the_rest_waits() -> None:
    ledger = started(3)
    given = assigned(ledger.on_submit(run_of(1, 5), 0.0))
    assert sorted(slot for slot, _ in given) == [0, 1, 2]
    assert [jobs for _, jobs in given] == [[1], [2], [3]]
    assert queued_ids(ledger) == [4, 5]


def test_a_worker_that_is_not_up_gets_nothing() -> None:
    ledger = new_ledger(1)
    assert exactly(ledger.on_tick(0.0), Spawn(0))
    assert ledger.on_submit(run_of(1, 1), 0.0) == []
    assert assigned(up(ledger, 0)) == [(0, [1])]


def test_a_worker_that_is_through_gets_the_next_job() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 2), 0.0)
    assert assigned(complete(ledger, 0)) == [(0, [2])]
    assert complete(ledger, 0) == []
    assert ledger.workers[0].state is State.IDLE


@pytest.mark.parametrize(("seconds", "jobs"), [(1e-4, 100), (5e-4, 20), (0.0025, 4), (0.006, 2), (0.007, 1), (0.5, 1)])
def test_batches_are_worth_ten_milliseconds_of_work(seconds: float, jobs: int) -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1), 0.0)
    complete(ledger, 0, seconds=seconds)
    ((_, given),) = assigned(ledger.on_submit(run_of(2, 1000), 0.0))
    assert given == list(range(2, 2 + jobs))


@pytest.mark.parametrize(("seconds", "soon"), [(1e-6, True), (90e-6, True), (250e-6, False), (1.0, False)])
def test_the_boss_stays_awake_for_batches_that_are_soon_done(seconds: float, soon: bool) -> None:
    ledger = started(1)
    (first,) = of(Assign, ledger.on_submit(run_of(1, 1), 0.0))
    assert first.soon  # nobody knows
    complete(ledger, 0, seconds=seconds)
    (second,) = of(Assign, ledger.on_submit(run_of(2, 1), 0.0))
    assert second.soon is soon


def test_the_learned_length_follows_the_jobs() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 100_000), 0.0)
    sizes = []
    for seconds in (1e-5, 1e-5, 0.01, 0.01, 0.01, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5, 1e-5):
        limit = ledger.workers[0].limit
        ((_, given),) = assigned(complete(ledger, 0, seconds=seconds * limit))
        sizes.append(len(given))
    assert 975 <= sizes[1] <= 1000
    assert sizes[4] == 1
    assert sizes[-1] > 50


def test_one_very_long_job_does_not_spoil_the_estimate_for_good() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 100_000), 0.0)
    complete(ledger, 0, seconds=3600.0)
    rounds = 0
    while ledger.workers[0].limit < 50:
        complete(ledger, 0, seconds=1e-6 * ledger.workers[0].limit)
        rounds += 1
        assert rounds < 20


def test_a_batch_is_no_more_than_a_fair_share_of_the_queue() -> None:
    ledger = started(2)
    ledger.on_submit(run_of(1, 1), 0.0)
    (busy,) = ledger.busy()
    complete(ledger, busy.slot, seconds=1e-6)
    given = assigned(ledger.on_submit(run_of(2, 40), 0.0))
    assert [len(jobs) for _, jobs in given] == [10, 8]


def test_a_batch_is_never_larger_than_the_recorder_holds() -> None:
    ledger = started(1, max_batch=7)
    ledger.on_submit(run_of(1, 1), 0.0)
    complete(ledger, 0, seconds=1e-7)
    ((_, given),) = assigned(ledger.on_submit(run_of(2, 1000), 0.0))
    assert len(given) == 7


def test_first_in_first_out() -> None:
    ledger = started(1)
    order = [
        job_id for first in (1, 4, 7) for _, ids in assigned(ledger.on_submit(run_of(first, 3), 0.0)) for job_id in ids
    ]
    while ledger.busy():
        order += [job_id for _, ids in assigned(complete(ledger, 0)) for job_id in ids]
    assert order == list(range(1, 10))


def test_a_higher_priority_runs_first_and_a_lower_one_last() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1), 0.0)
    for first, priority in ((2, 0), (4, 5), (6, -3), (8, 5)):
        ledger.on_submit(run_of(first, 2, priority=priority), 0.0)
    assert queued_ids(ledger) == [4, 5, 8, 9, 2, 3, 6, 7]
    order = []
    while ledger.busy():
        order += [job_id for _, ids in assigned(complete(ledger, 0)) for job_id in ids]
    assert order == [4, 5, 8, 9, 2, 3, 6, 7]


def test_a_batch_never_mixes_terms() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1), 0.0)
    ledger.on_submit(run_of(2, 3, timeout=1.0), 0.0)
    ledger.on_submit(run_of(5, 3, timeout=2.0), 0.0)
    while ledger.busy():
        actions = complete(ledger, 0, seconds=1e-7)
        for action in of(Assign, actions):
            expected = 1.0 if action.batch.first_id < 5 else 2.0
            assert action.batch.job_options.timeout == expected
            assert set(action.batch.ids) <= (set(range(2, 5)) if expected == 1.0 else set(range(5, 8)))


# -- a worker dies ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("claimed", "taken", "spilled", "victim", "back"),
    [
        (0, 0, [], None, [1, 2, 3, 4]),
        (1, 0, [], 1, [2, 3, 4]),
        (1, 0, [1], None, [2, 3, 4]),
        (2, 1, [], 2, [3, 4]),
        (3, 2, [], 3, [4]),
        (3, 2, [1], 3, [4]),
        (3, 2, [3], None, [4]),
        (4, 3, [], 4, []),
        (4, 3, [4], None, []),
        (4, 4, [], None, []),
    ],
)
def test_only_the_running_job_falls_with_its_worker(
    claimed: int, taken: int, spilled: list[int], victim: int | None, back: list[int]
) -> None:
    ledger = with_batch(4)
    for job_id in spilled:
        ledger.on_spilled(0, job_id)
    ledger.on_taken(0, taken)
    actions = ledger.on_exit(0, KILLED, Snapshot(claimed, taken, 0.25, claimed > taken), 1.0)
    verdicts = of(Finish, actions)
    assert [verdict.job_id for verdict in verdicts] == ([] if victim is None else [victim])
    for verdict in verdicts:
        assert verdict == Finish(
            victim or 0, 100, 1, Outcome.CRASH, f"{WORKER_DIED} (signal 9, SIGKILL)", 0.25, 1.0, -9
        )
    assert queued_ids(ledger) == back
    assert of(Spawn, actions) == [Spawn(0)]
    assert ledger.staff.restarts == 1


def test_what_a_dead_worker_never_started_goes_to_the_front_and_to_others_at_once() -> None:
    ledger = with_batch(4, extra=2, workers=2)
    ledger.on_taken(0, 1)
    actions = ledger.on_exit(0, KILLED, running(2), 1.0)
    assert [v.job_id for v in of(Finish, actions)] == [2]
    ((slot, jobs),) = assigned(actions)
    assert slot == 1
    assert jobs[0] == 3
    assert jobs + queued_ids(ledger) == [3, 4, 5, 6]
    assert queued(ledger)[-1] == (6, 1)


def test_what_was_taken_back_before_the_death_does_not_go_back_twice() -> None:
    ledger = with_batch(4)
    ledger.on_taken(0, 1)
    ledger.reclaim(0, running(2), 0.0)
    assert queued_ids(ledger) == [3, 4]
    actions = ledger.on_exit(0, KILLED, running(2), 1.0)
    assert [v.job_id for v in of(Finish, actions)] == [2]
    assert queued_ids(ledger) == [3, 4]


def test_an_idle_worker_that_dies_is_replaced_and_gets_nothing_more() -> None:
    ledger = started(2)
    actions = ledger.on_exit(1, KILLED, NOTHING_YET, 1.0)
    assert exactly(actions, Spawn(1))
    assert [slot for slot, _ in assigned(ledger.on_submit(run_of(1, 2), 1.0))] == [0]


def test_a_retry_is_the_next_attempt_and_comes_before_everything_queued() -> None:
    ledger = with_batch(3, extra=1, retries=2)
    ledger.on_exit(0, KILLED, running(1), 1.0)
    assert queued(ledger) == [(1, 2), (2, 1), (3, 1), (4, 1)]
    ((_, jobs),) = assigned(up(ledger, 0, now=1.0))
    assert jobs == [1]
    ledger.on_exit(0, KILLED, running(1), 2.0)
    assert queued(ledger) == [(1, 3), (2, 1), (3, 1), (4, 1)]
    up(ledger, 0, now=2.0)
    actions = ledger.on_exit(0, KILLED, running(1), 3.0)
    (finish,) = of(Finish, actions)
    assert (finish.job_id, finish.attempt, finish.outcome) == (1, 3, Outcome.CRASH)
    assert queued_ids(ledger) == [2, 3, 4]


def test_jobs_that_never_started_keep_their_attempts() -> None:
    ledger = with_batch(3, retries=0)
    ledger.on_exit(0, KILLED, NOTHING_YET, 1.0)
    assert queued(ledger) == [(1, 1), (2, 1), (3, 1)]


# -- time is up ------------------------------------------------------------------------------------------------


def timed(timeout: float = 2.0, **job_options: Any) -> Ledger:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1, timeout=timeout, **job_options), 0.0)
    return ledger


def test_nothing_happens_before_the_limit() -> None:
    ledger = timed(2.0)
    assert ledger.seconds_until_due(0.0) == pytest.approx(OVERDUE_SECONDS)  # has the worker begun at all?
    assert ledger.on_look(0, running(1), OVERDUE_SECONDS) == []
    assert ledger.seconds_until_due(0.0) == pytest.approx(GLANCE_SECONDS + OVERDUE_SECONDS)
    assert ledger.on_look(0, running(1), 1.5) == []
    assert ledger.seconds_until_due(0.0) == pytest.approx(2.0)
    assert ledger.due(1.9) == []
    assert ledger.on_look(0, running(1), 1.9) == []
    assert ledger.seconds_until_due(1.9) == pytest.approx(0.1)


def test_at_the_limit_an_interrupt_then_again_then_the_kill() -> None:
    ledger = timed(2.0)
    assert ledger.due(2.0) == [0]
    assert exactly(ledger.on_look(0, running(1), 2.0), Interrupt(0, 1))
    assert ledger.seconds_until_due(2.0) == pytest.approx(REPEAT_SECONDS)
    assert exactly(ledger.on_look(0, running(1), 2.0 + REPEAT_SECONDS), Interrupt(0, 1))
    assert exactly(ledger.on_look(0, running(1), 2.98), Interrupt(0, 1))
    assert ledger.seconds_until_due(2.98) == pytest.approx(0.02)
    assert exactly(ledger.on_look(0, running(1), 3.0), Kill(0))
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, running(1), 3.01))
    assert (finish.outcome, finish.text, finish.started, finish.finished) == (Outcome.TIMEOUT, TIMED_OUT, 0.0, 3.01)


def test_after_the_kill_the_boss_may_sleep_until_the_worker_is_gone() -> None:
    ledger = timed(2.0)
    ledger.on_look(0, running(1), 2.0)
    assert exactly(ledger.on_look(0, running(1), 3.0), Kill(0))
    seconds = ledger.seconds_until_due(3.0)
    assert seconds is None or seconds > 0


def test_the_limit_counts_from_the_start_of_the_job_not_of_the_batch() -> None:
    ledger = with_batch(2, timeout=2.0)
    ledger.on_taken(0, 1)
    assert not of(Interrupt, ledger.on_look(0, running(2, started=1.5), 2.5))
    assert of(Interrupt, ledger.on_look(0, running(2, started=1.5), 3.5)) == [Interrupt(0, 2)]


def test_a_job_without_a_limit_is_never_interrupted() -> None:
    ledger = timed(0.0)
    assert ledger.on_look(0, running(1), 1e6) == []
    assert ledger.seconds_until_due(1e6) == GLANCE_SECONDS


def test_a_timed_out_job_is_not_tried_again() -> None:
    ledger = timed(2.0, retries=5)
    ledger.on_look(0, running(1), 2.0)
    ledger.on_look(0, running(1), 3.0)
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, running(1), 3.1))
    assert finish.outcome is Outcome.TIMEOUT
    assert queued(ledger) == []


def test_a_limit_that_passed_for_one_job_does_no_harm_to_the_next() -> None:
    ledger = with_batch(3, timeout=2.0)
    assert of(Interrupt, ledger.on_look(0, running(1), 2.0)) == [Interrupt(0, 1)]
    ledger.on_taken(0, 1)
    after = running(2, started=2.01)
    for now in (2.05, 2.9, 3.0, 3.5, 4.0):
        assert not of(Interrupt, ledger.on_look(0, after, now))
        assert not of(Kill, ledger.on_look(0, after, now))
    assert of(Interrupt, ledger.on_look(0, after, 4.01)) == [Interrupt(0, 2)]
    assert not of(Kill, ledger.on_look(0, after, 4.5))
    assert of(Kill, ledger.on_look(0, after, 5.02)) == [Kill(0)]


def test_after_a_limit_that_passed_the_boss_sleeps_until_the_next_one() -> None:
    ledger = with_batch(2, timeout=2.0)
    ledger.on_look(0, running(1), 2.0)
    ledger.on_taken(0, 1)
    ledger.on_look(0, running(2, started=2.01), 2.05)
    assert ledger.seconds_until_due(2.05) == pytest.approx(GLANCE_SECONDS)
    ledger.on_look(0, running(2, started=2.01), 3.5)
    assert ledger.seconds_until_due(3.5) == pytest.approx(4.01 - 3.5)


def test_the_next_job_that_dies_of_itself_has_crashed_not_timed_out() -> None:
    ledger = with_batch(2, timeout=2.0)
    ledger.on_look(0, running(1), 2.0)
    ledger.on_taken(0, 1)
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, running(2, started=2.01), 2.02))
    assert (finish.job_id, finish.outcome) == (2, Outcome.CRASH)


def test_the_next_batch_starts_with_a_clean_slate() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 2, timeout=2.0), 0.0)
    ledger.on_look(0, running(1), 2.0)
    assert assigned(complete(ledger, 0, now=2.1)) == [(0, [2])]
    assert ledger.on_look(0, running(1, started=2.1), 3.5) == []
    assert exactly(ledger.on_look(0, running(1, started=2.1), 4.1), Interrupt(0, 2))


def test_a_job_that_has_ended_but_is_still_being_sent_is_left_alone() -> None:
    ledger = timed(2.0)
    assert ledger.on_look(0, Snapshot(1, 0, 0.0, False), 5.0) == []


# -- cancel ----------------------------------------------------------------------------------------------------


def test_a_queued_job_that_is_cancelled_never_runs() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 4), 0.0)
    count, actions = ledger.on_cancel([3], {}, 1.0)
    assert count == 1
    assert exactly(actions, Finish(3, 0, 0, Outcome.CANCELLED, CANCELLED, 1.0, 1.0))
    assert queued_ids(ledger) == [2, 4]


def test_cancel_strikes_out_any_set_of_queued_jobs_and_keeps_the_order() -> None:
    ledger = new_ledger(1)
    for first, priority in ((1, 0), (11, 3), (21, 0)):
        ledger.on_submit(run_of(first, 10, priority=priority), 0.0)
    gone = [1, 5, 6, 10, 11, 30, 25, 777]
    count, actions = ledger.on_cancel(gone, {}, 0.0)
    assert count == 7
    assert sorted(v.job_id for v in of(Finish, actions)) == [1, 5, 6, 10, 11, 25, 30]
    kept = [*range(11, 21), *range(1, 11), *range(21, 31)]
    assert queued_ids(ledger) == [job_id for job_id in kept if job_id not in gone]


def test_a_cancelled_job_tells_how_often_it_was_started() -> None:
    ledger = with_batch(1, retries=1)
    ledger.on_exit(0, KILLED, running(1), 1.0)
    _, actions = ledger.on_cancel([1], {}, 2.0)
    assert [v.attempt for v in of(Finish, actions)] == [1]


def test_an_unclaimed_job_of_a_batch_is_cancelled_as_a_queued_one() -> None:
    ledger = with_batch(4)
    snapshot = running(2)
    ledger.on_taken(0, 1)
    ledger.reclaim(0, snapshot, 0.0)
    count, actions = ledger.on_cancel([3], {0: snapshot}, 0.0)
    assert count == 1
    assert [v.job_id for v in of(Finish, actions)] == [3]
    assert not of(Interrupt, actions)
    assert queued_ids(ledger) == [4]
    assert ledger.workers[0].limit == 2


def test_a_running_job_that_is_cancelled_is_interrupted_and_killed_after_the_grace() -> None:
    ledger = timed(0.0)
    count, actions = ledger.on_cancel([1], {0: running(1)}, 5.0)
    assert count == 1
    assert exactly(actions, Interrupt(0, 1))
    assert ledger.workers[0].cancelled == {1}
    assert 0 < (ledger.seconds_until_due(5.0) or 0) <= REPEAT_SECONDS
    assert exactly(ledger.on_look(0, running(1), 5.0 + GRACE), Kill(0))
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, running(1), 6.1))
    assert (finish.outcome, finish.text) == (Outcome.CANCELLED, CANCELLED)


def test_a_cancelled_job_whose_worker_dies_is_not_tried_again() -> None:
    ledger = timed(0.0, retries=3)
    ledger.on_cancel([1], {0: running(1)}, 5.0)
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, running(1), 5.1))
    assert finish.outcome is Outcome.CANCELLED
    assert queued(ledger) == []


def test_a_cancel_wins_over_a_timeout() -> None:
    ledger = timed(2.0)
    ledger.on_look(0, running(1), 2.0)
    count, actions = ledger.on_cancel([1], {0: running(1)}, 2.5)
    assert (count, actions) == (1, [])
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, running(1), 3.1))
    assert finish.outcome is Outcome.CANCELLED


def test_the_grace_of_a_cancelled_job_is_not_extended_by_cancelling_again() -> None:
    ledger = timed(0.0)
    ledger.on_cancel([1], {0: running(1)}, 5.0)
    count, actions = ledger.on_cancel([1], {0: running(1)}, 5.9)
    assert (count, actions) == (0, [])
    assert exactly(ledger.on_look(0, running(1), 5.0 + GRACE), Kill(0))


def test_a_finished_job_cannot_be_cancelled() -> None:
    ledger = with_batch(2)
    ledger.on_taken(0, 1)
    assert ledger.on_cancel([1], {0: running(2)}, 0.0) == (0, [])
    ledger.on_taken(0, 2)
    assert ledger.on_cancel([2], {0: Snapshot(2, 2, 0.0, False)}, 0.0) == (0, [])
    complete(ledger, 0)
    assert ledger.on_cancel([1, 2, 777], {}, 0.0) == (0, [])


def test_a_job_whose_large_result_has_arrived_cannot_be_cancelled() -> None:
    ledger = timed(0.0)
    ledger.on_spilled(0, 1)
    assert ledger.on_cancel([1], {0: Snapshot(1, 0, 0.0, False)}, 0.0) == (0, [])


def test_the_job_after_a_cancelled_one_is_left_alone() -> None:
    ledger = with_batch(2)
    ledger.on_cancel([1], {0: running(1)}, 0.0)
    ledger.on_taken(0, 1)
    after = running(2, started=0.1)
    assert not of(Kill, ledger.on_look(0, after, 5.0))
    (finish,) = of(Finish, ledger.on_exit(0, KILLED, after, 6.0))
    assert (finish.job_id, finish.outcome) == (2, Outcome.CRASH)


def test_a_worker_that_waits_for_a_job_gets_one_that_a_cancel_uncovered() -> None:
    ledger = with_batch(4, workers=2)
    snapshot = running(1)
    ledger.reclaim(0, snapshot, 0.0)
    _, actions = ledger.on_cancel([2], {0: snapshot}, 0.0)
    ((slot, jobs),) = assigned(actions)
    assert slot == 1
    assert jobs + queued_ids(ledger) == [3, 4]


@pytest.mark.parametrize("step", [1, 2])
def test_cancelling_many_queued_jobs_does_not_hold_the_boss_up(step: int) -> None:
    """At the cost of the whole queue for each of them, the boss would watch no deadline for many seconds."""
    ledger = new_ledger(1)
    ledger.on_submit(run_of(0, 1 << 13), 0.0)
    before = time.process_time()
    count, actions = ledger.on_cancel(list(range(0, 1 << 13, step)), {}, 0.0)
    assert time.process_time() - before < 0.5
    assert count == len(actions) == (1 << 13) // step
    assert ledger.queue.jobs == (1 << 13) - count


# -- taking back -----------------------------------------------------------------------------------------------


def test_jobs_behind_an_overdue_one_are_taken_back() -> None:
    ledger = with_batch(4)
    assert ledger.seconds_until_due(0.0) == pytest.approx(OVERDUE_SECONDS)
    assert exactly(ledger.on_look(0, running(2, started=0.0), OVERDUE_SECONDS * 2), TakeBack(0))


def test_the_jobs_taken_back_go_to_the_front_and_to_whoever_is_idle() -> None:
    ledger = with_batch(4, extra=2, workers=2)
    actions = ledger.on_taken_back(0, running(1), 0.01)
    assert ledger.workers[0].limit == 1
    ((slot, jobs),) = assigned(actions)
    assert slot == 1
    assert jobs[0] == 2
    assert jobs + queued_ids(ledger) == [2, 3, 4, 5, 6]


def test_what_is_taken_back_is_behind_nothing_else_of_its_priority() -> None:
    ledger = with_batch(4, extra=2)
    ledger.on_taken_back(0, running(1), 0.01)
    assert queued_ids(ledger) == [2, 3, 4, 5, 6]


def test_jobs_are_left_where_they_are_while_the_worker_gets_on() -> None:
    ledger = with_batch(4)
    assert ledger.on_look(0, running(2, started=0.0099), 0.01) == []


def test_idle_hands_take_jobs_off_a_worker_that_is_not_even_late() -> None:
    ledger = with_batch(4, workers=2)
    assert exactly(ledger.on_look(0, running(1, started=0.0099), 0.01), TakeBack(0))


def test_idle_hands_leave_a_worker_its_last_job() -> None:
    ledger = with_batch(2, workers=2)
    ledger.on_taken(0, 1)
    assert ledger.on_look(0, running(2, started=0.0), 1.0) == []


def test_the_last_job_of_a_batch_is_hardly_watched_but_for_its_limit() -> None:
    ledger = with_batch(2)
    ledger.on_taken(0, 1)
    ledger.on_look(0, running(2, started=0.0), 0.001)
    assert ledger.seconds_until_due(0.001) == pytest.approx(GLANCE_SECONDS)


def test_taking_back_twice_gives_nothing_back_twice() -> None:
    ledger = with_batch(4)
    ledger.on_taken_back(0, running(1), 0.01)
    ledger.on_taken_back(0, running(1), 0.02)
    assert queued_ids(ledger) == [2, 3, 4]


def test_taking_back_from_a_worker_that_is_through_is_nothing() -> None:
    ledger = started(1)
    assert ledger.on_taken_back(0, NOTHING_YET, 0.0) == []
    assert ledger.on_look(0, NOTHING_YET, 0.0) == []


# -- more workers, fewer workers -------------------------------------------------------------------------------


def test_more_workers_are_started_at_once() -> None:
    ledger = started(1)
    assert exactly(ledger.on_resize(3, 0.0), Spawn(1), Spawn(2))
    assert not ledger.staff.complete
    up(ledger, 1, 2)
    assert ledger.staff.complete


def test_idle_workers_leave_first() -> None:
    ledger = started(3)
    ((busy, _),) = assigned(ledger.on_submit(run_of(1, 1), 0.0))
    actions = ledger.on_resize(1, 0.0)
    assert {leave.slot for leave in of(Leave, actions)} == {0, 1, 2} - {busy}
    assert not of(TakeBack, actions)


def test_a_busy_worker_too_many_leaves_when_its_job_is_done_and_its_tail_goes_to_others() -> None:
    ledger = with_batch(4)
    ledger.on_resize(2, 0.0)
    up(ledger, 1)
    ledger.on_taken_back(0, running(1), 0.0)
    assert ledger.workers[1].batch is not None
    actions = ledger.on_resize(1, 0.0)
    (told,) = of(TakeBack, actions)
    slot = told.slot
    assert of(Leave, complete(ledger, slot)) == [Leave(slot)]
    restarts = ledger.staff.restarts
    assert not of(Spawn, ledger.on_exit(slot, LEFT, NOTHING_YET, 0.0))
    assert ledger.staff.restarts == restarts
    assert len(ledger.workers) == 1


def test_a_starting_worker_too_many_leaves_when_it_is_up() -> None:
    ledger = new_ledger(3)
    ledger.on_tick(0.0)
    assert ledger.on_resize(1, 0.0) == []
    assert exactly(up(ledger, 0), Leave(0))
    assert exactly(up(ledger, 1), Leave(1))
    assert up(ledger, 2) == []
    assert ledger.workers[2].state is State.IDLE


def test_fewer_and_then_more_replaces_those_that_were_told_to_leave() -> None:
    ledger = started(2)
    ledger.on_submit(run_of(1, 2), 0.0)
    assert len(of(TakeBack, ledger.on_resize(1, 0.0))) == 1
    assert of(Spawn, ledger.on_resize(2, 0.0)) == [Spawn(2)]


def test_a_worker_told_to_leave_gets_no_more_work() -> None:
    ledger = started(2)
    ledger.on_submit(run_of(1, 2), 0.0)
    (told,) = of(TakeBack, ledger.on_resize(1, 0.0))
    ledger.on_submit(run_of(3, 5), 0.0)
    assert exactly(complete(ledger, told.slot), Leave(told.slot))


def test_a_leaving_worker_that_is_killed_is_not_replaced() -> None:
    ledger = started(2)
    (leave,) = of(Leave, ledger.on_resize(1, 0.0))
    assert ledger.on_exit(leave.slot, KILLED, NOTHING_YET, 0.0) == []


# -- workers that have worked enough ---------------------------------------------------------------------------


def test_a_worker_leaves_after_its_number_of_jobs_and_is_replaced() -> None:
    ledger = started(1, max_jobs_per_worker=2)
    ledger.on_submit(run_of(1, 5), 0.0)
    assert assigned(complete(ledger, 0)) == [(0, [2])]
    assert exactly(complete(ledger, 0), Leave(0), Spawn(1))  # at once: an exit_handler may take its time
    assert assigned(up(ledger, 1)) == [(1, [3])]
    assert ledger.on_exit(0, LEFT, NOTHING_YET, 0.0) == []
    assert ledger.staff.restarts == 1


def test_a_batch_holds_no_more_than_the_jobs_a_worker_has_left() -> None:
    ledger = started(1, max_jobs_per_worker=10)
    ledger.on_submit(run_of(1, 1), 0.0)
    complete(ledger, 0, seconds=1e-7)
    ((_, jobs),) = assigned(ledger.on_submit(run_of(2, 1000), 0.0))
    assert len(jobs) == 9
    assert exactly(complete(ledger, 0, seconds=1e-6), Leave(0), Spawn(1))


def test_a_worker_that_leaves_of_itself_is_replaced() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 2), 0.0)
    assert exactly(complete(ledger, 0, leaves=True), Spawn(1))
    assert queued_ids(ledger) == [2]
    assert ledger.on_exit(0, LEFT, NOTHING_YET, 0.0) == []


# -- workers that have been stopped ----------------------------------------------------------------------------


def test_a_job_that_a_stopped_worker_has_not_begun_goes_to_another() -> None:
    ledger = started(2)
    ((slot, _),) = assigned(ledger.on_submit(run_of(1, 1), 0.0))
    assert ledger.due(OVERDUE_SECONDS) == [slot]
    assert exactly(ledger.on_look(slot, NOTHING_YET, OVERDUE_SECONDS), TakeBack(slot))
    assert assigned(ledger.on_taken_back(slot, NOTHING_YET, OVERDUE_SECONDS)) == [(1 - slot, [1])]


def test_starts_that_fail_together_count_as_one() -> None:
    ledger = started(8)
    for slot in range(8):
        ledger.on_exit(slot, KILLED, NOTHING_YET, float(slot))
    actions = [a for slot in range(8) for a in ledger.on_start_failed(slot, "EAGAIN", 10.0)]
    assert len(of(Tell, actions)) == 1
    assert (ledger.staff.starts.failed, ledger.staff.starts.error) == (8, "EAGAIN")
    assert len(of(Spawn, ledger.on_tick(20.0))) == 8


# -- workers that do not start ---------------------------------------------------------------------------------


def test_a_failed_start_is_tried_again_for_ever_after_pauses_that_grow() -> None:
    ledger = started(1)
    ledger.on_exit(0, KILLED, NOTHING_YET, 0.0)
    now, pauses, notes = 0.0, [], []
    for _ in range(100):
        actions = ledger.on_start_failed(0, "no luck\nTraceback", now)
        notes += of(Tell, actions)
        assert actions == of(Tell, actions)
        pause = ledger.seconds_until_due(now)
        assert pause is not None
        assert ledger.on_tick(now + pause * 0.9) == []
        now += pause
        assert exactly(ledger.on_tick(now), Spawn(0))
        assert ledger.seconds_until_due(now) is None
        pauses.append(pause)
    assert pauses == pytest.approx([0.05, 0.1, 0.2, 0.4, 0.8, 1.6, *[LONGEST_PAUSE_SECONDS] * 94])
    assert (ledger.staff.starts.failed, ledger.staff.starts.error) == (100, "no luck\nTraceback")
    assert notes[0] == Tell(logging.WARNING, "worker not started: failed=1 next_try=0.05s error='no luck'")
    assert len(notes) == 7, "told at first, and then ever more seldom"
    assert of(Tell, up(ledger, 0, now=now)) == [Tell(logging.INFO, "worker started: failed_before=100")]
    assert (ledger.staff.starts.failed, ledger.staff.starts.error) == (0, None)


def test_workers_that_die_as_soon_as_they_are_up_are_replaced_with_pauses() -> None:
    ledger = started(1)
    assert of(Spawn, ledger.on_exit(0, KILLED, NOTHING_YET, 10.0)), "the first at once"
    up(ledger, 0, now=10.001)
    assert not of(Spawn, ledger.on_exit(0, KILLED, NOTHING_YET, 10.002))
    pause = ledger.seconds_until_due(10.002)
    assert pause == pytest.approx(FIRST_PAUSE_SECONDS)
    assert of(Spawn, ledger.on_tick(10.002 + FIRST_PAUSE_SECONDS))
    up(ledger, 0, now=11.0)
    assert of(Spawn, ledger.on_exit(0, KILLED, NOTHING_YET, 11.001)), "long after the last"


def test_a_success_forgets_the_failures_before_it() -> None:
    ledger = started(1)
    ledger.on_exit(0, KILLED, NOTHING_YET, 0.0)
    for now in (0.0, 10.0, 20.0):
        ledger.on_start_failed(0, "no luck", now)
        ledger.on_tick(now + 5.0)
    up(ledger, 0, now=30.0)
    ledger.on_exit(0, KILLED, NOTHING_YET, 30.0)
    ledger.on_start_failed(0, "no luck", 30.0)
    assert ledger.seconds_until_due(30.0) == pytest.approx(0.05)


def fail(ledger: Ledger, slot: int = 0, times: int = 20) -> Actions:
    """Let a worker's start fail again and again; the last actions."""
    for now in range(0, 100 * times, 100):
        ledger.on_start_failed(slot, "no luck", now)
        assert exactly(ledger.on_tick(now + 99.0), Spawn(slot))
    return ledger.on_start_failed(slot, "no luck", 100.0 * times)


def test_jobs_wait_for_a_pool_whose_workers_do_not_start() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1, retries=1), 0.0)
    ledger.on_submit(run_of(2, 2), 0.0)
    ledger.on_exit(0, KILLED, running(1), 0.0)
    assert not of(Finish, fail(ledger))
    assert ledger.on_submit(run_of(7, 1), 5000.0) == []
    assert exactly(ledger.on_tick(5000.0), Spawn(0))
    assert assigned(up(ledger, 0, now=5000.0)) == [(0, [1])]
    assert queued(ledger) == [(2, 1), (3, 1), (7, 1)]


def test_the_workers_that_are_left_go_on_while_the_others_are_tried_again() -> None:
    ledger = started(1)
    ledger.on_resize(2, 0.0)
    fail(ledger, 1)
    assert assigned(ledger.on_submit(run_of(1, 1), 2000.1)) == [(0, [1])]
    assert ledger.seconds_until_due(2000.1) == pytest.approx(OVERDUE_SECONDS)
    assert exactly(ledger.on_tick(2010.0), Spawn(1))


def test_a_resize_asks_for_a_new_try() -> None:
    ledger = started(1)
    ledger.on_resize(2, 0.0)
    fail(ledger, 1)
    assert exactly(ledger.on_resize(2, 2000.0), Spawn(1))


def test_many_starts_that_fail_at_once_do_not_postpone_the_next_try_for_ever() -> None:
    ledger = started(1)
    ledger.on_resize(21, 0.0)
    for slot in range(1, 21):
        ledger.on_start_failed(slot, "no luck", 0.0)
    ledger.on_submit(run_of(1, 1), 0.0)
    actions = ledger.on_exit(0, KILLED, NOTHING_YET, 1.0)
    assert of(Spawn, actions) or (ledger.seconds_until_due(1.0) or 0.0) < 10.0


def test_a_failed_start_that_leaves_workers_enough_gives_no_reason_to_wake() -> None:
    ledger = new_ledger(4)
    ledger.on_tick(0.0)
    ledger.on_resize(1, 0.0)
    ledger.on_start_failed(0, "no luck", 0.0)
    assert ledger.seconds_until_due(10.0) is None


# -- closing ---------------------------------------------------------------------------------------------------


def test_closing_an_idle_pool_sends_every_worker_off() -> None:
    ledger = started(3)
    assert not ledger.finished
    actions = ledger.on_close(0.0)
    assert sorted(of(Leave, actions)) == [Leave(0), Leave(1), Leave(2)]
    for slot in range(3):
        assert not ledger.finished
        assert ledger.on_exit(slot, LEFT, NOTHING_YET, 0.0) == []
    assert ledger.finished


def test_closing_waits_for_what_is_queued_and_what_runs() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 2), 0.0)
    assert ledger.on_close(0.0) == []
    assert assigned(complete(ledger, 0)) == [(0, [2])]
    assert exactly(complete(ledger, 0), Leave(0))
    ledger.on_exit(0, LEFT, NOTHING_YET, 0.0)
    assert ledger.finished


def test_idle_workers_stay_while_another_has_jobs_that_may_come_back() -> None:
    ledger = with_batch(4, workers=2)
    assert ledger.on_close(0.0) == []
    assert of(Assign, ledger.on_taken_back(0, running(1), 0.0))


def test_closing_while_workers_start_lets_them_do_the_work() -> None:
    ledger = new_ledger(2)
    ledger.on_tick(0.0)
    ledger.on_submit(run_of(1, 1), 0.0)
    assert ledger.on_close(0.0) == []
    assert assigned(up(ledger, 0)) == [(0, [1])]
    assert up(ledger, 1) == []
    assert sorted(of(Leave, complete(ledger, 0))) == [Leave(0), Leave(1)]


def test_closing_an_empty_pool_that_starts_sends_the_workers_off_as_they_come_up() -> None:
    ledger = new_ledger(1)
    ledger.on_tick(0.0)
    assert ledger.on_close(0.0) == []
    assert not ledger.finished
    assert exactly(up(ledger, 0), Leave(0))


def test_a_worker_that_dies_while_the_pool_closes_is_replaced_only_for_work_that_is_left() -> None:
    ledger = with_batch(2)
    ledger.on_close(0.0)
    assert of(Spawn, ledger.on_exit(0, KILLED, running(1), 0.0)) == [Spawn(0)]
    assert assigned(up(ledger, 0)) == [(0, [2])]
    actions = ledger.on_exit(0, KILLED, running(1), 0.0)
    assert not of(Spawn, actions)
    assert [v.job_id for v in of(Finish, actions)] == [2]
    assert ledger.finished


def test_closing_with_a_worker_that_is_leaving_already() -> None:
    ledger = started(1, max_jobs_per_worker=1)
    ledger.on_submit(run_of(1, 2), 0.0)
    assert exactly(complete(ledger, 0), Leave(0), Spawn(1))
    ledger.on_close(0.0)
    assert not ledger.finished
    assert ledger.on_exit(0, LEFT, NOTHING_YET, 0.0) == []
    assert assigned(up(ledger, 1)) == [(1, [2])]


def test_closing_a_pool_whose_workers_do_not_start_waits_for_them() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 2), 0.0)
    ledger.on_close(0.0)
    ledger.on_exit(0, KILLED, running(1), 0.0)
    assert not of(Finish, fail(ledger))
    assert not ledger.finished
    assert exactly(ledger.on_tick(5000.0), Spawn(0))
    assert assigned(up(ledger, 0, now=5000.0)) == [(0, [2])]
    assert exactly(complete(ledger, 0), Leave(0))


# -- workers that write what cannot be true --------------------------------------------------------------------


def test_a_worker_that_misbehaves_is_ended_and_gets_nothing_more() -> None:
    ledger = started(2)
    actions = ledger.on_misbehaved(1, "half a frame")
    assert exactly(actions, Kill(1), Tell(logging.WARNING, "worker ended: pid=101 reason='half a frame'"))
    assert ledger.on_misbehaved(1, "and again") == []
    assert [slot for slot, _ in assigned(ledger.on_submit(run_of(1, 2), 1.0))] == [0]
    assert ledger.due(1e9) == [0]
    assert of(Spawn, ledger.on_exit(1, KILLED, NOTHING_YET, 2.0)) == [Spawn(1)]


def test_when_a_recorder_tells_nothing_each_job_of_the_batch_may_have_run() -> None:
    ledger = with_batch(5, extra=1)
    ledger.on_taken(0, 1)
    ledger.on_spilled(0, 3)
    ledger.on_misbehaved(0, "its flight recorder was written over")
    assert ledger.due(1e9) == []
    actions = ledger.on_exit(0, KILLED, None, 1.0)
    assert [(v.job_id, v.outcome, v.code) for v in of(Finish, actions)] == [
        (job_id, Outcome.CRASH, -9) for job_id in (2, 4, 5)
    ]
    assert queued_ids(ledger) == [6]


def test_when_a_recorder_tells_nothing_jobs_with_retries_run_again_in_order() -> None:
    ledger = with_batch(3, extra=1, retries=1)
    assert not of(Finish, ledger.on_exit(0, KILLED, None, 1.0))
    assert queued(ledger) == [(1, 2), (2, 2), (3, 2), (4, 1)]


def test_a_result_that_was_to_come_by_itself_and_did_not_is_a_crash() -> None:
    ledger = with_batch(4)
    ledger.on_taken(0, 3, elsewhere=[0, 1])
    ledger.on_spilled(0, 2)
    assert not ledger.workers[0].owes(2, 3)
    assert ledger.workers[0].owes(1, 3)
    actions = ledger.on_exit(0, KILLED, Snapshot(4, 3, 0.5, True), 1.0)
    assert [v.job_id for v in of(Finish, actions)] == [1, 4]


def test_a_large_result_that_is_on_its_way_for_ever_is_the_end_of_its_worker() -> None:
    ledger = with_batch(1)
    sending = Snapshot(1, 0, 0.0, False)
    assert ledger.on_look(0, sending, 1.0) == []
    assert ledger.on_look(0, sending, SENDING_SECONDS) == []
    assert of(Kill, ledger.on_look(0, sending, 1.0 + SENDING_SECONDS)) == [Kill(0)]


# -- when to look ----------------------------------------------------------------------------------------------


def test_an_idle_pool_sleeps_until_something_arrives() -> None:
    ledger = started(2)
    assert ledger.seconds_until_due(0.0) is None
    assert ledger.due(1e9) == []


def test_a_pool_that_waits_for_its_first_workers_sleeps() -> None:
    ledger = new_ledger(2)
    ledger.on_tick(0.0)
    assert ledger.seconds_until_due(0.0) is None


def test_each_look_moves_the_next_one_on() -> None:
    ledger = with_batch(4, timeout=1.0)
    now = 0.0
    for _ in range(1000):
        seconds = ledger.seconds_until_due(now)
        assert seconds is not None
        assert seconds > 0
        now += seconds
        assert ledger.due(now) == [0]
        if of(Kill, ledger.on_look(0, running(1), now)):
            break
        assert ledger.due(now) == []
    else:
        pytest.fail("the kill never came")
    assert now == pytest.approx(1.0 + GRACE)


def test_the_constants_are_consistent() -> None:
    assert BATCH_SECONDS < OVERDUE_SECONDS < REPEAT_SECONDS < GRACE


# -- results that need room ------------------------------------------------------------------------------------


def test_a_batch_is_no_larger_than_what_its_results_find_room_for() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 10_000), 0.0)
    for _ in range(12):  # short jobs, with results of a kilobyte
        worker = ledger.workers[0]
        ledger.on_taken(0, worker.limit, 1024 * worker.limit)
        ledger.on_done(0, 1e-6 * worker.limit, False, 0.0)
    assert ledger.workers[0].limit == PAYLOAD_SIZE // 1024


def test_results_that_came_by_themselves_count_for_the_room_that_is_needed() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 10_000), 0.0)
    for _ in range(12):
        worker = ledger.workers[0]
        assert worker.batch is not None
        for job_id in list(worker.batch.ids)[1:]:
            ledger.on_spilled(0, job_id, 1 << 14)
        ledger.on_taken(0, worker.limit, 1 << 14)
        ledger.on_done(0, 1e-6 * worker.limit, False, 0.0)
    assert ledger.workers[0].limit == PAYLOAD_SIZE // (1 << 14)


def test_a_huge_result_does_not_keep_batches_small_for_good() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 100_000), 0.0)
    ledger.on_spilled(0, 1, 1 << 40)
    for _ in range(30):
        worker = ledger.workers[0]
        ledger.on_taken(0, worker.limit, 20 * worker.limit)
        ledger.on_done(0, 1e-6 * worker.limit, False, 0.0)
    assert ledger.workers[0].limit == MAX_BATCH


def test_a_paused_ledger_hands_nothing_out_and_takes_back_what_has_not_begun() -> None:
    ledger = started(2)
    ledger.on_submit(run_of(1, 1), 0.0)
    (busy,) = [worker.slot for worker in ledger.busy()]
    assert exactly(ledger.on_pause(), TakeBack(busy))
    assert not ledger.on_submit(run_of(2, 3), 0.0)
    assert not ledger.on_done(busy, 0.1, False, 0.1)
    assert [action.batch.first_id for action in of(Assign, ledger.on_resume(0.2))] == [2, 3]


def test_a_paused_ledger_that_is_closed_goes_on() -> None:
    ledger = started(1)
    ledger.on_pause()
    ledger.on_submit(run_of(1, 1), 0.0)
    assert of(Assign, ledger.on_close(0.0))
    ledger.on_pause()  # from a thread that was late
    assert not ledger.paused


def test_a_reload_waits_for_a_worker_that_is_through() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1), 0.0)
    assert not ledger.on_reload(1, 0.0)
    spawned = of(Spawn, complete(ledger, 0, 1, 0.1))
    assert [ledger.workers[action.slot].generation for action in spawned] == [1]
    assert not of(Assign, ledger.on_submit(run_of(2, 1), 0.2))


def test_a_worker_that_is_missing_comes_up_with_the_new_handlers() -> None:
    ledger = new_ledger(1)
    ledger.on_tick(0.0)
    ledger.on_start_failed(0, "trouble", 0.0)
    (spawn,) = of(Spawn, ledger.on_reload(1, 0.0))
    assert of(Tried, up(ledger, spawn.slot)) == [Tried(0)]
    assert ledger.staff.renewal.current == 1

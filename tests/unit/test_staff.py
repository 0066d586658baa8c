"""The ledger: who works, who leaves, and who comes instead."""

from __future__ import annotations

import logging

import pytest

from bossworker.pool.boss.actions import (
    Assign,
    Finish,
    Leave,
    Spawn,
    TakeBack,
    Tell,
    Tried,
)
from bossworker.pool.boss.deadlines import OVERDUE_SECONDS
from bossworker.pool.boss.starts import FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS
from bossworker.pool.boss.workers import State
from tests.unit.ledgers import (
    KILLED,
    LEFT,
    NOTHING_YET,
    assigned,
    complete,
    exactly,
    fail,
    new_ledger,
    of,
    queued,
    queued_ids,
    run_of,
    running,
    started,
    up,
    with_batch,
)

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


# -- other handlers -------------------------------------------------------------------------------------------


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

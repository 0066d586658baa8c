"""The ledger's workers: their numbers, those that do not begin, and the end of all."""

from __future__ import annotations

import pytest

from bossworker.pool.boss.actions import Leave, ReplaceStuck, Spawn, TakeBack
from bossworker.pool.boss.deadlines import OVERDUE_SECONDS, STUCK_SECONDS
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.workers import State
from tests.unit.ledgers import (
    GRACE,
    KILLED,
    NOTHING_YET,
    assigned,
    complete,
    exactly,
    of,
    run_of,
    running,
    started,
    up,
    with_batch,
)


def indexes(ledger: Ledger) -> dict[int, int]:
    """Slot -> number."""
    return {slot: worker.index for slot, worker in ledger.workers.items()}


# -- numbers ---------------------------------------------------------------------------------------------------


def test_workers_are_numbered_from_0() -> None:
    assert indexes(started(3)) == {0: 0, 1: 1, 2: 2}


def test_a_successor_has_the_number_of_the_dead() -> None:
    ledger = started(3)
    ledger.on_exit(1, KILLED, NOTHING_YET, 1.0)
    assert indexes(ledger) == {0: 0, 1: 1, 2: 2}


def test_a_successor_has_the_number_of_one_that_is_still_leaving() -> None:
    ledger = started(2, max_jobs_per_worker=1)
    ledger.on_submit(run_of(1, 1), 0.0)
    (slot,) = (slot for slot, worker in ledger.workers.items() if worker.state is State.BUSY)
    assert exactly(complete(ledger, slot), Leave(slot), Spawn(2))
    assert indexes(ledger) == {0: 0, 1: 1, 2: slot}


def test_a_pool_that_grows_goes_on_counting() -> None:
    ledger = started(2)
    ledger.on_resize(4, 0.0)
    assert indexes(ledger) == {0: 0, 1: 1, 2: 2, 3: 3}


def test_in_a_pool_that_shrinks_the_high_numbers_go_and_come_back_first() -> None:
    ledger = started(4)
    ledger.on_exit(0, KILLED, NOTHING_YET, 1.0)
    up(ledger, 0, now=1.0)  # now the one that became idle last
    assert set(of(Leave, ledger.on_resize(2, 2.0))) == {Leave(2), Leave(3)}
    ledger.on_exit(3, KILLED, NOTHING_YET, 3.0)
    assert exactly(ledger.on_resize(3, 4.0), Spawn(3))
    assert indexes(ledger) == {0: 0, 1: 1, 2: 2, 3: 2}


# -- a worker that does not begin --------------------------------------------------------------------------------


def test_a_worker_that_claims_nothing_of_its_batch_is_replaced() -> None:
    ledger = with_batch(4)
    late = GRACE + STUCK_SECONDS + 0.001
    assert not of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, late - 0.01))
    assert of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, late)) == [ReplaceStuck(0)]
    assert ledger.seconds_until_due(late) == pytest.approx(OVERDUE_SECONDS), (
        "it is looked at again: it may have been let off"
    )


def test_a_worker_gets_the_time_to_receive_its_batch() -> None:
    ledger = started(1)
    job = run_of(1, 1)
    job.sizes[0] = 200_000_000
    ledger.on_submit(job, 0.0)
    assert not of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, 20.0))
    assert of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, 200.0)) == [ReplaceStuck(0)]


def test_a_worker_that_waited_for_output_gets_its_time_again() -> None:
    ledger = with_batch(4)
    late = GRACE + STUCK_SECONDS + 0.001
    assert of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, late))
    ledger.on_waits_for_output(0, late)
    assert not of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, 2 * late - 0.01))
    assert of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, 2 * late)) == [ReplaceStuck(0)]


def test_also_when_its_jobs_have_gone_to_others() -> None:
    ledger = with_batch(4, workers=2)
    assert of(TakeBack, ledger.on_look(0, NOTHING_YET, 0.01)) == [TakeBack(0)]
    ledger.on_taken_back(0, NOTHING_YET, 0.01)
    assert of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, GRACE + STUCK_SECONDS + 0.001)) == [ReplaceStuck(0)]


def test_a_worker_in_its_first_job_is_not_stuck() -> None:
    ledger = with_batch(4)
    assert not of(ReplaceStuck, ledger.on_look(0, running(1), 1e6))


def test_time_counts_from_when_the_batch_was_given() -> None:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1), 1e6)
    assert not of(ReplaceStuck, ledger.on_look(0, NOTHING_YET, 1e6 + 0.01))


# -- the end of all ----------------------------------------------------------------------------------------------


def test_a_stop_drops_what_is_queued_and_what_still_comes() -> None:
    ledger = started(2)
    ledger.on_submit(run_of(1, 4), 0.0)
    busy = [worker.slot for worker in ledger.busy()]
    assert len(busy) == 2
    ledger.on_stop(1.0)
    assert ledger.queue.jobs == 0
    assert ledger.on_submit(run_of(5, 2), 1.0) == []
    assert not of(Leave, complete(ledger, busy[0], 2.0))
    assert set(of(Leave, complete(ledger, busy[1], 2.0))) == {Leave(0), Leave(1)}
    for slot in (0, 1):
        assert not ledger.finished
        assert not of(Spawn, ledger.on_exit(slot, KILLED, NOTHING_YET, 3.0))
    assert ledger.finished


def test_a_stop_sends_idle_workers_off_at_once() -> None:
    assert set(of(Leave, started(2).on_stop(1.0))) == {Leave(0), Leave(1)}


def test_jobs_that_a_stopped_worker_had_not_begun_are_nobodys() -> None:
    ledger = with_batch(4)
    ledger.on_stop(1.0)
    ledger.reclaim(0, running(1), 1.0)
    count, actions = ledger.on_cancel([1, 2, 3, 4], {0: running(1)}, 1.0)
    assert count == 4
    assert not assigned(actions)
    assert ledger.queue.jobs == 0

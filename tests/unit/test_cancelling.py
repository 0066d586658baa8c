"""The ledger: jobs are cancelled."""

from __future__ import annotations

import time

import pytest

from bossworker.errors import CANCELLED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import (
    Finish,
    Interrupt,
    Kill,
)
from bossworker.pool.boss.deadlines import REPEAT_SECONDS
from bossworker.pool.wire.recorder import Snapshot
from tests.unit.ledgers import (
    GRACE,
    KILLED,
    assigned,
    complete,
    exactly,
    new_ledger,
    of,
    queued,
    queued_ids,
    run_of,
    running,
    started,
    timed,
    with_batch,
)


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

"""The ledger: what becomes of the jobs that a dead worker had."""

from __future__ import annotations

import logging

import pytest

from bossworker.errors import WORKER_DIED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import (
    Finish,
    Kill,
    Spawn,
    Tell,
)
from bossworker.pool.boss.deadlines import SENDING_SECONDS
from bossworker.pool.wire.recorder import Snapshot
from tests.unit.ledgers import (
    KILLED,
    NOTHING_YET,
    assigned,
    exactly,
    of,
    queued,
    queued_ids,
    run_of,
    running,
    started,
    up,
    with_batch,
)

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

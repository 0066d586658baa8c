"""The ledger: a job's time is up."""

from __future__ import annotations

import pytest

from bossworker.errors import TIMED_OUT
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import (
    Finish,
    Interrupt,
    Kill,
    TakeBack,
)
from bossworker.pool.boss.deadlines import GLANCE_SECONDS, OVERDUE_SECONDS, REPEAT_SECONDS
from bossworker.pool.wire.recorder import Snapshot
from tests.unit.ledgers import (
    GRACE,
    KILLED,
    NOTHING_YET,
    assigned,
    complete,
    exactly,
    of,
    queued,
    run_of,
    running,
    started,
    timed,
    with_batch,
)


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
    ledger.on_taken_back(0, after, 4.01)
    assert not of(Kill, ledger.on_look(0, after, 4.5))
    assert of(Kill, ledger.on_look(0, after, 5.02)) == [Kill(0)]


def test_a_worker_that_is_being_killed_gets_no_more_jobs_though_it_reports_in_time() -> None:
    """They would die of what another job has done."""
    ledger = timed(2.0)
    ledger.on_submit(run_of(2, 1), 0.0)
    ledger.on_look(0, running(1), 2.0)
    assert exactly(ledger.on_look(0, running(1), 3.0), Kill(0))
    assert complete(ledger, 0, now=3.0) == []
    assert assigned(ledger.on_submit(run_of(3, 1), 3.0)) == []
    assert of(Finish, ledger.on_exit(0, KILLED, NOTHING_YET, 3.01)) == []
    assert queued(ledger) == [(2, 1), (3, 1)]
    assert ledger.staff.restart_reasons == {"timeout": 1}


def test_the_jobs_behind_one_that_must_stop_are_taken_back_before_the_kill() -> None:
    ledger = with_batch(3, timeout=0.001)
    first = ledger.on_look(0, running(1), 0.001)
    assert exactly(first, Interrupt(0, 1), TakeBack(0))
    late = 0.002 + GRACE
    assert exactly(ledger.on_look(0, running(1), late), Interrupt(0, 1), TakeBack(0))
    ledger.on_taken_back(0, running(1), late)
    assert ledger.due(late) == [0]
    assert exactly(ledger.on_look(0, running(1), late), Kill(0))


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

"""The ledger's orderings: events in, actions out, no process anywhere."""

from __future__ import annotations

import pytest

from bossworker.pool.boss.actions import (
    Assign,
    Finish,
    Kill,
    Leave,
    Spawn,
    TakeBack,
)
from bossworker.pool.boss.deadlines import GLANCE_SECONDS, OVERDUE_SECONDS, REPEAT_SECONDS
from bossworker.pool.boss.job_lengths import BATCH_SECONDS, LEAST_SECONDS
from bossworker.pool.boss.workers import State
from bossworker.pool.wire.recorder import MAX_BATCH, PAYLOAD_SIZE
from tests.unit.ledgers import (
    GRACE,
    KILLED,
    LEFT,
    NOTHING_YET,
    assigned,
    complete,
    exactly,
    fail,
    new_ledger,
    of,
    queued_ids,
    run_of,
    running,
    started,
    up,
    with_batch,
)

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
    complete(ledger, busy.slot, seconds=LEAST_SECONDS / 8)
    given = assigned(ledger.on_submit(run_of(2, 40), 0.0))
    assert [len(jobs) for _, jobs in given] == [10, 8]


def test_jobs_that_one_worker_is_through_with_in_an_instant_are_not_shared_out() -> None:
    ledger = started(2)
    ledger.on_submit(run_of(1, 1), 0.0)
    (busy,) = ledger.busy()
    complete(ledger, busy.slot, seconds=LEAST_SECONDS / 100)
    given = assigned(ledger.on_submit(run_of(2, 140), 0.0))
    assert [len(jobs) for _, jobs in given] == [100, 40]


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
        actions = ledger.on_look(0, running(1), now)
        if of(Kill, actions):
            break
        if of(TakeBack, actions):
            ledger.on_taken_back(0, running(1), now)
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
    for _ in range(20):  # short jobs, with results of a kilobyte
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

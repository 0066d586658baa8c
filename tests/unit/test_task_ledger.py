"""What becomes of a task, in every order of events that matters: without a process or a clock."""

from __future__ import annotations

from signal import SIGABRT, SIGHUP, SIGINT, SIGKILL, SIGSEGV, SIGTERM, SIGUSR1

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bossworker.commands.job_status import ENDING_SIGNALS
from bossworker.commands.jobdir import BY_ERROR, BY_REQUEST, COMPLETED
from bossworker.tasks.supervisor.restarts import POLICIES, STEADY_SECONDS, Restarts
from bossworker.tasks.supervisor.task_ledger import END_SECONDS, TaskLedger

NOW = 1000.0  # Unix seconds


def a_ledger(policy: str = "always", limit: int | None = None) -> TaskLedger:
    """Of a task whose restarts wait 1, 2, 4 and then 8 seconds."""
    return TaskLedger(Restarts(policy, limit, 1.0, 8.0))


def running(policy: str = "always", limit: int | None = None) -> TaskLedger:
    ledger = a_ledger(policy, limit)
    start(ledger)
    return ledger


def start(ledger: TaskLedger, due: bool = False) -> None:
    ledger.on_start(due)
    ledger.on_started()


def restart_due(policy: str = "always", limit: int | None = None) -> TaskLedger:
    ledger = running(policy, limit)
    assert ledger.on_end(BY_ERROR, 0.1, NOW) == 1.0
    return ledger


def is_at_rest(ledger: TaskLedger) -> bool:
    """Whether no restart is due, and nothing is said of one."""
    return (ledger.next_start, ledger.postponed) == (None, "")


# -- restarts -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("policy", "may_follow"), [("never", False), ("on-failure", True), ("always", True)])
def test_a_start_tells_whether_restarts_may_follow(policy: str, may_follow: bool) -> None:
    assert a_ledger(policy).on_start(due=False) is may_follow


def test_an_end_is_followed_by_a_restart_and_the_start_by_none() -> None:
    ledger = restart_due()
    assert ledger.facts() == {"restarts": 0, "next_start": NOW + 1.0, "left": False}
    start(ledger, due=True)
    assert ledger.facts() == {"restarts": 1, "next_start": None, "left": False}


def test_what_could_not_be_started_is_tried_again() -> None:
    ledger = a_ledger("on-failure", limit=1)
    ledger.on_start(due=False)
    assert ledger.on_end(BY_ERROR, 0.0, NOW) == 1.0
    ledger.on_start(due=True)
    assert ledger.on_end(BY_ERROR, 0.0, NOW) is None
    assert ledger.facts() == {"restarts": 0, "next_start": None, "left": False}


def test_an_end_that_was_asked_for_is_final() -> None:
    ledger = running()
    assert ledger.on_end(BY_REQUEST, 0.1, NOW) is None
    assert is_at_rest(ledger)


def test_the_limit_is_reached_by_our_own_restarts_alone() -> None:
    ledger = running(limit=2)
    for _ in range(2):
        assert ledger.on_end(COMPLETED, 0.1, NOW) is not None
        start(ledger, due=True)
    assert ledger.on_end(COMPLETED, 0.1, NOW) is None
    start(ledger)  # by a client
    assert ledger.on_end(COMPLETED, 0.1, NOW) is None
    assert ledger.facts()["restarts"] == 3


def test_a_steady_run_begins_the_series_anew() -> None:
    ledger = restart_due()
    for elapsed, delay in ((0.1, 2.0), (0.1, 4.0), (STEADY_SECONDS, 1.0)):
        start(ledger, due=True)
        assert ledger.on_end(BY_ERROR, elapsed, NOW) == delay


def test_a_client_comes_before_a_restart_that_is_due() -> None:
    ledger = restart_due(limit=1)
    start(ledger)
    assert is_at_rest(ledger)
    assert ledger.on_end(COMPLETED, 0.1, NOW) == 1.0  # the one that the limit allows; and the first of its series


def test_a_restart_that_is_postponed_stays_due_and_says_why() -> None:
    ledger = restart_due()
    ledger.on_postponed("no room", NOW + 5)
    assert (ledger.next_start, ledger.postponed) == (NOW + 5, "no room")
    start(ledger, due=True)
    assert is_at_rest(ledger)
    assert ledger.on_end(COMPLETED, 0.1, NOW) == 2.0  # it has counted once


@pytest.mark.parametrize("postponed", [False, True])
def test_a_restart_can_be_cancelled_once(postponed: bool) -> None:
    ledger = restart_due()
    if postponed:
        ledger.on_postponed("no room", NOW + 5)
    assert ledger.on_restart_unwanted()
    assert is_at_rest(ledger)
    assert not ledger.on_restart_unwanted()


# -- signals that clients send ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("asked", "ended_by", "ended", "answer"),
    [
        ({SIGTERM: 99.9}, SIGTERM, 100.0, SIGTERM),
        ({SIGTERM: 99.9}, 0, 100.0, SIGTERM),  # it has handled it; or would have ended just then by itself
        ({SIGTERM: 99.9}, SIGSEGV, 100.0, SIGTERM),  # it died of what it did about it
        ({SIGTERM: 99.0}, 0, 100.0, SIGTERM),
        ({SIGTERM: 50.0}, 0, 100.0, 0),  # what fails long after it was told to end has survived that
        ({SIGTERM: 50.0}, SIGSEGV, 100.0, 0),
        ({SIGTERM: 100.0 - END_SECONDS}, 0, 100.0, 0),
        ({SIGTERM: 50.0, SIGHUP: 60.0}, SIGTERM, 100.0, SIGTERM),
        ({SIGHUP: 50.0}, SIGHUP, 100.0, SIGHUP),
        ({SIGHUP: 99.0}, 0, 100.0, 0),  # to many it means: read your settings again
        ({SIGABRT: 99.0}, 0, 100.0, 0),
        ({SIGHUP: 99.0, SIGINT: 99.5}, 0, 100.0, SIGINT),
        ({SIGKILL: 99.0}, SIGTERM, 100.0, SIGKILL),
        ({SIGUSR1: 99.9}, SIGUSR1, 100.0, 0),  # no signal that means an end
        ({}, SIGTERM, 100.0, 0),
        ({}, 0, 100.0, 0),
    ],
)
def test_which_signal_accounts_for_an_end(asked: dict[int, float], ended_by: int, ended: float, answer: int) -> None:
    ledger = running()
    for number, at in asked.items():
        ledger.on_signal(number, at)
    assert ledger.requested(ended_by, ended) == answer


def test_a_signal_that_is_sent_again_is_as_new() -> None:
    ledger = running()
    ledger.on_signal(SIGTERM, 50.0)
    ledger.on_signal(SIGTERM, 99.0)
    assert ledger.requested(0, 100.0) == SIGTERM


@pytest.mark.parametrize("due", [False, True])
def test_a_start_forgets_what_the_last_command_was_sent(due: bool) -> None:
    ledger = running()
    ledger.on_signal(SIGTERM, 99.0)
    start(ledger, due)
    assert ledger.requested(SIGTERM, 100.0) == 0


# -- the supervisor leaves ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("refusable", [False, True])
def test_what_ends_while_we_are_leaving_is_not_started_again(refusable: bool) -> None:
    ledger = running()
    assert not ledger.on_leave(refusable)
    assert ledger.on_end(BY_ERROR, 0.1, NOW) is None
    assert not ledger.must_leave  # it does already
    assert ledger.on_all_gone()
    assert ledger.facts() == {"restarts": 0, "next_start": None, "left": True}


@pytest.mark.parametrize("postponed", [False, True])
def test_to_leave_ends_the_wait_for_a_restart(postponed: bool) -> None:
    ledger = restart_due()
    if postponed:
        ledger.on_postponed("no room", NOW + 5)
    assert ledger.on_leave(refusable=True)
    assert is_at_rest(ledger)
    assert not ledger.on_leave(refusable=True)  # somebody else asks


def test_a_restart_is_due_and_then_we_are_told_to_end() -> None:
    ledger = restart_due()
    ledger.on_told_to_end()
    assert ledger.must_leave
    assert ledger.on_leave(refusable=False)
    assert is_at_rest(ledger)
    assert not ledger.must_leave
    assert ledger.on_all_gone()


def test_a_command_that_was_told_to_end_is_the_last() -> None:
    ledger = running()
    ledger.on_told_to_end()
    assert not ledger.leaving  # it has its grace
    assert ledger.on_end(BY_ERROR, 0.1, NOW) is None
    assert ledger.must_leave


def test_all_are_gone_and_nobody_leaves_since_nobody_has_asked() -> None:
    ledger = running()
    assert ledger.on_end(BY_REQUEST, 0.1, NOW) is None
    assert not ledger.on_all_gone()
    assert not ledger.left


def test_who_is_refused_may_ask_again() -> None:
    ledger = running()
    for _ in range(2):
        ledger.on_leave(refusable=True)
        ledger.on_cannot_leave()
        assert not ledger.leaving
    assert not ledger.on_all_gone()
    ledger.on_leave(refusable=True)
    assert ledger.on_all_gone()


def test_after_a_refusal_the_command_is_started_again_as_before() -> None:
    ledger = running()
    ledger.on_leave(refusable=True)
    ledger.on_cannot_leave()
    assert ledger.on_end(BY_ERROR, 0.1, NOW) == 1.0


@pytest.mark.parametrize("first", [False, True])
def test_among_those_who_ask_one_that_cannot_be_refused_has_its_way(first: bool) -> None:
    ledger = running()
    ledger.on_leave(refusable=first)
    ledger.on_leave(refusable=not first)
    ledger.on_cannot_leave()
    assert ledger.on_end(BY_ERROR, 0.1, NOW) is None
    assert ledger.on_all_gone()


def test_told_to_end_amid_an_ending_that_is_refused_later() -> None:
    ledger = running()
    ledger.on_leave(refusable=True)
    ledger.on_told_to_end()
    ledger.on_cannot_leave()
    assert ledger.on_end(BY_ERROR, 0.1, NOW) is None
    assert ledger.on_all_gone()


def test_one_that_has_left_has_left() -> None:
    ledger = running()
    ledger.on_leave(refusable=True)
    assert ledger.on_all_gone()
    ledger.on_leave(refusable=True)
    ledger.on_cannot_leave()
    assert ledger.on_all_gone()


# -- any order ----------------------------------------------------------------------------------------------------


class LedgerMachine(RuleBasedStateMachine):
    """What may happen to a supervisor, in any order; it calls the ledger as `TaskSupervisor` does."""

    @initialize(policy=st.sampled_from(POLICIES), limit=st.none() | st.integers(0, 3))
    def begin(self, policy: str, limit: int | None) -> None:
        self.ledger = a_ledger(policy, limit)
        self.policy, self.limit = policy, limit
        self.now = NOW
        self.runs = self.ending = self.unheard = False
        self.told = False  # to end, or to leave by somebody who cannot be refused
        self.starts = self.own_starts = 0
        self.asked: dict[int, float] = {}
        self.start(due=False, works=True)

    def is_at_rest(self) -> bool:
        return not (self.runs or self.ending or self.ledger.left)

    def is_due(self) -> bool:
        return self.ledger.next_start is not None

    def start(self, due: bool, works: bool) -> None:
        self.ledger.on_start(due)
        self.asked = {}
        self.own_starts += due
        if works:
            self.runs = True
            self.starts += 1
            assert self.ledger.on_started() == self.starts
        else:
            self.end(BY_ERROR, 0.0)

    def end(self, state: str, elapsed: float) -> None:
        self.runs = False
        might = not (self.ledger.leaving or self.told) and (self.limit is None or self.own_starts < self.limit)
        wanted = {"never": (), "on-failure": (BY_ERROR,), "always": (BY_ERROR, COMPLETED)}[self.policy]
        delay = self.ledger.on_end(state, elapsed, self.now)
        assert (delay is not None) == (might and state in wanted)
        assert delay is None or self.ledger.next_start == self.now + delay
        if self.ledger.must_leave:
            self.leave(refusable=False)

    @rule(seconds=st.sampled_from([0.1, 1.0, END_SECONDS, 100.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @precondition(is_at_rest)
    @rule(works=st.booleans())
    def restart(self, works: bool) -> None:
        """For a client, whether a restart is due or not."""
        self.start(due=False, works=works)

    @precondition(is_due)
    @rule(works=st.booleans())
    def a_restart_is_due(self, works: bool) -> None:
        self.start(due=True, works=works)

    @precondition(is_due)
    @rule()
    def there_is_no_room_for_it(self) -> None:
        self.ledger.on_postponed("no room", self.now + 5)

    @precondition(lambda self: self.runs)
    @rule(ended_by=st.sampled_from([0, SIGTERM, SIGKILL, SIGHUP, SIGSEGV]), failed=st.booleans())
    def command_ends(self, ended_by: int, failed: bool) -> None:
        number = self.ledger.requested(ended_by, self.now)
        recent = {one for one, at in self.asked.items() if self.now - at < END_SECONDS}
        if ended_by in self.asked:
            assert number == ended_by
        else:
            assert number in recent | {0}
            assert number or not recent & {SIGTERM, SIGINT, SIGKILL}
        if self.ending:
            self.unheard = True  # until all are gone
            self.runs = False
        else:
            self.end(BY_REQUEST if number else BY_ERROR if failed or ended_by else COMPLETED, 0.1)

    @rule(number=st.sampled_from([SIGTERM, SIGINT, SIGKILL, SIGHUP, SIGUSR1]))
    def signal(self, number: int) -> None:
        if self.runs:
            self.ledger.on_signal(number, self.now)
            if number in ENDING_SIGNALS:
                self.asked[number] = self.now
        elif number in ENDING_SIGNALS:
            self.ledger.on_restart_unwanted()
            assert not self.is_due()

    @precondition(lambda self: self.runs)
    @rule()
    def its_time_is_up(self) -> None:
        """All that it has started is ended with it; so it is when a signal that it was sent has ended it."""
        self.ending = True

    @precondition(lambda self: not self.ledger.left)
    @rule(at_once=st.booleans())
    def told_to_end(self, at_once: bool) -> None:
        self.ledger.on_told_to_end()
        self.told = True
        if at_once or not self.runs:
            self.leave(refusable=False)

    @rule(refusable=st.booleans())
    def leave(self, refusable: bool) -> None:
        was_due = self.is_due()
        assert self.ledger.on_leave(refusable) == was_due
        self.told |= not refusable
        self.ending = not self.ledger.left

    @precondition(lambda self: self.ending)
    @rule()
    def somebody_cannot_be_ended(self) -> None:
        self.ledger.on_cannot_leave()
        assert self.ledger.leaving == self.told

    @precondition(lambda self: self.ending)
    @rule()
    def all_are_gone(self) -> None:
        leaving, self.ending = self.ledger.leaving, False
        if self.runs or self.unheard:
            self.unheard = False
            self.end(BY_REQUEST, 0.1)
        assert self.ledger.on_all_gone() == (leaving or self.told)
        self.ending = False

    @invariant()
    def a_restart_is_due_only_while_nothing_else_is(self) -> None:
        if self.is_due():
            assert self.is_at_rest()
            assert not self.ledger.leaving
            assert self.policy != "never"
            assert self.limit is None or self.own_starts < self.limit
        else:
            assert self.ledger.postponed == ""

    @invariant()
    def the_facts_are_true(self) -> None:
        assert self.limit is None or self.own_starts <= self.limit
        assert self.ledger.facts()["restarts"] == max(0, self.starts - 1)
        assert self.told >= self.ledger.must_leave
        assert self.ledger.leaving >= self.ledger.left


TestAnyOrder = LedgerMachine.TestCase

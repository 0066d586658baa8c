"""How long a process stays awake for what it waits for: as long as that pays."""

from __future__ import annotations

import os
import time

import pytest

from bossworker.pool.wire import spin
from bossworker.pool.wire.spin import NO_SPIN_SECONDS, SPIN_SECONDS, STOLEN_SECONDS, Spin


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> Spin:
    monkeypatch.setattr(spin, "schedulable_cpus", lambda: 2)
    return Spin()


def test_what_comes_in_time_is_stayed_awake_for(patience: Spin) -> None:
    assert patience.until(1.0) == 1.0 + SPIN_SECONDS
    patience.learn(SPIN_SECONDS / 2)
    assert patience.until(1.0) == 1.0 + SPIN_SECONDS


def test_what_comes_late_again_and_again_is_not(patience: Spin) -> None:
    seconds = []
    for _ in range(10):
        patience.learn(2 * SPIN_SECONDS)
        seconds.append(max(0.0, patience.until(1.0) - 1.0))
    assert seconds == sorted(seconds, reverse=True)
    assert 0 < seconds[0] < SPIN_SECONDS
    assert patience.until(1.0) == 0.0


def test_one_that_comes_soon_after_all_makes_it_patient_again(patience: Spin) -> None:
    for _ in range(10):
        patience.learn(1.0)
    patience.learn(SPIN_SECONDS)
    assert patience.until(1.0) == 1.0 + SPIN_SECONDS


def test_while_others_want_the_core_it_sleeps_at_once(patience: Spin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_yield", lambda: time.sleep(2 * STOLEN_SECONDS))
    now = time.monotonic()
    patience.rest(now)
    assert patience.until(now) == 0.0
    assert patience.until(now + NO_SPIN_SECONDS) == now + NO_SPIN_SECONDS + SPIN_SECONDS


def test_with_a_single_core_nobody_stays_awake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spin, "schedulable_cpus", lambda: 1)
    patience = Spin()
    patience.learn(0.0)
    assert patience.until(1.0) == 0.0

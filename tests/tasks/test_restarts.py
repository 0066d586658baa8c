"""The restart policy decides as documented, without a process or a clock."""

from __future__ import annotations

import pytest

from bossworker.tasks.supervisor.restarts import STEADY_SECONDS, Restarts


def policy(name: str, limit: int | None = None, backoff: float = 1.0, backoff_max: float = 10.0) -> Restarts:
    return Restarts(name, limit, backoff, backoff_max)


def ends(restarts: Restarts, *, failed: bool = True, requested: bool = False, ran: float = 0.0) -> float | None:
    return restarts.delay(failed=failed, requested=requested, ran_seconds=ran)


@pytest.mark.parametrize(
    ("name", "after_success", "after_failure"),
    [("never", None, None), ("on-failure", None, 1.0), ("always", 1.0, 1.0)],
)
def test_which_ends_are_followed_by_a_restart(name: str, after_success: float | None, after_failure: float) -> None:
    assert ends(policy(name), failed=False) == after_success
    assert ends(policy(name), failed=True) == after_failure
    assert ends(policy(name), requested=True) is None


def test_the_wait_doubles_up_to_its_most_and_begins_anew_after_a_steady_run() -> None:
    restarts = policy("always")
    waits = []
    for _ in range(6):
        waits.append(ends(restarts))
        restarts.started()
    assert waits == [1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    assert ends(restarts, ran=STEADY_SECONDS) == 1.0


def test_the_limit_counts_restarts() -> None:
    restarts = policy("on-failure", limit=2)
    for _ in range(2):
        assert ends(restarts) is not None
        restarts.started()
    assert ends(restarts) is None
    assert restarts.count == 2
    assert ends(policy("always", limit=0)) is None


def test_a_series_of_any_length_is_a_number() -> None:
    restarts = policy("always", backoff_max=60.0)
    for _ in range(5000):
        restarts.started()
    assert ends(restarts) == 60.0

"""Times of one process keep their order, however long it is held up between two looks at the clocks."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bossworker.system import wall_clock
from bossworker.system.wall_clock import WallClock, start_times


class FakeTime:
    """Both clocks, which stand still but where a test has us held up: before which reading, and for how long."""

    def __init__(self, **held_up: float) -> None:
        self.now = 1000.0
        self.set_by = 1e9
        self.held_up = held_up
        self.times = 1000  # how often

    def _wait(self, which: str) -> None:
        if which in self.held_up and self.times:
            self.times -= 1
            self.now += self.held_up[which]

    def time(self) -> float:
        self._wait("time")
        return self.now + self.set_by

    def monotonic(self) -> float:
        self._wait("monotonic")
        return self.now


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Callable[..., FakeTime]:
    def make(**held_up: float) -> FakeTime:
        fake = FakeTime(**held_up)
        monkeypatch.setattr(wall_clock, "time", fake)
        return fake

    return make


def test_the_offset_stays_though_we_are_held_up(clocks: Callable[..., FakeTime]) -> None:
    fake, clock = clocks(), WallClock()
    assert clock.offset() == 1e9
    for which in ("time", "monotonic"):
        fake.held_up = {which: 0.0007}  # all readings are a bit apart: no two of them tell a better one
        assert clock.offset() == 1e9


def test_one_long_hold_up_is_seen_through(clocks: Callable[..., FakeTime]) -> None:
    fake, clock = clocks(), WallClock()
    assert clock.offset() == 1e9
    fake.held_up, fake.times = {"monotonic": 0.5}, 1
    assert clock.offset() == 1e9


def test_a_clock_that_was_set_is_followed(clocks: Callable[..., FakeTime]) -> None:
    fake, clock = clocks(), WallClock()
    clock.offset()
    fake.set_by -= 3600
    assert clock.offset() == 1e9 - 3600


@pytest.mark.parametrize("which", ["time", "monotonic"])
def test_a_start_and_what_has_passed_since_are_never_later_than_now(
    clocks: Callable[..., FakeTime], which: str
) -> None:
    fake = clocks(**{which: 0.5})
    at, started = start_times()
    fake.held_up = {}
    assert at + (fake.monotonic() - started) <= fake.time()

"""What the boss waits for: who is told, and who no more."""

from __future__ import annotations

import select
import time
from collections.abc import Iterator

import pytest

from bossworker.pool.boss.poller import EVENT_READ, EVENT_WRITE, Poller
from bossworker.pool.boss.reports import Reports
from bossworker.pool.wire.link import Link, link_pair
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.recorder import Memory


@pytest.fixture(params=["epoll", "poll"])
def poller(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Poller]:
    if request.param == "poll":
        monkeypatch.delattr(select, "epoll", raising=False)
    memory = Memory()
    poller = Poller(Reports(memory))
    yield poller
    memory.close()
    if poller._epoll is not None:
        poller._epoll.close()


@pytest.fixture
def pairs() -> Iterator[list[tuple[Link, Link]]]:
    pairs = [(Link(here), Link(there)) for here, there in (link_pair(), link_pair())]
    yield pairs
    for pair in pairs:
        for link in pair:
            link.close()


def test_a_link_with_something_for_us_is_told_of_and_the_others_are_not(
    poller: Poller, pairs: list[tuple[Link, Link]]
) -> None:
    told: list[int] = []
    for number, (here, _) in enumerate(pairs):
        poller.watch(here, lambda events, number=number: told.append(number))  # type: ignore[misc]
    poller.wait(0)
    assert told == []
    pairs[1][1].send(Kind.DONE)
    poller.wait(60)
    assert told == [1]


def test_a_link_is_told_of_room_only_while_it_has_something_to_send(
    poller: Poller, pairs: list[tuple[Link, Link]]
) -> None:
    here, there = pairs[0]
    told: list[int] = []
    while here.send(Kind.SUBMIT, b"", [bytes(60_000)]):
        pass
    poller.watch(here, told.append)
    poller.wait(0)
    assert told == []
    while not there.receive():
        pass
    poller.wait(60)
    assert told == [EVENT_WRITE]
    while not here.flush():
        there.receive()
    poller.watch(here, told.append)
    poller.wait(0)
    assert told == [EVENT_WRITE]


def test_an_end_is_told(poller: Poller, pairs: list[tuple[Link, Link]]) -> None:
    here, there = pairs[0]
    told: list[int] = []
    poller.watch(here, told.append)
    there.close()
    poller.wait(60)
    assert told[0] & EVENT_READ


def test_what_is_forgotten_by_one_who_was_told_before_is_not_told(
    poller: Poller, pairs: list[tuple[Link, Link]]
) -> None:
    told: list[int] = []

    def forget_the_other(number: int) -> None:
        told.append(number)
        poller.forget(pairs[1 - number][0])

    for number, (here, there) in enumerate(pairs):
        poller.watch(here, lambda events, number=number: forget_the_other(number))  # type: ignore[misc]
        there.send(Kind.DONE)
    poller.wait(60)
    assert len(told) == 1
    poller.forget(pairs[0][0])  # watched or not
    poller.forget(pairs[1][0])
    poller.wait(0)
    assert len(told) == 1


def test_it_sleeps_no_longer_than_it_is_told(poller: Poller) -> None:
    began = time.monotonic()
    poller.wait(0.02)
    assert 0.02 <= time.monotonic() - began < 20


def test_nobody_sleeps_beside_a_report(poller: Poller) -> None:
    memory = poller._reports._memory
    poller._reports.expect(0, memory.recorder(0, fresh=True).mailbox)
    here, there = map(Link, link_pair())
    poller.watch(here, lambda events: None)
    there.send(Kind.DONE)
    poller.wait(60)
    assert not memory.boss_asleep
    assert not poller._reports.slots()
    here.receive()
    memory.recorder(0).mailbox.report()
    began = time.monotonic()
    poller.wait(60)  # no link has anything
    assert time.monotonic() - began < 30
    assert poller._reports.slots() == [0]
    poller._reports.forget(0)
    here.close()
    there.close()


def test_how_long_an_answer_takes_decides_on_the_patience_for_the_next(poller: Poller) -> None:
    poller._requests._most = poller._requests._seconds = 0.01
    poller.expect_request(time.monotonic())
    poller.wait(0.05)  # in vain, awake at first and then asleep
    assert poller._requests._seconds == 0.005
    poller.wait(0)  # it expects nothing now
    assert poller._requests._seconds == 0.005
    poller._requests._most = 60.0
    poller.expect_request(time.monotonic())
    poller._awake_until = 0.0
    poller.wait(0)
    assert poller._requests._seconds == 60.0

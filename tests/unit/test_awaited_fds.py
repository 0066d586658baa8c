"""What a listener waits for: who is ready, and who is no more."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator

import pytest

from bossworker.pool.caller.awaited_fds import AwaitedFds

Pair = tuple[socket.socket, socket.socket]


@pytest.fixture
def pairs() -> Iterator[list[Pair]]:
    pairs = [socket.socketpair(), socket.socketpair()]
    yield pairs
    for pair in pairs:
        for one in pair:
            one.close()


@pytest.fixture
def awaited(pairs: list[Pair]) -> Iterator[AwaitedFds]:
    awaited = AwaitedFds()
    awaited.register(pairs[0][0])
    awaited.register(pairs[1][0].fileno())
    yield awaited
    awaited.close()


def test_a_wait_is_ended_once(awaited: AwaitedFds) -> None:
    awaited.end_wait()
    awaited.end_wait()
    assert len(awaited.wait(60)) == 1
    assert awaited.wait(0) == []


def test_those_that_are_ready(awaited: AwaitedFds, pairs: list[Pair]) -> None:
    assert awaited.wait(0) == []
    pairs[1][1].send(b"x")
    assert awaited.wait(None) == [pairs[1][0].fileno()]
    pairs[0][1].close()
    assert sorted(awaited.wait(60)) == sorted(pair[0].fileno() for pair in pairs)


def test_it_waits_no_longer_than_it_is_told(awaited: AwaitedFds) -> None:
    began = time.monotonic()
    assert awaited.wait(0.02) == []
    assert 0.02 <= time.monotonic() - began < 20


def test_what_is_unregistered_is_not_waited_for(awaited: AwaitedFds, pairs: list[Pair]) -> None:
    for pair in pairs:
        pair[1].send(b"x")
    pairs[0][0].close()  # its number is no more to be had from it
    awaited.unregister(pairs[0][0])
    assert awaited.wait(60) == [pairs[1][0].fileno()]
    awaited.unregister(pairs[1][0].fileno())
    assert awaited.wait(0) == []
    with pytest.raises(KeyError):
        awaited.unregister(pairs[1][0].fileno())


def test_a_descriptor_that_is_closed_beneath_does_not_keep_it_awake(awaited: AwaitedFds, pairs: list[Pair]) -> None:
    pairs[0][0].close()
    assert awaited.wait(60) == []  # at once, and
    pairs[1][1].send(b"x")
    assert awaited.wait(60) == [pairs[1][0].fileno()]
    with pytest.raises(KeyError):
        awaited.unregister(pairs[0][0])


def test_once_closed_it_waits_for_nothing(awaited: AwaitedFds, pairs: list[Pair]) -> None:
    awaited.close()
    pairs[0][1].send(b"x")
    assert awaited.wait(0) == []

"""What the boss has the program's logger say: with what wakes the program, and not by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from bossworker.pool.boss.notes import HELD_SECONDS, Notes
from bossworker.pool.wire.link import Link, link_pair
from bossworker.pool.wire.messages import Kind


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = map(Link, link_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def test_what_is_no_warning_travels_with_the_next_frame(ends: tuple[Link, Link]) -> None:
    boss, caller = ends
    notes = Notes(boss)
    notes.add(logging.INFO, "worker up")
    notes.add(logging.INFO, "another")
    assert caller.receive() == []
    assert notes.chores == [notes]
    assert not boss.unsent  # or the boss would send it in the same turn
    notes.release()
    boss.send(Kind.READY)
    frames = caller.receive()
    assert [frame.kind for frame in frames] == [Kind.NOTE, Kind.NOTE, Kind.READY]
    assert [bytes(frame.body) for frame in frames] == [b"worker up", b"another", b""]


def test_a_warning_goes_at_once_behind_what_was_held(ends: tuple[Link, Link]) -> None:
    boss, caller = ends
    notes = Notes(boss)
    notes.add(logging.INFO, "first")
    notes.add(logging.WARNING, "second")
    assert [bytes(frame.body) for frame in caller.receive()] == [b"first", b"second"]
    assert notes.chores == []


def test_it_is_held_for_an_instant_only(ends: tuple[Link, Link]) -> None:
    boss, caller = ends
    notes = Notes(boss)
    notes.add(logging.INFO, "alone")
    now = time.monotonic()
    due = notes.seconds_until_due(now)
    assert due is not None
    assert 0 <= due <= HELD_SECONDS
    notes.attend(now)
    assert caller.receive() == []
    notes.attend(now + HELD_SECONDS)
    assert [bytes(frame.body) for frame in caller.receive()] == [b"alone"]
    assert notes.chores == []
    assert notes.seconds_until_due(now) is None


def test_a_program_that_is_gone_is_told_by_the_poll(ends: tuple[Link, Link]) -> None:
    boss, caller = ends
    notes = Notes(boss)
    notes.add(logging.INFO, "to nobody")
    caller.close()
    notes.attend(time.monotonic() + 1)
    assert notes.chores == []

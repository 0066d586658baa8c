"""What the boss has the program's logger say: with what wakes the program, and not by itself."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

import pytest

from bossworker.pool.boss.notes import HELD_SECONDS, MOST_UNREAD, Notes
from bossworker.pool.wire.frames import Frame
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
    notes = Notes(boss, [])
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
    notes = Notes(boss, [])
    notes.add(logging.INFO, "first")
    notes.add(logging.WARNING, "second")
    assert [bytes(frame.body) for frame in caller.receive()] == [b"first", b"second"]
    assert notes.chores == []


def test_it_is_held_for_an_instant_only(ends: tuple[Link, Link]) -> None:
    boss, caller = ends
    notes = Notes(boss, [])
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
    notes = Notes(boss, [])
    notes.add(logging.INFO, "to nobody")
    caller.close()
    notes.attend(time.monotonic() + 1)
    assert notes.chores == []


def test_a_program_that_reads_nothing_does_not_have_them_pile_up(ends: tuple[Link, Link]) -> None:
    """It may wait for a signal for weeks, while others come and go at its door."""
    boss, caller = ends
    notes = Notes(boss, [])
    for number in range(5 * MOST_UNREAD):
        notes.add(logging.WARNING, f"client {number} came")
    frames: list[Frame] = []
    while not boss.flush() or not frames:
        frames += caller.receive()
    frames += caller.receive()
    texts = [bytes(frame.body).decode() for frame in frames]
    assert texts == [f"client {number} came" for number in range(len(texts))]
    assert MOST_UNREAD <= len(texts) < 3 * MOST_UNREAD  # of which some are in the socket
    notes.add(logging.INFO, "last")
    notes.release()
    boss.flush()
    told, last = caller.receive()
    assert bytes(told.body).decode().startswith(f"notes dropped={5 * MOST_UNREAD - len(texts)}:")
    assert bytes(last.body) == b"last"

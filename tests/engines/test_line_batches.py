"""Batches on their way to an engine, without one."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest

from bossworker.engines.flight_notes import FlightNotes
from bossworker.engines.line_batches import LineBatches
from bossworker.engines.node_messages import BatchAnswer
from bossworker.engines.program_side import ProgramSide
from bossworker.pool.wire.link import Link, link_pair
from tests.unit.ledgers import run_of


class OneSlot(SimpleNamespace):
    """An engine that runs one batch at a time, and takes note of it."""

    threads_per_node, takes_next = 1, False

    def __init__(self) -> None:
        super().__init__(given=[])

    def slots(self) -> int:
        return 1

    window = slots

    def run(self, number: int, *order: Any) -> None:
        self.given.append(number)

    def release(self, number: int) -> None:
        pass


@pytest.fixture
def batches() -> Any:
    ours, theirs = link_pair()
    link, other = Link(ours), Link(theirs)
    engine: Any = OneSlot()
    batches = LineBatches(engine, ProgramSide(link), None, 1, FlightNotes(None))  # type: ignore[arg-type]
    batches.started = True
    yield batches
    link.close()
    other.close()


def test_what_could_not_start_is_tried_after_a_pause_and_nothing_spins_meanwhile(
    batches: Any,
) -> None:
    """Once it has been tried again, what is queued behind it waits for its answer, not for the clock."""
    now = time.monotonic()
    batches.book.on_submit(run_of(1, 1))
    batches.book.on_submit(run_of(2, 1, priority=-1))
    assert batches.dispatch(now)
    batches.on_answer(1, BatchAnswer("unstarted", "a node", reason="no memory"))
    assert not batches.dispatch(now)
    assert 0.0 < batches.seconds_until_due(now) < 1.0
    assert batches.dispatch(now + 1.0)
    assert batches.book.queue.jobs == 1
    assert batches.seconds_until_due(now + 1.0) is None

"""The ledger under any sequence of events: hypothesis looks for one that loses a job, and shows the shortest.

The workers are those of `test_ledger_storm.py`, which tells what is checked at each step.
"""

from __future__ import annotations

from array import array

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from bossworker.pool.wire.batch import JobOptions
from tests.unit.test_ledger_storm import Storm

pytestmark = pytest.mark.timeout(600)  # to show a failure in few steps takes a while
options = st.builds(
    JobOptions,
    priority=st.sampled_from([0, 0, -1, 2]),
    timeout=st.sampled_from([0.0, 0.05]),
    retries=st.sampled_from([0, 1, 3]),
    attempt=st.just(1),
)


class LedgerMachine(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 1000))
    def begin(self, seed: int) -> None:
        """Chance decides what is not worth a rule: how many workers, how large the batches, whether a start fails."""
        self.storm = Storm(seed)

    def some_slot(self, n: int) -> int:
        slots = list(self.storm.workers)
        return slots[n % len(slots)]

    def anybody(self) -> bool:
        return bool(self.storm.workers)

    @rule(counts=st.lists(st.integers(1, 4), min_size=1, max_size=5), job_options=options)
    def submit(self, counts: list[int], job_options: JobOptions) -> None:
        self.storm.add(array("I", counts), job_options)

    @precondition(anybody)
    @rule(slots=st.lists(st.integers(0, 5), min_size=1, max_size=12))
    def work(self, slots: list[int]) -> None:
        """Workers do the next thing that they can do, one after another."""
        for n in slots:
            if self.storm.workers:
                self.storm.step(self.some_slot(n))
                self.storm.check()

    @precondition(anybody)
    @rule(n=st.integers(0, 5))
    def kill(self, n: int) -> None:
        self.storm.die(self.some_slot(n))

    @rule()
    def spill(self) -> None:
        self.storm.spill()

    @rule(ids=st.lists(st.integers(1, 30), min_size=1, max_size=5))
    def cancel(self, ids: list[int]) -> None:
        self.storm.cancel_these(ids)

    @rule(workers=st.integers(1, 6))
    def resize(self, workers: int) -> None:
        self.storm.perform(self.storm.ledger.on_resize(workers, self.storm.now))

    @rule(seconds=st.sampled_from([0.001, 0.01, 0.1, 2.0]))
    def wait(self, seconds: float) -> None:
        self.storm.pass_seconds(seconds)

    @invariant()
    def the_books_agree(self) -> None:
        self.storm.check()

    def teardown(self) -> None:
        if hasattr(self, "storm"):
            self.storm.close()
            self.storm.check_results()


TestLedger = LedgerMachine.TestCase

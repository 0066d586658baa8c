"""Beats: the nodes are asked, now and again, for what they have to tell, and so know that we are there."""

from __future__ import annotations

import time
from array import array

from bossworker.engines.adapter import Adapter
from bossworker.engines.batch_book import Flight
from bossworker.engines.line_batches import LineBatches
from bossworker.engines.line_calls import LineCalls
from bossworker.engines.node_messages import ASK_SECONDS, NodeReport, NodeRequest
from bossworker.engines.node_times import results_of
from bossworker.engines.program_side import ProgramSide
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind

BEAT_SECONDS = 5.0  # between two; longer on large clusters,
NODES_A_SECOND = 100  # so that we ask no more than that many a second
EARLY_SECONDS = 0.2  # the same while batches take long, or while output is to be relayed


class LineBeats:
    """See the module. In the line's thread."""

    def __init__(
        self, adapter: Adapter, program: ProgramSide, calls: LineCalls, batches: LineBatches, relayed: bool
    ) -> None:
        self.next_at = time.monotonic() + BEAT_SECONDS
        self._asking = False
        self._adapter = adapter
        self._program = program
        self._calls = calls
        self._batches = batches
        self._relayed = relayed

    def come_early(self, now: float) -> None:
        """Batches have been given out: the next one comes soon, in case they take long."""
        self.next_at = min(self.next_at, now + EARLY_SECONDS)

    def attend(self, now: float) -> None:
        """Once it is time, ask."""
        if now < self.next_at:
            return
        batches, adapter = self._batches, self._adapter
        slow = any(now - flight.sent_at > EARLY_SECONDS for flight in batches.book.flights.values())
        early = slow or (self._relayed and batches.book.flights)
        self.next_at = now + max(EARLY_SECONDS if early else BEAT_SECONDS, len(batches.nodes) / NODES_A_SECOND)
        for flight in batches.book.overdue(adapter.slots(), now, adapter.slots_of):
            self.ask_back(flight)
        if not self._asking and (early or adapter.beats):
            self._asking = True
            self._calls.then(adapter.ask(NodeRequest("report"), None, ASK_SECONDS), self.on_reports, {})

    def ask_back(self, flight: Flight) -> None:
        """Its node is to give back what it has not begun of it."""
        # Before the node hears of it: what comes back cancelled from now on is queued again, and not told as cancelled.
        flight.asked_back |= set(flight.open_ids())
        ids = array("Q", sorted(flight.asked_back)).tobytes()
        request = NodeRequest("ask", Kind.CANCEL, messages.UNBEGUN, ids)
        self._adapter.ask(request, [flight.node], ASK_SECONDS)

    def on_reports(self, reports: dict[str, NodeReport]) -> None:
        """What the nodes have told."""
        self._asking = False
        for node, report in reports.items():
            # A node tells of what it has claimed by the time of its report; the batch may have come back by now.
            for number in report.claimed:
                self._batches.on_claimed(number, node)
            if not self._program.over:
                self._take_in(report)

    def _take_in(self, report: NodeReport) -> None:
        self._program.relay(report.lines)
        for level, text in report.notes:
            self._program.note(level, f"node={report.node} {text}")
        self._program.tell_exit_errors(report.exit_errors)
        if report.head:
            self._program.add(self._batches.book.on_early(results_of(report.clock, report.head, report.body)))

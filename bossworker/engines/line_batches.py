"""Batches on their way: the engine gets what it should have, and what becomes of each is told to the book."""

from __future__ import annotations

import time
from array import array
from functools import partial

from bossworker.engines.adapter import Adapter
from bossworker.engines.batch_book import BatchBook, Flight
from bossworker.engines.flight_notes import FlightNotes
from bossworker.engines.line_calls import LineCalls
from bossworker.engines.node_figures import NodeFigures
from bossworker.engines.node_messages import ASK_SECONDS, BatchAnswer, BatchOrder, Body, NodeRequest, packed
from bossworker.engines.node_times import results_of
from bossworker.engines.program_side import ProgramSide
from bossworker.pool.wire import messages
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import WARNING, Kind

MOST_FLIGHTS = 1 << 15  # batches that the engine may have
MOST_WANTED = 1 << 31  # jobs that are asked for, at most
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds after the first, second, ... batch in a row that could not be started


class LineBatches:
    """See the module. In the line's thread."""

    def __init__(
        self, adapter: Adapter, program: ProgramSide, calls: LineCalls, workers: int, notes: FlightNotes
    ) -> None:
        self.workers = workers  # of a node
        self.book = BatchBook()
        self.nodes: dict[str, NodeFigures] = {}
        self.started = False  # the engine takes batches,
        self.ended = False  # and takes no more
        self.start_error = ""
        self.failed_starts = 0
        self.last_failed_start: str | None = None
        self._failures = 0  # batches in a row that could not be started
        self._not_before = 0.0  # monotonic seconds; the next batch is not tried earlier
        self._told_wanted = 0
        self._adapter = adapter
        self._program = program
        self._calls = calls
        self._notes = notes

    # -- to the engine ----------------------------------------------------------------------------------

    def seconds_until_due(self, now: float) -> float | None:
        """Until batches may be tried again; None: nothing waits for that."""
        return max(0.0, self._not_before - now) if self._not_before and self.book.queue.jobs else None

    def dispatch(self, now: float) -> bool:
        """Give the engine what it should have; whether it got anything."""
        if self.ended or not self.started or now < self._not_before or not self.book.queue.jobs:
            return False
        self._not_before = 0.0
        self._notes.keep(self.book.flights)
        sent = False
        for flight in self.book.cut(self._adapter.slots(), self._workers_a_slot(), self._window(), now):
            self._send(flight)
            sent = True
        while (late := self.book.less_urgent()) is not None:
            late.tried_back = True
            self._calls.then(self._adapter.reclaim(late.number), partial(self._on_taken_back, late.number), False)
        return sent

    def _send(self, flight: Flight) -> None:
        # Noted before the engine gets it: whoever reads the notes behind us takes it for begun.
        if not self._notes.begin(flight.number, flight.batch):
            raise LinkClosed
        batch = flight.batch
        order = BatchOrder(flight.number, batch.head(), self._is_quick(batch.count))
        self._adapter.run(flight.number, packed(order), Body.of(batch.body()), batch.job_options.priority)

    def _window(self) -> int:
        """How many batches the engine should have: where nodes have two at a time, one of them more for each slot."""
        slots = self._adapter.slots()
        jobs = self.book.sizes.jobs_in_batch(self._workers_a_slot(), slots)
        more = slots if self._adapter.takes_next and self._is_quick(jobs) else 0
        return min(self._adapter.window() + more, MOST_FLIGHTS)

    def _is_quick(self, jobs: int) -> bool:
        return self.book.sizes.quick(jobs, self._workers_a_slot(), self._adapter.slots())

    def _workers_a_slot(self) -> int:
        return max(1, self.workers // self._adapter.threads_per_node)

    @property
    def jobs_wanted(self) -> int:
        """How many jobs should be in flight or queued for the engine to be busy all the time."""
        slots = max(1, self._adapter.slots())
        return 2 * (self._adapter.window() + slots) * self.book.sizes.jobs_in_batch(self._workers_a_slot(), slots)

    def tell_wanted(self) -> None:
        """A scribe passes on no more jobs than it is asked for."""
        if not self._notes.kept:
            return
        wanted = self.jobs_wanted
        if not self._told_wanted / 2 < wanted <= self._told_wanted:
            self._told_wanted = 2 * wanted
            self._program.link.send(Kind.WANTED, messages.COUNT.pack(min(self._told_wanted, MOST_WANTED)))

    # -- from the engine --------------------------------------------------------------------------------

    def on_answer(self, number: int, answer: BatchAnswer) -> None:
        now = time.monotonic()
        node = self.nodes.setdefault(answer.node, NodeFigures(answer.node))
        self._adapter.release(number)
        match answer.verdict:
            case "done":
                # The batch may have been given up, or taken back, before its answer came: the book then knows nothing
                # of it, and the answer is dropped.
                node.batches += number in self.book.flights
                self._failures, self._not_before, self.start_error = 0, 0.0, ""
                self._program.relay(answer.lines)
                segments = results_of(answer.clock, answer.head, answer.body)
                self._program.add(self.book.on_answer(number, segments, answer.node, answer.reason, now))
            case "lost":
                flight = self.book.flights.get(number)
                self._program.add(self.book.on_lost(number, flight.node if flight is not None else "", now))
            case "unstarted":
                self._could_not_start(f"on {answer.node}: {answer.reason}")
                self._on_unstarted(number)

    def on_claimed(self, number: int, node: str) -> None:
        flight = self.book.flights.get(number)
        # Word of a claim comes by several ways, and may come behind the batch's answer.
        if flight is None or flight.node:
            return
        self.book.on_claimed(number, node)
        if flight.cancelled:  # the node may not have known of it when we asked all
            ids = array("Q", sorted(flight.cancelled)).tobytes()
            self._adapter.ask(NodeRequest("ask", Kind.CANCEL, b"", ids), [node], ASK_SECONDS)

    def on_failure(self, number: int, error: BaseException) -> None:
        """The engine gave a batch up: it is lost if it was claimed."""
        # The engine's word that it failed says nothing about whether a node had begun it: that is decided by the token,
        # which one of the two takes.
        if number in self.book.flights and not self.ended:
            text = f"{type(error).__name__}: {error}"
            self._calls.then(self._adapter.reclaim(number), partial(self._on_given_up, number, text), False)

    def _on_given_up(self, number: int, text: str, ours: bool) -> None:
        self._adapter.release(number)
        flight = self.book.flights.get(number)
        if flight is None:
            return
        # We have the token, so no node will ever begin it. Otherwise one has, and what it ran is lost.
        if ours:
            self._could_not_start(text)
            self._on_unstarted(number)
        else:
            self._program.add(self.book.on_lost(number, flight.node, time.monotonic()))

    def _could_not_start(self, why: str) -> None:
        self.failed_starts += 1
        self.start_error = self.last_failed_start = why
        self._program.note(WARNING, f"batch not started: reason={why.partition(chr(10))[0]!r}")
        self._not_before = time.monotonic() + PAUSES[min(self._failures, len(PAUSES) - 1)]
        self._failures += 1

    # -- back into the queue ----------------------------------------------------------------------------

    def _on_taken_back(self, number: int, ours: bool) -> None:
        """A batch makes place for what is more urgent; unless it has been begun."""
        # Its answer may have come while we asked for it back.
        if ours and number in self.book.flights:
            self.take_back(number)

    def take_back(self, number: int) -> None:
        """A batch that has been reclaimed is queued again."""
        self._adapter.release(number)
        self._on_unstarted(number)

    def _on_unstarted(self, number: int) -> None:
        self._notes.forget(number)
        self._program.add(self.book.on_unstarted(number, time.monotonic()))

    def release_all(self) -> None:
        """Nothing more is wanted of any batch."""
        for number in list(self.book.flights):
            self._adapter.release(number)

    # -- nodes ------------------------------------------------------------------------------------------

    def on_nodes(self, nodes: set[str]) -> None:
        """These are all the nodes that there are."""
        gone = {node for node, known in self.nodes.items() if known.there} - nodes
        for node in nodes:
            self.nodes.setdefault(node, NodeFigures(node)).there = True
        for node in gone:
            self.nodes[node].there = False
            self._program.note(WARNING, f"node gone: node={node!r}")
        lost = [flight.number for flight in self.book.flights.values() if flight.node in gone]
        self._program.add(self.book.on_nodes_gone(gone, time.monotonic()))
        for number in lost:
            self._adapter.release(number)

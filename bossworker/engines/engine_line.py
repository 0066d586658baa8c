"""What stands at the other end of the handle's connection, in the place of a boss: a thread of the program.

It takes orders by the frames that a boss understands, has the engine run batches, and sends results. An engine has
threads of its own anyway, from which it tells us of what happens: each such thing is put to our thread as a call.
"""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from array import array
from collections import deque
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from functools import partial
from typing import Any, cast

from bossworker.engines.adapter import Adapter, when_done
from bossworker.engines.batch_book import BatchBook, Flight
from bossworker.engines.flight_notes import FlightNotes
from bossworker.engines.line_ending import LineEnding
from bossworker.engines.line_orders import ASK_SECONDS, LineOrders
from bossworker.engines.line_renewals import LineRenewals
from bossworker.engines.node_figures import NodeFigures
from bossworker.engines.node_messages import BatchAnswer, BatchOrder, Body, NodeReport, NodeRequest, packed
from bossworker.engines.node_times import results_of
from bossworker.failure import Outcome, describe
from bossworker.pool.boss.delivery import Undelivered
from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.wire import messages
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment

BEAT_SECONDS = 5.0  # between looks at all nodes, so that they know that we are there; longer on large clusters,
NODES_A_SECOND = 100  # so that we ask no more than so many a second
EARLY_SECONDS = 0.2  # the same while batches take long, or while output is to be relayed
MOST_FLIGHTS = 1 << 15  # batches that the engine may have
MOST_WANTED = 1 << 31  # jobs that are asked for, at most
PAUSES = (0.1, 0.2, 0.5, 1.0, 2.0)  # seconds after the first, second, ... batch in a row that could not be started
_WARNING = 30  # as in the module logging
_GOOD = (int(Outcome.OK), int(Outcome.OK | Outcome.WHOLE))


class EngineLine:
    """See the module. All but `post`, and what an adapter calls, happens in its own thread."""

    def __init__(self, link: Link, adapter: Adapter, workers: int, relayed: bool, notes: FlightNotes) -> None:
        self.link = link
        self.notes = notes
        self.adapter = adapter
        self.workers = workers  # of a node
        self.relayed = relayed
        self.book = BatchBook()
        self.ring = EventRing()
        self.results = Undelivered(link)
        self.orders = LineOrders(self)
        self.renewals = LineRenewals(self)
        self.ending = LineEnding(self)
        self.watchers = Watchers(self.ring, cast("Any", self.book), {}, self.orders.reply)
        self.done = self.failed = self._told_wanted = 0
        self.nodes: dict[str, NodeFigures] = {}
        self.start_error = ""
        self.failed_starts = 0
        self.last_failed_start: str | None = None
        self.failures = 0  # batches in a row that could not be started
        self.not_before = 0.0
        self.ready = self.over = False
        self.why_gone = ""
        self.beat_at = time.monotonic() + BEAT_SECONDS
        self.beating = False
        self._posted: deque[Callable[[], None]] = deque()
        self._woken, self._waker = socket.socketpair()
        self._waker.setblocking(False)
        self._woken.setblocking(False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._woken, selectors.EVENT_READ)
        self._selector.register(link.sock, selectors.EVENT_READ)
        self.thread = threading.Thread(target=self.run, name="bossworker engine", daemon=True)

    # -- from any thread --------------------------------------------------------------------------------

    def post(self, act: Callable[[], None]) -> None:
        """Have our thread call it."""
        self._posted.append(act)
        with contextlib.suppress(OSError):
            self._waker.send(b"w")

    def on_answer(self, number: int, answer: BatchAnswer) -> None:
        self.post(partial(self._on_answer, number, answer))

    def on_failure(self, number: int, error: BaseException) -> None:
        self.post(partial(self._on_failure, number, error))

    def on_claim(self, number: int, node: str) -> None:
        self.post(partial(self._on_claimed, number, node))

    def on_nodes(self, nodes: set[str]) -> None:
        self.post(partial(self._on_nodes, nodes))

    def on_gone(self, reason: str) -> None:
        self.post(partial(self.ending.with_engine, reason))

    def end_now(self) -> None:
        """End everything on the nodes, and this thread."""
        self.post(self.ending.at_once)
        self.thread.join()

    def disown(self) -> None:
        """In a forked child, where there is no such thread: or others would take it for the program."""
        self.adapter.disown()
        self.link.drop()
        self._let_go()

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            when_done(
                self.adapter.start(self),
                lambda why: self.post(partial(self._on_started, why)),
                lambda error: self.post(partial(self._on_started, f"{type(error).__name__}: {error}")),
            )
            while not self.over:
                self.wait()
                while self._posted and not self.over:
                    self._posted.popleft()()
                self.dispatch()
                self.attend()
                self.deliver()
        except LinkClosed:
            self.ending.at_once()
        except BaseException as error:
            self.why_gone = f"its thread in this program has failed: {describe(error)}"
            self.ending.at_once()
            raise
        finally:
            self._hang_up()

    def _hang_up(self) -> None:
        try:
            self.adapter.close()
        finally:  # or the program waits for us for ever
            self.link.close()
            self._let_go()

    def _let_go(self) -> None:
        self.notes.close()
        self._selector.close()
        self._woken.close()
        self._waker.close()

    def wait(self) -> None:
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self.link.unsent else 0)
        self._selector.modify(self.link.sock, events)
        for key, _ in self._selector.select(self._seconds_until_due()):
            if key.fileobj is self._woken:
                with contextlib.suppress(BlockingIOError):
                    self._woken.recv(4096)
            else:
                self._read()

    def _read(self) -> None:
        self.link.flush()
        for frame in self.link.receive():
            self.orders.on_frame(frame)

    def _seconds_until_due(self) -> float | None:
        if self._posted:
            return 0.0
        now = time.monotonic()
        due = self.beat_at
        if self.not_before and self.book.queue.jobs:
            due = min(due, self.not_before)
        seconds = max(0.0, due - now)
        return min(seconds, self.watchers.seconds_until_due(now)) if self.watchers.watched else seconds

    def attend(self) -> None:
        """Do what is due by the clock; end when all is done."""
        now = time.monotonic()
        if self.notes.kept:
            self._tell_wanted()
        if self.watchers.watched:
            self.watchers.attend()
        if now >= self.beat_at:
            self._beat(now)
        if self.book.through and not self.ending.begun and self.ready:
            self.ending.in_order()

    def deliver(self) -> None:
        if self.results.unsent:
            self.results.send()

    # -- batches ----------------------------------------------------------------------------------------

    def dispatch(self) -> None:
        """Give the engine what it should have."""
        now = time.monotonic()
        if self.ending.begun or not self.ready or now < self.not_before or not self.book.queue.jobs:
            return
        self.notes.keep(self.book.flights)
        for flight in self.book.cut(self.adapter.slots(), self._workers_a_slot(), self._window(), now):
            if not self.notes.begin(flight.number, flight.batch):
                raise LinkClosed
            self.beat_at = min(self.beat_at, now + EARLY_SECONDS)
            batch = flight.batch
            order = BatchOrder(flight.number, batch.head(), self._is_quick(batch.count))
            self.adapter.run(flight.number, packed(order), Body.of(batch.body()), batch.job_options.priority)
        while (late := self.book.less_urgent()) is not None:
            late.tried_back = True
            self.then(self.adapter.reclaim(late.number), partial(self._on_taken_back, late.number), False)

    def _window(self) -> int:
        """How many batches the engine should have: where nodes have two at a time, one of them more for each slot."""
        slots = self.adapter.slots()
        jobs = self.book.sizes.jobs_in_batch(self._workers_a_slot(), slots)
        more = slots if self.adapter.takes_next and self._is_quick(jobs) else 0
        return min(self.adapter.window() + more, MOST_FLIGHTS)

    def _is_quick(self, jobs: int) -> bool:
        return self.book.sizes.quick(jobs, self._workers_a_slot(), self.adapter.slots())

    @property
    def jobs_wanted(self) -> int:
        """How many jobs should be in flight or queued for the engine to be busy all the time."""
        slots = max(1, self.adapter.slots())
        return 2 * (self.adapter.window() + slots) * self.book.sizes.jobs_in_batch(self._workers_a_slot(), slots)

    def _tell_wanted(self) -> None:
        """A scribe passes on no more jobs than it is asked for."""
        wanted = self.jobs_wanted
        if not self._told_wanted / 2 < wanted <= self._told_wanted:
            self._told_wanted = 2 * wanted
            self.link.send(Kind.WANTED, messages.COUNT.pack(min(self._told_wanted, MOST_WANTED)))

    def _workers_a_slot(self) -> int:
        return max(1, self.workers // self.adapter.threads_per_node)

    def _on_taken_back(self, number: int, ours: bool) -> None:
        """A batch makes place for what is more urgent; unless it has been begun."""
        if ours and number in self.book.flights:
            self.take_back(number)

    def take_back(self, number: int) -> None:
        """A batch that has been reclaimed is queued again."""
        self.adapter.release(number)
        self._on_unstarted(number)

    def _on_unstarted(self, number: int) -> None:
        self.notes.forget(number)
        self.add(self.book.on_unstarted(number, time.monotonic()))

    def _on_answer(self, number: int, answer: BatchAnswer) -> None:
        now = time.monotonic()
        node = self.nodes.setdefault(answer.node, NodeFigures(answer.node))
        self.adapter.release(number)
        match answer.verdict:
            case "done":
                node.batches += number in self.book.flights
                self.failures, self.not_before, self.start_error = 0, 0.0, ""
                self._relay(answer.lines)
                segments = results_of(answer.clock, answer.head, answer.body)
                self.add(self.book.on_answer(number, segments, answer.node, answer.reason, now))
            case "lost":
                flight = self.book.flights.get(number)
                self.add(self.book.on_lost(number, flight.node if flight is not None else "", now))
            case "unstarted":
                self._could_not_start(f"on {answer.node}: {answer.reason}")
                self._on_unstarted(number)

    def _on_claimed(self, number: int, node: str) -> None:
        flight = self.book.flights.get(number)
        if flight is None or flight.node:
            return
        self.book.on_claimed(number, node)
        if flight.cancelled:  # the node may not have known of it when we asked all
            ids = array("Q", sorted(flight.cancelled)).tobytes()
            self.adapter.ask(NodeRequest("ask", Kind.CANCEL, b"", ids), [node], ASK_SECONDS)

    def _relay(self, lines: Iterable[bytes]) -> None:
        """Pass on what jobs have printed, ahead of their results."""
        if not self.over:
            for some in lines:
                self.link.send(Kind.OUTPUT_LINES, b"", [some])

    def _could_not_start(self, why: str) -> None:
        self.failed_starts += 1
        self.start_error = self.last_failed_start = why
        self.note(_WARNING, f"batch not started: reason={why.partition(chr(10))[0]!r}")
        self.not_before = time.monotonic() + PAUSES[min(self.failures, len(PAUSES) - 1)]
        self.failures += 1

    def _on_failure(self, number: int, error: BaseException) -> None:
        """The engine gave a batch up: it is lost if it was claimed."""
        if number not in self.book.flights or self.ending.begun:
            return
        text = f"{type(error).__name__}: {error}"

        def decide(ours: bool) -> None:
            self.adapter.release(number)
            flight = self.book.flights.get(number)
            if flight is None:
                return
            if ours:
                self._could_not_start(text)
                self._on_unstarted(number)
            else:
                self.add(self.book.on_lost(number, flight.node, time.monotonic()))

        self.then(self.adapter.reclaim(number), decide, False)

    def then(self, future: Future[Any], act: Callable[[Any], None], otherwise: Any) -> None:
        """Call it in our thread, with what the future brings."""
        when_done(future, lambda value: self.post(partial(act, value)), lambda _: self.post(partial(act, otherwise)))

    def add(self, segments: list[Segment]) -> None:
        """Results for the program."""
        for segment in segments:
            outcomes = bytes(segment.outcomes)
            good = sum(map(outcomes.count, _GOOD))
            self.done += good
            self.failed += segment.jobs - good
            self.results.waiting.append(segment)
            self.ring.ended(segment)

    def note(self, level: int, text: str) -> None:
        """Have the program's logger say something."""
        with contextlib.suppress(LinkClosed):
            self.link.send(Kind.NOTE, messages.NOTE.pack(level), [text.encode()])

    # -- nodes ------------------------------------------------------------------------------------------

    def _on_started(self, why: str) -> None:
        if why:
            with contextlib.suppress(LinkClosed):
                self.link.send(Kind.START_FAILED, b"", [why.encode()])
            self.ending.at_once()
            return
        self.ready = True
        self.link.send(Kind.READY)

    def _on_nodes(self, nodes: set[str]) -> None:
        gone = {node for node, known in self.nodes.items() if known.there} - nodes
        for node in nodes:
            self.nodes.setdefault(node, NodeFigures(node)).there = True
        for node in gone:
            self.nodes[node].there = False
            self.note(_WARNING, f"node gone: node={node!r}")
        now = time.monotonic()
        lost = [flight.number for flight in self.book.flights.values() if flight.node in gone]
        self.add(self.book.on_nodes_gone(gone, now))
        for number in lost:
            self.adapter.release(number)

    def _beat(self, now: float) -> None:
        """Ask the nodes for what they have to tell, and so let them know that we are there."""
        slow = any(now - flight.sent_at > EARLY_SECONDS for flight in self.book.flights.values())
        quick = slow or (self.relayed and self.book.flights)
        spread = len(self.nodes) / NODES_A_SECOND
        self.beat_at = now + max(EARLY_SECONDS if quick else BEAT_SECONDS, spread)
        for flight in self.book.overdue(self.adapter.slots(), now, self.adapter.slots_of):
            self._ask_back(flight)
        if not self.beating and (quick or self.adapter.beats):
            self.beating = True
            self.then(self.adapter.ask(NodeRequest("report"), None, ASK_SECONDS), self.on_reports, {})

    def _ask_back(self, flight: Flight) -> None:
        flight.asked_back |= set(flight.open_ids())
        ids = array("Q", sorted(flight.asked_back)).tobytes()
        request = NodeRequest("ask", Kind.CANCEL, messages.UNBEGUN, ids)
        self.adapter.ask(request, [flight.node], ASK_SECONDS)

    def on_reports(self, reports: dict[str, NodeReport]) -> None:
        """What the nodes have told."""
        self.beating = False
        for node, report in reports.items():
            for number in report.claimed:
                self._on_claimed(number, node)
            self._take_in(report)

    def _take_in(self, report: NodeReport) -> None:
        if self.over:
            return
        self._relay(report.lines)
        for level, text in report.notes:
            self.note(level, f"node={report.node} {text}")
        for pid, text in report.exit_errors.items():
            self.link.send(Kind.EXIT_ERROR, messages.EXIT_ERROR.pack(pid), [text.encode()])
        if report.head:
            self.add(self.book.on_early(results_of(report.clock, report.head, report.body)))

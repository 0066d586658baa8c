"""What the handle asks for, of our thread in the place of a boss: jobs run or cancelled, figures, stacks."""

from __future__ import annotations

import time
from array import array
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from bossworker.engines.adapter import Adapter
from bossworker.engines.batch_book import Flight
from bossworker.engines.line_batches import LineBatches
from bossworker.engines.line_calls import LineCalls
from bossworker.engines.line_ending import LineEnding
from bossworker.engines.line_renewals import LineRenewals
from bossworker.engines.node_figures import figures_of
from bossworker.engines.node_messages import ASK_SECONDS, NodeRequest
from bossworker.engines.program_side import ProgramSide
from bossworker.pool.boss.recent import recent_figures
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import WARNING, Kind


class LineOrders:
    """See the module. Answers come by themselves, once the nodes that were asked have answered."""

    def __init__(
        self,
        adapter: Adapter,
        program: ProgramSide,
        calls: LineCalls,
        batches: LineBatches,
        renewals: LineRenewals,
        ending: LineEnding,
        watchers: Watchers,
    ) -> None:
        self._adapter = adapter
        self._program = program
        self._calls = calls
        self._batches = batches
        self._book = batches.book
        self._renewals = renewals
        self._ending = ending
        self._watchers = watchers

    def on_frame(self, frame: Frame) -> None:
        match frame.kind:
            case Kind.SUBMIT:
                batch = Batch.read(frame.head, frame.body)
                self._program.ring.queued(batch.first_id, batch.count, time.monotonic())
                self._book.on_submit(batch)
            case Kind.CLOSE:
                self._book.closing = True
                self._pause(0, False)
            case Kind.STOP:
                self._ending.soon()
            case _:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                self._on_request(frame, number, bytes(frame.head[messages.REQUEST.size :]))

    def _on_request(self, frame: Frame, number: int, more: bytes) -> None:
        match frame.kind:
            case Kind.CANCEL:
                self._cancel(number, frame.body.cast("Q").tolist(), more)
            case Kind.STATS:
                self._ask_all(Kind.STATS, b"", partial(self._on_stats, number))
            case Kind.STACK:
                self._ask_all(Kind.STACK, more, partial(self._on_stacks, number))
            case Kind.PAUSE:
                (on,) = messages.SWITCH.unpack(more)
                self._pause(number, on)
            case Kind.RESIZE:
                self._resize(number, more)
            case Kind.RELOAD:
                self._renewals.add(number, bytes(frame.body))
            case Kind.OPERATE:
                self._program.reply(
                    number, {"refused": f"a pool on an engine ({self._adapter.title}) has no operators"}
                )
            case Kind.EVENTS:
                self._watchers.ask(number, *messages.EVENTS.unpack(more))

    def _ask_all(self, kind: Kind, head: bytes, act: Callable[[dict[str, Any]], None]) -> None:
        self._calls.then(self._adapter.ask(NodeRequest("ask", kind, head), None, ASK_SECONDS), act, {})

    def _pause(self, number: int, on: bool) -> None:
        self._book.paused = on and not self._book.closing
        head = messages.SWITCH.pack(self._book.paused)
        self._ask_all(Kind.PAUSE, head, lambda _: self._program.reply(number, {}))

    def _resize(self, number: int, more: bytes) -> None:
        """Another number of workers a node, also for nodes to come."""
        (workers,) = messages.COUNT.unpack(more)
        self._batches.workers = workers
        spec = self._adapter.spec
        self._adapter.take_spec(spec._replace(options={**spec.options, "worker_count": workers}))
        self._ask_all(Kind.RESIZE, more, lambda _: self._program.reply(number, {}))

    def _on_stats(self, number: int, told: dict[str, Any]) -> None:
        batches, program = self._batches, self._program
        program.deliver()  # so that what is counted as done has been sent
        totals, workers, nodes = figures_of(told, batches.nodes)
        reasons = sum((Counter(one["restart_reasons"]) for one in told.values()), Counter())
        program.reply(
            number,
            {
                "queued": max(0, self._book.queue.jobs + self._book.flying - totals["running"]),
                "running": totals["running"],
                "done": program.done,
                "failed": program.failed,
                "restarts": totals["restarts"],
                "restart_reasons": dict(reasons),
                "last_failed_start": batches.last_failed_start,
                **recent_figures(program.ring, time.monotonic()),
                "failed_starts": batches.failed_starts + totals["failed_starts"],
                "start_error": batches.start_error or None,
                "workers": workers,
                "nodes": nodes,
                "paused": self._book.paused,
            },
        )

    def _on_stacks(self, number: int, told: dict[str, Any]) -> None:
        texts = [f"node {node}\n{answer['text']}" for node, answer in sorted(told.items()) if answer["text"]]
        self._program.reply(number, {"text": "\n\n".join(texts)})

    # -- cancelling -------------------------------------------------------------------------------------

    def _cancel(self, number: int, ids: list[int], how: bytes) -> None:
        """Strike out what is queued; take back what no node has claimed; ask the nodes for the rest."""
        struck = self._book.cancel_queued(ids, time.monotonic())
        self._program.add(struck)
        flights = list(self._book.flights_with(ids))
        order = _CancelOrder(how, len(struck), {flight.number for flight, _ in flights}, partial(self._told, number))
        for flight, hits in flights:
            decide = partial(self._on_reclaimed, flight, hits, order)
            self._calls.then(self._adapter.reclaim(flight.number), decide, False)
        if not flights:
            self._told(number, order)

    def _told(self, number: int, order: _CancelOrder) -> None:
        """All that were asked have answered."""
        self._program.reply(number, {"count": order.count, "beyond": order.beyond})
        if order.beyond and not number and not self._program.over:  # a future's, which does not wait for an answer
            why = self._adapter.unreachable()
            self._program.note(WARNING, f"not cancelled, since they may run: jobs={order.beyond} reason={why!r}")

    def _on_reclaimed(self, flight: Flight, hits: set[int], order: _CancelOrder, ours: bool) -> None:
        # While the token was asked for, jobs may have ended, or the whole batch have come back: what it holds now
        # counts.
        hits = {job_id for job_id in hits if flight.holds(job_id)}
        if flight.number not in self._book.flights or not hits:  # it came back meanwhile, and may be queued again
            struck = self._book.cancel_queued(hits, time.monotonic())
            self._program.add(struck)
            order.on_answer(flight.number, len(struck))
        elif ours:
            flight.cancelled |= hits
            self._batches.take_back(flight.number)
            order.on_answer(flight.number, len(hits))
        else:
            self._cancel_running(flight, hits, order)

    def _cancel_running(self, flight: Flight, hits: set[int], order: _CancelOrder) -> None:
        """A node has them; all are asked as long as it is not known which."""
        adapter, least = self._adapter, 0
        if order.how != messages.QUEUED_ONLY:
            # Noted before the nodes are asked: one that claims the batch after they were asked is told once we hear of
            # its claim (`LineBatches.on_claimed`).
            flight.cancelled |= hits
            if not flight.node and not adapter.reclaims:  # the engine may still have it: then they end as it is claimed
                least = len(hits)
                order.beyond += least if adapter.unreachable() else 0
        request = NodeRequest("ask", Kind.CANCEL, order.how, array("Q", sorted(hits)).tobytes())
        asked = adapter.ask(request, [flight.node] if flight.node else None, ASK_SECONDS)
        self._calls.then(asked, partial(order.on_told, flight.number, least), {})


class _CancelOrder:
    """An order to cancel jobs, while those are asked that have them."""

    def __init__(self, how: bytes, count: int, left: set[int], on_end: Callable[[_CancelOrder], None]) -> None:
        self.how = how
        self.count = count  # jobs that had not finished
        self.beyond = 0  # of which a node that cannot be asked may have some
        self._left = left  # numbers of batches
        self._on_end = on_end

    def on_told(self, number: int, least: int, told: dict[str, Any]) -> None:
        """What nodes have said to it."""
        self.on_answer(number, max(least, sum(answer["count"] for answer in told.values())))

    def on_answer(self, number: int, count: int) -> None:
        """A batch has been seen to."""
        self.count += count
        self._left.discard(number)
        if not self._left:
            self._on_end(self)

"""How a pool on an engine ends: in order, soon, at once, or with the engine."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from functools import partial

from bossworker.engines.adapter import Adapter
from bossworker.engines.line_batches import LineBatches
from bossworker.engines.line_beats import LineBeats
from bossworker.engines.line_calls import LineCalls
from bossworker.engines.node_messages import ASK_SECONDS, NodeReport, NodeRequest
from bossworker.engines.program_side import ProgramSide
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import WARNING, Kind

END_SECONDS = 0.8  # for nodes to end at once
UNSENT_SECONDS = 0.001  # between tries to send the last results


class LineEnding:
    """See the module."""

    def __init__(
        self,
        adapter: Adapter,
        program: ProgramSide,
        calls: LineCalls,
        batches: LineBatches,
        beats: LineBeats,
        watchers: Watchers,
    ) -> None:
        self.reason = ""  # why it has ended, if nobody asked for that
        self._adapter = adapter
        self._program = program
        self._calls = calls
        self._batches = batches
        self._beats = beats
        self._watchers = watchers

    def in_order(self) -> None:
        """All is done: the nodes' parts leave."""
        self._batches.ended = True
        self._take_last_reports()

    def soon(self) -> None:
        """Run nothing more; what runs gets JobTimeout."""
        batches = self._batches
        # First: an answer that comes from now on must not have anything given out again.
        batches.ended = batches.book.closing = True
        batches.book.stop()
        batches.release_all()  # they stay in the book: of some results, nodes have yet to tell
        self._calls.then(self._adapter.ask(NodeRequest("stop"), None, None), lambda _: self._take_last_reports(), {})

    def _take_last_reports(self) -> None:
        self._calls.then(self._adapter.ask(NodeRequest("report"), None, ASK_SECONDS), self._end_nodes, {})

    def _end_nodes(self, reports: dict[str, NodeReport]) -> None:
        self._beats.on_reports(reports)
        self._calls.then(self._adapter.ask(NodeRequest("end"), None, None), self._say_farewell, {})

    def _say_farewell(self, exit_errors: dict[str, dict[int, str]]) -> None:
        for errors in exit_errors.values():
            self._program.tell_exit_errors(errors)
        if (events := self._watchers.farewell()) is not None:
            self._program.link.send(Kind.LAST_EVENTS, b"", [json.dumps(events).encode()])
        self._send_rest(closed=True)

    def _send_rest(self, closed: bool) -> None:
        """Leave once all has been sent."""
        program = self._program
        program.deliver()
        if program.unsent:
            self._calls.post(partial(self._send_rest, closed))
            time.sleep(UNSENT_SECONDS)
        elif closed:
            program.link.send(Kind.CLOSED)
            self._send_rest(closed=False)
        else:
            program.over = True

    def at_once(self) -> None:
        """Whatever runs."""
        if self._program.over:
            return
        self._batches.ended = self._program.over = True
        self._batches.release_all()
        asked = self._adapter.ask(NodeRequest("end now"), None, END_SECONDS)
        with suppress(Exception):
            asked.result(END_SECONDS)

    def with_engine(self, reason: str) -> None:
        """It is no more: what had begun is lost; of the rest, the program hears as we hang up."""
        batches = self._batches
        if batches.ended:
            return
        batches.ended, self.reason = True, reason
        # What the engine never gave to a node is queued again, so that it counts as not run; all else may have run.
        for number in list(filter(self._adapter.is_unbegun, batches.book.flights)):
            batches.take_back(number)
        self._program.add(batches.book.on_engine_gone(time.monotonic()))
        with suppress(LinkClosed):
            self._program.note(WARNING, f"engine gone: reason={reason!r}")
            self._send_rest(closed=False)

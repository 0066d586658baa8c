"""How a pool on an engine ends: in order, soon, at once, or with the engine."""

from __future__ import annotations

import json
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from bossworker.engines.line_orders import ASK_SECONDS
from bossworker.engines.node_messages import NodeReport, NodeRequest
from bossworker.pool.wire import messages
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import Kind

if TYPE_CHECKING:
    from bossworker.engines.engine_line import EngineLine

END_SECONDS = 0.8  # for nodes to end at once
UNSENT_SECONDS = 0.001  # between tries to send the last results
_WARNING = 30  # as in the module logging


class LineEnding:
    """See the module."""

    def __init__(self, line: EngineLine) -> None:
        self._line = line
        self.begun = False

    def in_order(self) -> None:
        """All is done: the nodes' parts leave."""
        self.begun = True
        self._take_last_reports()

    def soon(self) -> None:
        """Run nothing more; what runs gets JobTimeout."""
        line = self._line
        self.begun = True
        line.book.stop()
        line.book.closing = True
        for number in line.book.flights:  # they stay there: of some results, nodes have yet to tell
            line.adapter.release(number)
        line.then(line.adapter.ask(NodeRequest("stop"), None, None), lambda _: self._take_last_reports(), {})

    def _take_last_reports(self) -> None:
        line = self._line
        line.then(line.adapter.ask(NodeRequest("report"), None, ASK_SECONDS), self._end_nodes, {})

    def _end_nodes(self, reports: dict[str, NodeReport]) -> None:
        line = self._line
        line.on_reports(reports)
        line.then(line.adapter.ask(NodeRequest("end"), None, None), self._say_farewell, {})

    def _say_farewell(self, exit_errors: dict[str, dict[int, str]]) -> None:
        line = self._line
        for errors in exit_errors.values():
            for pid, text in errors.items():
                line.link.send(Kind.EXIT_ERROR, messages.EXIT_ERROR.pack(pid), [text.encode()])
        if (events := line.watchers.farewell()) is not None:
            line.link.send(Kind.LAST_EVENTS, b"", [json.dumps(events).encode()])
        self._send_rest(closed=True)

    def _send_rest(self, closed: bool) -> None:
        """Leave once all has been sent."""
        line = self._line
        line.deliver()
        if line.results.unsent:
            line.post(lambda: self._send_rest(closed))
            time.sleep(UNSENT_SECONDS)
        elif closed:
            line.link.send(Kind.CLOSED)
            self._send_rest(closed=False)
        else:
            line.over = True

    def at_once(self) -> None:
        """Whatever runs."""
        line = self._line
        if line.over:
            return
        self.begun = line.over = True
        for number in list(line.book.flights):
            line.adapter.release(number)
        asked = line.adapter.ask(NodeRequest("end now"), None, END_SECONDS)
        with suppress(Exception):
            asked.result(END_SECONDS)

    def with_engine(self, reason: str) -> None:
        """It is no more: what had begun is lost; of the rest, the program hears as we hang up."""
        line = self._line
        if self.begun:
            return
        self.begun, line.why_gone = True, reason
        for number in [number for number in line.book.flights if line.adapter.is_unbegun(number)]:
            line.take_back(number)
        line.add(line.book.on_engine_gone(time.monotonic()))
        with suppress(LinkClosed):
            line.note(_WARNING, f"engine gone: reason={reason!r}")
            self._send_rest(closed=False)

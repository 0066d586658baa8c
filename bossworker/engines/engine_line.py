"""What stands at the other end of the handle's connection, in the place of a boss: a thread of the program.

It takes orders by the frames that a boss understands, has the engine run batches, and sends results. An engine has
threads of its own anyway, from which it tells us of what happens: each such thing is put to our thread as a call.
"""

from __future__ import annotations

import contextlib
import threading
import time
from functools import partial
from typing import Any, cast

from bossworker.engines.adapter import Adapter, when_done
from bossworker.engines.flight_notes import FlightNotes
from bossworker.engines.line_batches import LineBatches
from bossworker.engines.line_beats import LineBeats
from bossworker.engines.line_calls import LineCalls
from bossworker.engines.line_ending import LineEnding
from bossworker.engines.line_orders import LineOrders
from bossworker.engines.line_renewals import LineRenewals
from bossworker.engines.node_messages import BatchAnswer
from bossworker.engines.program_side import ProgramSide
from bossworker.failure import describe
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.wire.link import Link, LinkClosed
from bossworker.pool.wire.messages import Kind


class EngineLine:
    """See the module. What an adapter calls puts a call to our thread, where all else happens."""

    def __init__(self, link: Link, adapter: Adapter, workers: int, relayed: bool, notes: FlightNotes) -> None:
        self.adapter = adapter
        self.program = program = ProgramSide(link)
        self.calls = calls = LineCalls(link)
        self.batches = batches = LineBatches(adapter, program, calls, workers, notes)
        self.beats = LineBeats(adapter, program, calls, batches, relayed)
        self.watchers = Watchers(program.ring, cast("Any", batches.book), {}, program.reply)
        self.ending = LineEnding(adapter, program, calls, batches, self.beats, self.watchers)
        renewals = LineRenewals(adapter, program, calls)
        self.orders = LineOrders(adapter, program, calls, batches, renewals, self.ending, self.watchers)
        self._notes = notes
        self.thread = threading.Thread(target=self.run, name="bossworker engine", daemon=True)

    # -- from any thread --------------------------------------------------------------------------------

    def on_answer(self, number: int, answer: BatchAnswer) -> None:
        self.calls.post(partial(self.batches.on_answer, number, answer))

    def on_failure(self, number: int, error: BaseException) -> None:
        self.calls.post(partial(self.batches.on_failure, number, error))

    def on_claim(self, number: int, node: str) -> None:
        self.calls.post(partial(self.batches.on_claimed, number, node))

    def on_nodes(self, nodes: set[str]) -> None:
        self.calls.post(partial(self.batches.on_nodes, nodes))

    def on_gone(self, reason: str) -> None:
        self.calls.post(partial(self.ending.with_engine, reason))

    def end_now(self) -> None:
        """End everything on the nodes, and this thread."""
        self.calls.post(self.ending.at_once)
        self.thread.join()

    def disown(self) -> None:
        """In a forked child, where there is no such thread: or others would take it for the program."""
        self.adapter.disown()
        self.program.link.drop()
        self._let_go()

    # -- the loop ---------------------------------------------------------------------------------------

    def run(self) -> None:
        try:
            self._start()
            while not self.program.over:
                self._wait()
                self._do_what_was_put_to_us()
                self._dispatch()
                self._attend()
                self.program.deliver()
        except LinkClosed:
            self.ending.at_once()
        except BaseException as error:
            self.ending.reason = f"its thread in this program has failed: {describe(error)}"
            self.ending.at_once()
            raise
        finally:
            self._hang_up()

    def _start(self) -> None:
        when_done(
            self.adapter.start(self),
            lambda why: self.calls.post(partial(self._on_started, why)),
            lambda error: self.calls.post(partial(self._on_started, f"{type(error).__name__}: {error}")),
        )

    def _on_started(self, why: str) -> None:
        """`why` it did not come up; empty: it did."""
        link = self.program.link
        if why:
            with contextlib.suppress(LinkClosed):
                link.send(Kind.START_FAILED, b"", [why.encode()])
            self.ending.at_once()
            return
        self.batches.started = True
        link.send(Kind.READY)

    def _wait(self) -> None:
        if self.calls.wait(self._seconds_until_due(time.monotonic())):
            link = self.program.link
            link.flush()
            for frame in link.receive():
                self.orders.on_frame(frame)

    def _seconds_until_due(self, now: float) -> float:
        seconds = max(0.0, self.beats.next_at - now)
        again = self.batches.seconds_until_due(now)
        if again is not None:
            seconds = min(seconds, again)
        return min(seconds, self.watchers.seconds_until_due(now)) if self.watchers.watched else seconds

    def _do_what_was_put_to_us(self) -> None:
        while not self.program.over and (act := self.calls.take()) is not None:
            act()

    def _dispatch(self) -> None:
        now = time.monotonic()
        if self.batches.dispatch(now):
            self.beats.come_early(now)

    def _attend(self) -> None:
        """Do what is due by the clock; end when all is done."""
        self.batches.tell_wanted()
        if self.watchers.watched:
            self.watchers.attend()
        self.beats.attend(time.monotonic())
        if self.batches.book.through and self.batches.started and not self.batches.ended:
            self.ending.in_order()

    def _hang_up(self) -> None:
        try:
            self.adapter.close()
        finally:  # or the program waits for us for ever
            self.program.link.close()
            self._let_go()

    def _let_go(self) -> None:
        self._notes.close()
        self.calls.close()

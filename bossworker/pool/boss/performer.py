"""Carries out what the ledger decides: each of its actions has one who performs it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from bossworker.failure import Outcome, encode_text
from bossworker.pool.boss.actions import (
    Actions,
    Assign,
    Finish,
    Interrupt,
    Kill,
    Leave,
    ReplaceStuck,
    Spawn,
    TakeBack,
    Tell,
    Tried,
)
from bossworker.pool.boss.chronicle import Chronicle
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.fork_server_orders import ForkServerOrders
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.reloads import Reloads
from bossworker.pool.boss.worker_lines import WorkerLines
from bossworker.pool.boss.worker_orders import WorkerOrders
from bossworker.pool.wire.messages import INFO, WARNING, ProtocolError
from bossworker.pool.wire.recorder import Snapshot
from bossworker.pool.wire.segments import single
from bossworker.system import processes, signals


class Performer:
    """See the module. Whatever tells the ledger of something hands the answer to `perform`."""

    def __init__(
        self,
        ledger: Ledger,
        intake: Intake,
        lines: WorkerLines,
        workers: WorkerOrders,
        fork_server: ForkServerOrders,
        delivery: Delivery,
        chronicle: Chronicle,
        reloads: Reloads,
    ) -> None:
        self.ledger = ledger
        self.chronicle = chronicle
        self._intake = intake
        self._lines = lines
        self._fork_server = fork_server
        self._delivery = delivery
        self._reloads = reloads
        self._performed_by: dict[type, Callable[[Any], None]] = {
            Assign: workers.assign,
            Leave: workers.leave,
            Spawn: fork_server.spawn,
            Interrupt: self._interrupt,
            Kill: self._kill,
            ReplaceStuck: self._replace_stuck,
            TakeBack: self._take_back,
            Finish: self._finish,
            Tried: self._tried,
            Tell: self._tell,
        }

    def perform(self, actions: Actions) -> None:
        """Carry these out; to carry out one may lead to more."""
        for action in actions:
            self._performed_by[type(action)](action)

    # -- looks at workers ---------------------------------------------------------------------------------

    def look(self, slot: int, ask: Callable[[Intake, int], Snapshot] = Intake.collect) -> Snapshot | None:
        """What a worker has done; None when its recorder cannot be believed, and it is being ended."""
        try:
            return ask(self._intake, slot)
        except ProtocolError as error:
            self.end_misbehaving(slot, error)
            return None

    def end_misbehaving(self, slot: int, error: ProtocolError) -> None:
        """A handler has written into its worker's sockets or recorder: end that worker, and read no more of it."""
        # First: what it has sent after this must not be acted on, though it lives until the kill arrives.
        self._lines.stop_reading(slot)
        self.perform(self.ledger.on_misbehaved(slot, str(error)))

    # -- actions ------------------------------------------------------------------------------------------

    def _interrupt(self, action: Interrupt) -> None:
        self.chronicle.job_stopped(self.ledger.workers[action.slot], action.job_id)
        # The mark, then the signal: the worker's handler looks there. If the job has ended by then, the mark names none
        # that runs.
        self._intake.recorders[action.slot].expire(action.job_id, action.excess)
        self._fork_server.signal(action.slot, signals.INTERRUPT)

    def _kill(self, action: Kill) -> None:
        self.chronicle.worker_killed(self.ledger.workers[action.slot])
        self._fork_server.signal(action.slot, 0)

    def _replace_stuck(self, action: ReplaceStuck) -> None:
        if processes.output_is_full() or self._delivery.holds_up_output:
            self.ledger.on_waits_for_output(action.slot, time.monotonic())
        else:
            # It had begun nothing when we looked, but may have since: the jobs that it can still claim are taken back
            # first, so that none of them dies of this; and whoever has begun one is not stuck.
            self._take_back(TakeBack(action.slot))
            worker = self.ledger.workers[action.slot]
            if not worker.limit and not worker.condemned:
                worker.why, worker.killed = "stuck", True
                self._kill(Kill(action.slot))

    def _take_back(self, action: TakeBack) -> None:
        snapshot = self.look(action.slot, Intake.take_back)
        if snapshot is not None:
            self.perform(self.ledger.on_taken_back(action.slot, snapshot, time.monotonic()))

    def _finish(self, action: Finish) -> None:
        self._delivery.add(
            single(
                action.job_id,
                action.pid,
                action.attempt,
                action.started,
                action.finished,
                action.outcome | Outcome.TEXT,
                encode_text(action.text, action.code),
            )
        )

    def _tried(self, action: Tried) -> None:
        if action.error:
            self._delivery.notes.add(WARNING, f"pool not reloaded: error={action.error.partition(chr(10))[0]!r}")
        else:
            self._delivery.notes.add(INFO, "pool reloaded")
        self.perform(self._reloads.on_tried(action.unused, action.error))

    def _tell(self, action: Tell) -> None:
        self._delivery.notes.add(action.level, action.text)

"""What workers are told to do: which batch is theirs, and that they may leave.

An order lies in the worker's mailbox, where it fits, and a message wakes a worker that sleeps; a longer one is sent.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from bossworker.pool.boss.actions import Assign, Leave
from bossworker.pool.boss.poller import Poller
from bossworker.pool.boss.router_start import RouterStart
from bossworker.pool.boss.worker_lines import WorkerLines
from bossworker.pool.wire.mailbox import fits
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.recorder import Memory, Recorder


class WorkerOrders:
    """See the module. It performs those of the ledger's actions that are orders to a worker."""

    def __init__(self, lines: WorkerLines, poller: Poller, memory: Memory, recorders: Mapping[int, Recorder]) -> None:
        self.router_start: RouterStart | None = None  # if ZeroMQ is the transport
        self._lines = lines
        self._reports = lines.reports
        self._poller = poller
        self._memory = memory
        self._recorders = recorders

    def assign(self, action: Assign) -> None:
        """Note who gets what before sending it, so that nothing can be in two places."""
        slot, batch, soon = action
        # Before the order: whoever finds a boss that was killed in between takes the jobs for begun. The other way
        # round, one that ran would count as one that never had, and run again.
        self._memory.note_assigned(slot, batch.first_id + batch.count)
        now = time.monotonic()
        recorder = self._recorders[slot]
        recorder.open_batch(batch.first_id, batch.count, batch.job_options.attempt, now)
        if soon:
            self._poller.expect_answer(now)
        head, body, mailbox = batch.head(), batch.body(), recorder.mailbox
        # Before the order, too: the worker may be through with it before `give` returns.
        self._reports.expect(slot, mailbox)
        if batch.file is None and fits(head, body):
            if mailbox.give(Kind.BATCH, head, body):
                self._lines.send(slot, Kind.WAKE)
            return
        if self.router_start is not None:
            self.router_start.make()  # for the next one: it does not know the worker yet
        # First the word, then the batch itself. The other way round, a worker that sleeps would be woken by the batch,
        # find no word of it, and sleep again: nothing else is sent to wake it.
        mailbox.give(Kind.BATCH, by_wire=True)
        self._lines.send(slot, Kind.BATCH, head, body, batch.file.copies() if batch.file is not None else ())

    def leave(self, action: Leave) -> None:
        """Ask an idle worker to leave in order."""
        if self._recorders[action.slot].mailbox.give(Kind.LEAVE):
            self._lines.send(action.slot, Kind.WAKE)

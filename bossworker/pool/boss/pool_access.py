"""What those who ask may see and change of a pool: one object for the caller's requests, the doors' and operators'."""

from __future__ import annotations

import time
from functools import partial

from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.fork_server_orders import ForkServerOrders
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.job_tails import JobTails
from bossworker.pool.boss.performer import Performer
from bossworker.pool.boss.reloads import Reloads
from bossworker.pool.boss.replying import send_reply
from bossworker.pool.boss.stacks import StackRequests
from bossworker.pool.boss.stats import take_stock
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.recorder import Memory, Snapshot


class PoolAccess:
    """See the module. What takes time is answered to the caller, unless another `reply` is given."""

    def __init__(
        self,
        caller: Link,
        memory: Memory,
        performer: Performer,
        intake: Intake,
        delivery: Delivery,
        fork_server: ForkServerOrders,
        reloads: Reloads,
        chores: list[Chore],
        options: Options,
    ) -> None:
        self.memory = memory
        self.ledger = ledger = performer.ledger
        self.perform = performer.perform
        self._look = performer.look
        self.recorders = recorders = intake.recorders
        self.delivery = delivery
        self.note = delivery.notes.add
        self.reloads = reloads
        self.options = options
        self.reply = partial(send_reply, caller.send)
        self.watchers = Watchers(delivery.ring, ledger, recorders, self.reply)
        self.tails = JobTails(ledger, recorders)
        self.stacks = StackRequests(ledger, recorders, fork_server.signal, self.reply, chores)

    def stats(self) -> dict[str, object]:
        """The figures of `BossWorker.stats`."""
        return take_stock(self.ledger, self.recorders, self.delivery, time.monotonic())

    def submit(self, batch: Batch) -> None:
        """Jobs to be run."""
        now = time.monotonic()
        first_id, count = batch.first_id, batch.count  # it may be joined to another
        self.perform(self.ledger.on_submit(batch, now))
        self.delivery.ring.queued(first_id, count, now)

    def stop(self, now: float) -> None:
        """Cancel everything, and let the workers leave."""
        running = [job_id for worker in self.ledger.busy() for job_id in worker.batch.ids]  # type: ignore[union-attr]
        self.perform(self.ledger.on_stop(now))
        self.cancel(running)

    def cancel(self, ids: list[int], how: bytes = b"") -> int:
        """Cancel jobs; how many were unfinished.

        `how`: ``messages.QUEUED_ONLY`` leaves those alone that a worker has, ``messages.UNBEGUN`` those that one has
        begun; they do not count.
        """
        now = time.monotonic()
        looks = {} if how == messages.QUEUED_ONLY else self._reclaim(ids, now)
        if how == messages.UNBEGUN:
            count, actions = self.ledger.on_take_back(ids, now)
        else:
            count, actions = self.ledger.on_cancel(ids, looks, now)
        self.perform(actions)
        return count

    def _reclaim(self, ids: list[int], now: float) -> dict[int, Snapshot]:
        """Take what they have not begun from those workers that have some of the jobs; how these are."""
        looks: dict[int, Snapshot] = {}
        wanted = set(ids)
        for worker in self.ledger.busy():
            assert worker.batch is not None
            if wanted.isdisjoint(worker.batch.ids):
                continue
            # Taken back, then looked at: a job that the worker claims at this moment is either ours again, or in the
            # snapshot as claimed. With the look first, it could be neither.
            snapshot = self._look(worker.slot, Intake.take_back)
            if snapshot is not None:
                self.ledger.reclaim(worker.slot, snapshot, now)
                looks[worker.slot] = snapshot
        return looks

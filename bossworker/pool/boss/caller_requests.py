"""What the caller asks for: jobs done or cancelled, more or fewer workers, figures, the end."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.fork_server_orders import ForkServerOrders
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.job_tails import JobTails
from bossworker.pool.boss.notes import complain
from bossworker.pool.boss.operations import Operations
from bossworker.pool.boss.performer import Performer
from bossworker.pool.boss.reloads import Reloads
from bossworker.pool.boss.replying import send_reply
from bossworker.pool.boss.stacks import StackRequests, jobs_meant
from bossworker.pool.boss.stats import take_stock
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import INFO, Kind
from bossworker.pool.wire.parcel import held
from bossworker.pool.wire.recorder import Memory, Snapshot


class CallerRequests:
    """See the module."""

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
        self.reply = partial(send_reply, caller)
        self.watchers = Watchers(delivery.ring, ledger, recorders, self.reply)
        self.tails = JobTails(ledger, recorders)
        self.stacks = StackRequests(ledger, recorders, fork_server.signal, self.reply, chores)
        self.operations = Operations(self)

    def on_frame(self, frame: Frame) -> None:
        now = time.monotonic()
        match frame.kind:
            case Kind.SUBMIT:
                batch = Batch.read(frame.head, frame.body, held(frame.fd, self.memory) if frame.fds else None)
                first_id, count = batch.first_id, batch.count  # it may be joined to another
                self.perform(self.ledger.on_submit(batch, now))
                self.delivery.ring.queued(first_id, count, now)
            case Kind.CLOSE:
                self.perform(self.ledger.on_close(now))
            case Kind.STOP:
                self.stop(now)
            case kind if (see_to := _REQUESTS.get(kind)) is not None:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                see_to(self, number, frame.head[messages.REQUEST.size :], frame.body)
            case kind:
                complain(f"dropped a frame of kind {kind!r} from the caller")

    # -- requests: each has a number, which its reply has, too --------------------------------------------

    def _on_cancel(self, number: int, more: memoryview, body: memoryview) -> None:
        self.reply(number, {"count": self.cancel(body.cast("Q").tolist(), bytes(more))})

    def _on_resize(self, number: int, more: memoryview, body: memoryview) -> None:
        (count,) = messages.COUNT.unpack(more)
        self.note(INFO, f"pool resized: workers={count} before={self.ledger.staff.target}")
        self.perform(self.ledger.on_resize(count, time.monotonic()))
        self.reply(number, {})

    def _on_pause(self, number: int, more: memoryview, body: memoryview) -> None:
        (on,) = messages.SWITCH.unpack(more)
        self.note(INFO, "pool paused" if on else "pool resumed")
        self.perform(self.ledger.on_pause() if on else self.ledger.on_resume(time.monotonic()))
        self.reply(number, {})

    def _on_reload(self, number: int, more: memoryview, body: memoryview) -> None:
        self.perform(self.reloads.add(number, bytes(more).decode(), bytes(body)))

    def _on_stack(self, number: int, more: memoryview, body: memoryview) -> None:
        self.stacks.ask(number, jobs_meant(*messages.JOB.unpack(more)))

    def _on_stats(self, number: int, more: memoryview, body: memoryview) -> None:
        self.delivery.deliver()  # so that what is counted as done has been sent
        self.reply(number, take_stock(self.ledger, self.recorders, self.delivery, time.monotonic()))

    def _on_events(self, number: int, more: memoryview, body: memoryview) -> None:
        self.watchers.ask(number, *messages.EVENTS.unpack(more))

    def _on_operate(self, number: int, more: memoryview, body: memoryview) -> None:
        self.operations.ask(number, bytes(body), self.reply)

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
            snapshot = self._look(worker.slot, Intake.take_back)
            if snapshot is not None:
                self.ledger.reclaim(worker.slot, snapshot, now)
                looks[worker.slot] = snapshot
        return looks


_REQUESTS: dict[Kind, Callable[[CallerRequests, int, memoryview, memoryview], None]] = {
    Kind.CANCEL: CallerRequests._on_cancel,
    Kind.RESIZE: CallerRequests._on_resize,
    Kind.PAUSE: CallerRequests._on_pause,
    Kind.RELOAD: CallerRequests._on_reload,
    Kind.STACK: CallerRequests._on_stack,
    Kind.STATS: CallerRequests._on_stats,
    Kind.EVENTS: CallerRequests._on_events,
    Kind.OPERATE: CallerRequests._on_operate,
}

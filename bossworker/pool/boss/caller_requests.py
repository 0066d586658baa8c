"""What the caller asks for: jobs done or cancelled, more or fewer workers, figures, the end."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

from bossworker.pool.boss.chores import Chore
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.intake import Intake
from bossworker.pool.boss.job_tails import JobTails
from bossworker.pool.boss.notes import complain
from bossworker.pool.boss.operations import Operations
from bossworker.pool.boss.reloads import Reloads, Tell
from bossworker.pool.boss.stacks import StackRequests, jobs_meant
from bossworker.pool.boss.stats import take_stock
from bossworker.pool.boss.watchers import Watchers
from bossworker.pool.boss.worker_traffic import WorkerTraffic
from bossworker.pool.options import Options
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.parcel import held
from bossworker.pool.wire.recorder import Snapshot

_INFO = 20  # as in the module logging


class CallerRequests:
    """See the module.

    `note` has the program's logger say something, at a level of the module logging. `tell_fork_server` sends the fork
    server a message; `signal` has a worker signalled.
    """

    def __init__(
        self,
        traffic: WorkerTraffic,
        delivery: Delivery,
        note: Callable[[int, str], None],
        tell_fork_server: Tell,
        signal: Callable[[int, int], None],
        options: Options,
    ) -> None:
        self.traffic = traffic
        self.caller = traffic.caller
        self.ledger = traffic.ledger
        self.memory = traffic.memory
        self.perform = traffic.perform
        self.deliver = traffic.deliver
        self.delivery = delivery
        self.note = note
        self.options = options
        ledger, recorders = self.ledger, traffic.intake.recorders
        self.watchers = Watchers(delivery.ring, ledger, recorders, self.reply)
        self.reloads = Reloads(ledger, tell_fork_server, self.perform, self.reply, options.handler)
        self.chores: list[Chore] = []
        self.tails = JobTails(ledger, recorders)
        self.stacks = StackRequests(ledger, recorders, signal, self.reply, self.chores)
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
        self.note(_INFO, f"pool resized: workers={count} before={self.ledger.staff.target}")
        self.perform(self.ledger.on_resize(count, time.monotonic()))
        self.reply(number, {})

    def _on_pause(self, number: int, more: memoryview, body: memoryview) -> None:
        (on,) = messages.SWITCH.unpack(more)
        self.note(_INFO, "pool paused" if on else "pool resumed")
        self.perform(self.ledger.on_pause() if on else self.ledger.on_resume(time.monotonic()))
        self.reply(number, {})

    def _on_reload(self, number: int, more: memoryview, body: memoryview) -> None:
        self.reloads.add(number, bytes(more).decode(), bytes(body))

    def _on_stack(self, number: int, more: memoryview, body: memoryview) -> None:
        self.stacks.ask(number, jobs_meant(*messages.JOB.unpack(more)))

    def _on_stats(self, number: int, more: memoryview, body: memoryview) -> None:
        self.deliver()  # so that what is counted as done has been sent
        self.reply(number, take_stock(self.ledger, self.traffic.intake.recorders, self.delivery, time.monotonic()))

    def _on_events(self, number: int, more: memoryview, body: memoryview) -> None:
        self.watchers.ask(number, *messages.EVENTS.unpack(more))

    def _on_operate(self, number: int, more: memoryview, body: memoryview) -> None:
        self.operations.ask(number, bytes(body), self.reply)

    def reply(self, number: int, content: dict[str, object]) -> None:
        """Answer a request; number 0 wants no answer."""
        if number:
            self.caller.send(Kind.REPLY, messages.REQUEST.pack(number), [json.dumps(content).encode()])

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
            snapshot = self.traffic.look(worker.slot, Intake.take_back)
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

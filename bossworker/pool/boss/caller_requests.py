"""What the caller asks for: jobs done or cancelled, more or fewer workers, figures, the end."""

from __future__ import annotations

import time
from collections.abc import Callable

from bossworker.pool.boss.notes import complain
from bossworker.pool.boss.operations import Operations
from bossworker.pool.boss.pool_access import PoolAccess
from bossworker.pool.boss.stacks import jobs_meant
from bossworker.pool.wire import messages
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.frames import Frame
from bossworker.pool.wire.messages import INFO, Kind
from bossworker.pool.wire.parcel import held


class CallerRequests:
    """See the module."""

    def __init__(self, pool: PoolAccess, operations: Operations) -> None:
        self.pool = pool
        self.operations = operations

    def on_frame(self, frame: Frame) -> None:
        pool = self.pool
        match frame.kind:
            case Kind.SUBMIT:
                pool.submit(Batch.read(frame.head, frame.body, held(frame.fd, pool.memory) if frame.fds else None))
            case Kind.CLOSE:
                pool.perform(pool.ledger.on_close(time.monotonic()))
            case Kind.STOP:
                pool.stop(time.monotonic())
            case kind if (see_to := _REQUESTS.get(kind)) is not None:
                (number,) = messages.REQUEST.unpack_from(frame.head)
                see_to(self, number, frame.head[messages.REQUEST.size :], frame.body)
            case kind:
                complain(f"dropped a frame of kind {kind!r} from the caller")

    # -- requests: each has a number, which its reply has, too --------------------------------------------

    def _on_cancel(self, number: int, more: memoryview, body: memoryview) -> None:
        self.pool.reply(number, {"count": self.pool.cancel(body.cast("Q").tolist(), bytes(more))})

    def _on_resize(self, number: int, more: memoryview, body: memoryview) -> None:
        (count,) = messages.COUNT.unpack(more)
        self.pool.note(INFO, f"pool resized: workers={count} before={self.pool.ledger.staff.target}")
        self.pool.perform(self.pool.ledger.on_resize(count, time.monotonic()))
        self.pool.reply(number, {})

    def _on_pause(self, number: int, more: memoryview, body: memoryview) -> None:
        (on,) = messages.SWITCH.unpack(more)
        self.pool.note(INFO, "pool paused" if on else "pool resumed")
        self.pool.perform(self.pool.ledger.on_pause() if on else self.pool.ledger.on_resume(time.monotonic()))
        self.pool.reply(number, {})

    def _on_reload(self, number: int, more: memoryview, body: memoryview) -> None:
        self.pool.perform(self.pool.reloads.add(number, bytes(more).decode(), bytes(body)))

    def _on_stack(self, number: int, more: memoryview, body: memoryview) -> None:
        self.pool.stacks.ask(number, jobs_meant(*messages.JOB.unpack(more)))

    def _on_stats(self, number: int, more: memoryview, body: memoryview) -> None:
        self.pool.delivery.deliver()  # so that what is counted as done has been sent
        self.pool.reply(number, self.pool.stats())

    def _on_events(self, number: int, more: memoryview, body: memoryview) -> None:
        self.pool.watchers.ask(number, *messages.EVENTS.unpack(more))

    def _on_operate(self, number: int, more: memoryview, body: memoryview) -> None:
        self.operations.ask(number, bytes(body), self.pool.reply)


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

"""A node's part of a pool: boss and workers, which batches find there, or start. It ends with the node's process.

Several tasks of the engine may be in it at the same time, each in a thread of its own that waits for its batch. Whoever
waits listens to the boss; when nobody does, a thread of ours listens, which also ends the pool when the program has not
been heard of for the time of a lease.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from array import array
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

from bossworker.engines.node_batch import NodeBatch
from bossworker.engines.node_connection import NodeConnection, submit_frame
from bossworker.engines.node_messages import BatchAnswer, BatchOrder, Body, Node, NodeReport, NodeRequest, PoolSpec
from bossworker.pool.fresh_interpreter import Packed
from bossworker.pool.launch import launch
from bossworker.pool.options import Options
from bossworker.pool.reloading import renewed_of
from bossworker.pool.wire import messages
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import Segment, part
from bossworker.system import identity, signals, stdio
from bossworker.system.wall_clock import wall_clock

EARLY_BYTES = 1 << 20  # of results that go ahead of an answer, in one report
ROOM_SECONDS = 0.2  # between looks whether workers are idle while a batch waits for its last jobs
KEEP_SECONDS = 0.5  # between looks whether the program is there


class NodeStartError(Exception):
    """The node's part of the pool did not come up; the text says why."""


class Resident:
    """See the module."""

    def __init__(self, spec: PoolSpec, node: Node) -> None:
        self.spec = spec
        self.node = node.name
        self._lives = node.lives
        self._slots = node.threads
        self.workers: int = spec.options["worker_count"]
        self.pid = os.getpid()
        self.batches: dict[int, NodeBatch] = {}
        self._lock = threading.RLock()
        self._renewing = threading.Lock()  # not held by those who end us
        self._heard_at = time.monotonic()
        self._ending = False  # of itself, since there seems to be no program: it takes no batch any more
        self.tied = False  # whether there is a line to the program, whose end is ours
        with signals.held(), stdio.stdio_reserved():
            launched = launch(Packed(b"", spec.handlers), Options(**spec.options))
            try:
                self.connection = NodeConnection(launched, self._receive)
            except BaseException:
                launched.abandon()
                raise
        self._await_start()
        self._heard_at = time.monotonic()  # which may have taken its time
        self._keeper = threading.Thread(target=self._keep, name="bossworker node", daemon=True)
        self._keeper.start()

    def _await_start(self) -> None:
        line = self.connection
        line.wait_until(lambda: line.said.up or bool(line.said.failure))
        if not line.said.up:
            why = line.why_not_up()
            self.end_now()
            raise NodeStartError(why)

    @property
    def usable(self) -> bool:
        return not self.connection.gone and not self._ending and self.pid == os.getpid()

    def renew(self, spec: PoolSpec) -> None:
        """Have these handlers, if ours are older. NodeStartError: with them, no worker comes up."""
        with self._renewing:
            if spec.generation <= self.spec.generation:
                return
            self._heard_at = time.monotonic()
            answer = self.connection.request(Kind.RELOAD, b"", [renewed_of(spec.handlers)])
            if answer is None or answer["error"]:
                raise NodeStartError(answer["error"] if answer is not None else f"the pool on {self.node} ended")
            self.spec = self.spec._replace(handlers=spec.handlers, generation=spec.generation)

    # -- batches ----------------------------------------------------------------------------------------

    def run(
        self, order: BatchOrder, body: Body, claim: Callable[[], bool], make_room: Callable[[], None] | None = None
    ) -> BatchAnswer:
        """Run a batch, unless another node has claimed it; or wait for it, if it is here already.

        `make_room` lets the engine give us one more, though this one is not through: called when workers are idle, or
        would be so until the next one is here and claimed. That takes several messages, each of which has to wait for
        a processor where these are busy. So of quick batches we have two for each slot.
        """
        batch, known = self._enter(order, body)
        if not known:
            self._begin(batch, claim)
        batch.decided.wait()
        if not batch.claimed:
            return BatchAnswer("lost", self.node)
        self._wait(batch, make_room)
        return self._leave(batch)

    def _wait(self, batch: NodeBatch, make_room: Callable[[], None] | None) -> None:
        if make_room is not None and self._wait_for_room(batch):
            make_room()
        self.connection.wait_until(lambda: batch.through)

    def _wait_for_room(self, batch: NodeBatch) -> bool:
        """Until the next batch may come; False: this one was through before, or the pool here has ended."""
        line, waiting = self.connection, True
        while waiting and not line.gone:
            soon = time.monotonic() + ROOM_SECONDS
            found = line.wait_until(lambda: batch.through or self._has_room(batch), soon)
            waiting = not found and not self._has_idle_workers()
        return not (batch.through or line.gone)

    def _has_room(self, batch: NodeBatch) -> bool:
        """Whether the next batch may come while this one runs."""
        return batch.order.quick and sum(not one.through for one in list(self.batches.values())) <= self._slots

    def _has_idle_workers(self) -> bool:
        return sum(one.left for one in list(self.batches.values())) < self.workers

    def _enter(self, order: BatchOrder, body: Body) -> tuple[NodeBatch, bool]:
        with self._lock:
            # Under the lock, as the end is: a batch that gets in here keeps the pool from ending.
            if self._ending or not self._lives():  # since it was found here
                raise NodeStartError(f"the pool on {self.node} has just ended")
            self._heard_at = time.monotonic()
            batch = self.batches.get(order.number)
            if batch is not None:
                return batch, True
            batch = self.batches[order.number] = NodeBatch(order, body)
            return batch, False

    def _begin(self, batch: NodeBatch, claim: Callable[[], bool]) -> None:
        """Claim it, and hand it to the boss."""
        try:
            # Without the lock, since it may take long: what is cancelled meanwhile is noted in the batch, and goes to
            # the boss behind its jobs (`_submit`).
            batch.claimed = claim()
            if batch.claimed:
                with self._lock:
                    self._submit(batch)
            else:
                with self._lock:
                    self.batches.pop(batch.order.number, None)
        finally:
            batch.decided.set()

    def _submit(self, batch: NodeBatch) -> None:
        assert batch.body is not None
        parts = submit_frame(batch.order, batch.body.data)
        batch.submitted, batch.body = True, None
        self.connection.send_packed(parts)
        for ids, how in ((batch.doomed, b""), (batch.wanted_back, messages.UNBEGUN)):
            if ids:
                self.connection.send(Kind.CANCEL, messages.REQUEST.pack(0) + how, [array("Q", sorted(ids)).tobytes()])

    def _leave(self, batch: NodeBatch) -> BatchAnswer:
        with self._lock:
            self.batches.pop(batch.order.number, None)
            self._heard_at = time.monotonic()  # it may have taken long; now the next one is due
        reason = f"the pool on {self.node} ended" if batch.left else ""
        lines = tuple(_drained(self.connection.lines))
        return BatchAnswer("done", self.node, wall_clock.offset(), *_frame_of(batch.segments), reason, lines)

    def _receive(self, segments: list[Segment]) -> None:
        with self._lock:
            for segment in segments:
                while segment.jobs:
                    segment = self._give(segment)  # noqa: PLW2901

    def _give(self, segment: Segment) -> Segment:
        """Give its batch what is that one's; what is left."""
        batch = next((one for one in self.batches.values() if one.awaits(segment.first_id)), None)
        count = 1 if batch is None else batch.take(segment)
        return part(segment, count, segment.jobs) if count < segment.jobs else segment._replace(jobs=0)

    # -- what the program asks --------------------------------------------------------------------------

    def report(self) -> NodeReport:
        """See `NodeReport`. Waits for nothing."""
        self._heard_at = time.monotonic()
        line = self.connection
        line.poll()
        with self._lock:
            early = self._early()
            claimed = [number for number, batch in self.batches.items() if batch.claimed]
        head, body = _frame_of(early)
        lines, notes = _drained(line.lines), _drained(line.notes)
        return NodeReport(
            self.node, claimed, wall_clock.offset(), head, body, lines, notes, dict(line.said.exit_errors)
        )

    def _early(self) -> list[Segment]:
        """Results that have not been told of, up to a size."""
        found: list[Segment] = []
        size = 0
        for batch in self.batches.values():
            while batch.left and batch.reported < len(batch.segments):
                size += batch.segments[batch.reported].size
                if size > EARLY_BYTES:
                    return found
                found.append(batch.segments[batch.reported])
                batch.reported += 1
        return found

    def ask(self, request: NodeRequest) -> dict[str, Any] | None:
        """Ask the boss, and wait for what it says; None when it is gone."""
        self._heard_at = time.monotonic()
        kind = Kind(request.kind)
        doomed = 0
        if kind is Kind.CANCEL:
            doomed = self._doom(array("Q", request.body).tolist(), begun=not request.head)
        elif kind is Kind.RESIZE:
            (self.workers,) = messages.COUNT.unpack(request.head)
        answer = self.connection.request(kind, request.head, [request.body])
        if doomed and answer is not None:
            answer["count"] += doomed
        return answer

    def _doom(self, ids: Iterable[int], begun: bool) -> int:
        """Those of the jobs that are in a batch that is being claimed will be cancelled; how many these are.

        `begun`: also those that a worker has begun until then.
        """
        count = 0
        with self._lock:
            for batch in self.batches.values():
                if not batch.submitted:
                    known = batch.doomed | batch.wanted_back
                    hits = {job_id for job_id in ids if batch.first_id <= job_id < batch.stop_id}
                    (batch.doomed if begun else batch.wanted_back).update(hits)
                    count += len(hits - known)
        return count

    # -- the end ----------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Run nothing more; what runs gets JobTimeout."""
        self.connection.send(Kind.STOP)

    def end(self) -> dict[int, str]:
        """Leave in order; what exit_handlers raised."""
        line = self.connection
        line.send(Kind.CLOSE)
        line.wake()
        line.wait_until(lambda: line.said.orderly)
        self._let_go(force=False)
        return line.said.exit_errors

    def end_now(self) -> None:
        """Within a second."""
        self._let_go(force=True)

    def _let_go(self, force: bool) -> None:
        line = self.connection
        with signals.held():
            line.end(force)
            line.close()
        with self._lock:
            for batch in self.batches.values():
                batch.lost = True
        line.wake()

    def _keep(self) -> None:
        """In a thread: listen when nobody else does; end with the lease, or with the boss."""
        line = self.connection
        while not line.gone and not line.closed:
            with self._lock:  # or a batch might be taken in between
                why = self._why_to_end()
                self._ending = bool(why)
            if why:
                logging.getLogger("bossworker").warning("node ended pool=%s reason=%r", self.spec.pool, why)
                self.end_now()
                return
            line.wait_until(lambda: line.gone, time.monotonic() + KEEP_SECONDS)
        with self._lock:
            for batch in self.batches.values():
                batch.lost = bool(batch.left)
        line.wake()

    def _why_to_end(self) -> str:
        """Why there is no program any more, as it seems."""
        if identity.look(self.spec.program) == identity.GONE:
            return "the program has ended"
        if not self._lives():
            return "the engine has closed this worker"
        if self.tied or (self.batches and not self.spec.beats):
            return ""
        silent = time.monotonic() - self._heard_at
        return f"the program has not been heard of for {silent:.0f} s" if silent > self.spec.lease_seconds else ""


def _drained(queue: Any) -> list[Any]:
    found = []
    with suppress(IndexError):
        while True:
            found.append(queue.popleft())
    return found


def _frame_of(segments: list[Segment]) -> tuple[bytes, bytes]:
    """Results as head and body of a frame."""
    head = b"".join([segment.head() for segment in segments])
    return head, b"".join([one for segment in segments for one in segment.body()])


# -- which of them there are in this process ------------------------------------------------------------------------

_residents: dict[str, Resident] = {}
_starts: dict[str, threading.Lock] = {}
_guard = threading.Lock()
_ended: set[str] = set()  # pools that were told to end: a batch that comes late starts them no more


def find_resident(pool: str) -> Resident | None:
    """The part of a pool that is here."""
    resident = _residents.get(pool)
    return resident if resident is not None and resident.usable else None


def resident_for(spec: PoolSpec, node: Node) -> Resident:
    """The same; it is started if there is none. NodeStartError."""
    with _guard:
        lock = _starts.setdefault(spec.pool, threading.Lock())
    with lock:
        if spec.pool in _ended:
            raise NodeStartError("the pool has been shut down")
        resident = find_resident(spec.pool)
        if resident is None:
            options = {**spec.options, "worker_count": spec.options["worker_count"] or node.threads}
            resident = _residents[spec.pool] = Resident(spec._replace(options=options), node)
            # The program withdraws what `wanted` looks for, and then asks all nodes to end. So what was started before
            # that is on a node that is asked; what was started later ends here, though nobody may know of it.
            if not node.wanted():
                _ended.add(spec.pool)
                _residents.pop(spec.pool).end_now()
                raise NodeStartError("the pool has been shut down")
    resident.renew(spec)
    return resident


def end_resident(pool: str, force: bool) -> dict[int, str]:
    """End the part of a pool that is here; what exit_handlers raised."""
    _ended.add(pool)
    with _guard:
        lock = _starts.setdefault(pool, threading.Lock())
    with lock:
        resident = _residents.pop(pool, None)
    if resident is None or resident.pid != os.getpid():
        return {}
    if force:
        resident.end_now()
        return {}
    return resident.end()

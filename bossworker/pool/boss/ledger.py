"""The boss's book: which job is queued, which worker has what, and what to do next. No I/O in here.

The boss tells the ledger what happened (``on_...``) and performs the actions it gets back. So every ordering of
events is tested without a process.

Jobs are kept as batches (see ``batch.py``), never one by one: a queued job costs its bytes and a few more.
"""

from __future__ import annotations

from collections.abc import Iterable

from bossworker.pool.boss.actions import Actions, Assign, ReplaceStuck, TakeBack
from bossworker.pool.boss.cancelling import Cancelling
from bossworker.pool.boss.dead_workers import DeadWorkers
from bossworker.pool.boss.deadlines import OVERDUE_SECONDS, Deadlines
from bossworker.pool.boss.job_lengths import JobLengths
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.boss.staff import Staff
from bossworker.pool.boss.workers import NEVER, Exit, State, Terminated, WorkerRecord
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.recorder import MAX_BATCH, Snapshot


class Ledger:
    """See the module. Times are monotonic seconds."""

    def __init__(
        self,
        workers: int,
        *,
        kill_grace: float,
        max_jobs_per_worker: int,
        max_job_memory: int = 0,
        max_batch: int = MAX_BATCH,
    ) -> None:
        self.queue = Queue()
        self.staff = Staff(workers, max_jobs_per_worker, self._needs_workers)
        self.workers = self.staff.workers
        self.closing = False
        self.stopping = False  # with no regard to what is queued
        self.paused = False  # no new job starts
        self._max_jobs = max_jobs_per_worker
        self._max_batch = max_batch
        self._lengths = JobLengths()
        self._deadlines = Deadlines(kill_grace)
        self._cancelling = Cancelling(self.queue, self.workers, self._deadlines)
        self._dead_workers = DeadWorkers(self.queue, self._cancelling, max_job_memory)

    # -- questions --------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Closed, and nobody is left."""
        return self.closing and not self.workers and not self.queue.jobs

    def _needs_workers(self) -> bool:
        return not self.closing or self.queue.jobs > 0

    def busy(self) -> list[WorkerRecord]:
        """Workers that have jobs."""
        return self.staff.busy()

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until something is due; None: nothing is."""
        due = NEVER
        for worker in self.workers.values():
            if worker.batch is not None and worker.look_at < due:
                due = worker.look_at
        starts = self.staff.starts
        if starts.not_before and self.staff.vacant:
            due = min(due, starts.not_before)
        return None if due == NEVER else max(0.0, due - now)

    def pause_is_over(self, now: float) -> bool:
        """Whether starts that had to wait may be made now, by ``on_tick``."""
        return 0.0 < self.staff.starts.not_before <= now

    def due(self, now: float) -> list[int]:
        """Slots of the workers that should be looked at."""
        return [w.slot for w in self.workers.values() if w.batch is not None and w.look_at <= now]

    # -- workers come and go ----------------------------------------------------------------------------

    def on_tick(self, now: float) -> Actions:
        """Start what is missing, hand out what is queued."""
        return self.staff.start_missing(now) + self._dispatch(now)

    def on_spawned(self, slot: int, pid: int) -> None:
        self.workers[slot].pid = pid

    def on_up(self, slot: int, now: float) -> Actions:
        """A worker's init_handler has returned."""
        return self.staff.on_up(slot, now) + self._dispatch(now)

    def on_start_failed(self, slot: int, text: str, now: float) -> Actions:
        """A worker could not be started, or ended before it was up."""
        return self.staff.on_start_failed(slot, text, now)

    def on_misbehaved(self, slot: int, why: str) -> Actions:
        """A worker wrote what cannot be true. It gets nothing more, and is ended."""
        return self.staff.on_misbehaved(slot, why)

    def on_exit(self, slot: int, how: Exit, snapshot: Snapshot | None, now: float) -> Actions:
        """A worker is gone, and everything it left has been taken from it. `snapshot`: None if nobody knows what."""
        worker = self.staff.on_exit(slot, now)
        batch = worker.batch
        actions = [] if batch is None else self._dead_workers.wind_up(worker, batch, how, snapshot, now)
        return actions + self.on_tick(now)

    # -- jobs -------------------------------------------------------------------------------------------

    def on_submit(self, batch: Batch, now: float) -> Actions:
        if self.stopping:
            return []
        idle = self.staff.idle
        if batch.count == 1 and idle and not self.queue.jobs and not self.paused:  # it need not be queued first
            return [self._give(self.workers[idle.pop()], batch, now)]
        self.queue.add(batch)
        return self._dispatch(now)

    def _dispatch(self, now: float) -> Actions:
        actions: Actions = []
        idle = self.staff.idle
        while idle and self.queue.jobs and not self.paused:
            worker = self.workers[idle.pop()]
            actions.append(self._give(worker, self.queue.cut(self._batch_size(worker)), now))
        if self.closing and not self.queue.jobs and not self.busy():
            while idle:
                actions.append(self.staff.send_away(self.workers[idle.pop()]))
        return actions

    def _give(self, worker: WorkerRecord, batch: Batch, now: float) -> Assign:
        """An idle worker, which is on no list of those any more, has these jobs from now on."""
        worker.batch = batch
        worker.state, worker.given_at = State.BUSY, now
        worker.limit, worker.taken, worker.expired, worker.result_bytes = batch.count, 0, -1, 0
        worker.sending_since = 0.0
        for positions in (worker.spilled, worker.awaited, worker.cancelled):
            positions.clear()
        worker.look_at = min(self._deadlines.next_look(worker, now, now), now + OVERDUE_SECONDS)
        return Assign(worker.slot, batch, self._lengths.is_soon(batch.count))

    def _batch_size(self, worker: WorkerRecord) -> int:
        """As many jobs as are worth a batch, but no more than a fair share of the queue."""
        share = -(-self.queue.jobs // (2 * max(1, len(self.workers))))
        share = max(share, self._lengths.jobs_not_to_split())
        if self._max_jobs:
            share = min(share, self._max_jobs - worker.jobs_done)
        return max(1, min(self._lengths.jobs_in_batch(), share, self._max_batch))

    def on_taken(self, slot: int, published: int, size: int = 0, elsewhere: Iterable[int] = ()) -> None:
        """Results up to this position of the batch have been taken, this many bytes.

        `elsewhere`: positions of those that travel by themselves, and are here already or on their way.
        """
        worker = self.workers[slot]
        if elsewhere:
            worker.awaited |= set(elsewhere) - worker.spilled
        worker.result_bytes += size
        worker.jobs_done += published - worker.taken
        worker.taken = published

    def on_spilled(self, slot: int, job_id: int, size: int = 0) -> None:
        """A result that the recorder had no room for came by itself."""
        worker = self.workers[slot]
        worker.result_bytes += size
        assert worker.batch is not None
        position = job_id - worker.batch.first_id
        worker.spilled.add(position)
        worker.awaited.discard(position)

    def on_done(self, slot: int, seconds: float, leaves: bool, now: float) -> Actions:
        """A worker has finished its batch, whose results have all been taken."""
        worker = self.workers[slot]
        if worker.batch is not None and worker.taken:
            self._lengths.learn(seconds / worker.taken, worker.result_bytes / worker.taken)
        worker.batch = None
        # SIGKILL is on its way to this worker, whose job has ended just in time. What it was given now would die for
        # that job's sake: so it is given nothing, and counts as busy until its exit is told.
        if worker.killed:
            return self._dispatch(now)
        if leaves:
            self.staff.send_away(worker)  # it goes by itself
            actions = self.staff.replace(worker, "outgrown", now)
        else:
            actions = self.staff.settle(worker, now)
        return actions + self._dispatch(now)

    # -- watching ---------------------------------------------------------------------------------------

    def on_look(self, slot: int, snapshot: Snapshot, now: float) -> Actions:
        """What a look at a busy worker showed."""
        worker = self.workers[slot]
        batch = worker.batch
        if batch is None:
            return []
        if self._deadlines.sends_for_ever(worker, snapshot, now):
            return self.on_misbehaved(slot, "a large result that did not come")
        actions = self._deadlines.enforce(worker, batch, snapshot, now) if snapshot.running else []
        unclaimed = snapshot.claimed < worker.limit
        slow = snapshot.claimed and now - snapshot.started >= OVERDUE_SECONDS
        # A worker whose job must stop may have to be killed for it: see `Deadlines.enforce`.
        if unclaimed and (slow or worker.expired >= 0 or (self.staff.idle and not self.queue.jobs)):
            actions.append(TakeBack(slot))
        worker.look_at = self._deadlines.next_look(worker, snapshot.started if snapshot.claimed else now, now)
        if not snapshot.claimed:  # the worker itself may be stopped
            worker.look_at = min(worker.look_at, now + OVERDUE_SECONDS)
            if self._deadlines.is_stuck(worker, batch, now):
                actions.append(ReplaceStuck(slot))
        return actions

    def on_waits_for_output(self, slot: int, now: float) -> None:
        """Nobody reads what this worker prints, so that it waits: the time that it has to begin starts anew."""
        self.workers[slot].given_at = now

    def on_excess(self, slot: int, position: int, excess: int, now: float) -> Actions:
        """The job at this position of a worker's batch, which runs, has taken more memory than it may."""
        worker = self.workers[slot]
        if worker.batch is None or worker.condemned or worker.expired == position:
            return []
        return self._deadlines.expire(worker, worker.batch, position, Terminated.MEMORY, now, excess)

    def on_taken_back(self, slot: int, snapshot: Snapshot, now: float) -> Actions:
        """The jobs behind the claimed ones are the boss's again."""
        self.reclaim(slot, snapshot, now)
        return self._dispatch(now)

    def reclaim(self, slot: int, snapshot: Snapshot, now: float) -> None:
        """Queue again what a worker was given but can no longer claim."""
        worker = self.workers[slot]
        batch = worker.batch
        # The worker may have claimed the last of them while we were about to take them back.
        if batch is None or snapshot.claimed >= worker.limit:
            return
        self.queue.put_back(batch.part(snapshot.claimed, worker.limit))
        worker.limit = snapshot.claimed
        worker.look_at = self._deadlines.next_look(worker, snapshot.started if snapshot.claimed else now, now)

    # -- orders from the caller -------------------------------------------------------------------------

    def on_cancel(self, ids: list[int], looks: dict[int, Snapshot], now: float) -> tuple[int, Actions]:
        """Cancel jobs; how many had not finished.

        Unclaimed jobs of busy workers must have been reclaimed; `looks` shows the state of those workers.
        """
        count, actions = self._cancelling.cancel(ids, looks, now)
        return count, actions + self._dispatch(now)

    def on_take_back(self, ids: list[int], now: float) -> tuple[int, Actions]:
        """Cancel those jobs that are queued, and no others; how many these are."""
        actions = self._cancelling.end_queued(ids, now)
        return len(actions), actions + self._dispatch(now)

    def on_resize(self, target: int, now: float) -> Actions:
        """Another number of workers."""
        return self.staff.resize(target, now) + self._dispatch(now)

    def on_reload(self, generation: int, now: float) -> Actions:
        """Other handlers for all workers, once one worker has come up with them."""
        return self.staff.reload(generation, now) + self._dispatch(now)

    def on_pause(self) -> Actions:
        """No more jobs start, not even those that workers have been given. (One that is closed would never end.)"""
        self.paused = not self.closing
        return [TakeBack(worker.slot) for worker in self.busy() if not worker.condemned]

    def on_resume(self, now: float) -> Actions:
        """Jobs start again."""
        self.paused = False
        return self._dispatch(now)

    def on_stop(self, now: float) -> Actions:
        """Run nothing more: drop what is queued and what still comes. What runs is cancelled by the boss."""
        self.stopping = True
        self.queue.drain()
        return self.on_close(now)

    def on_close(self, now: float) -> Actions:
        """No more work will come; the workers leave once the queue is empty."""
        self.closing = True
        return self.on_resume(now)

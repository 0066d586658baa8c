"""The boss's book: which job is queued, which worker has what, and what to do next. No I/O in here.

The boss tells the ledger what happened (``on_...``) and performs the actions it gets back. So every ordering of
events is tested without a process.

Jobs are kept as batches (see ``batch.py``), never one by one: a queued job costs its bytes and a few more.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from itertools import count, filterfalse, islice

from bossworker.errors import CANCELLED, WORKER_DIED
from bossworker.failure import Outcome
from bossworker.pool.boss.actions import (
    Actions,
    Assign,
    Finish,
    Kill,
    Leave,
    ReplaceStuck,
    Spawn,
    TakeBack,
    Tell,
    Tried,
)
from bossworker.pool.boss.deadlines import OVERDUE_SECONDS, Deadlines
from bossworker.pool.boss.job_lengths import JobLengths
from bossworker.pool.boss.job_queue import Queue
from bossworker.pool.boss.renewal import Renewal
from bossworker.pool.boss.starts import Starts
from bossworker.pool.boss.workers import NEVER, Exit, State, Terminated, WorkerRecord
from bossworker.pool.options import MAX_WORKERS
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.recorder import MAX_BATCH, Snapshot
from bossworker.system.memory import describe_excess

_WARNING = 30  # as in the module logging


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
        self.workers: dict[int, WorkerRecord] = {}
        self.target = workers
        self.closing = False
        self.stopping = False  # with no regard to what is queued
        self.paused = False  # no new job starts
        self.restarts = 0
        self.restart_reasons: Counter[str] = Counter()  # in a word each
        self._max_jobs = max_jobs_per_worker
        self._max_memory = max_job_memory
        self._max_batch = max_batch
        self._idle: list[int] = []  # slots; the last one became idle last, its caches are warm
        self._lengths = JobLengths()
        self._deadlines = Deadlines(kill_grace)
        self.starts = Starts()
        self.renewal = Renewal()

    # -- questions --------------------------------------------------------------------------------------

    @property
    def finished(self) -> bool:
        """Closed, and nobody is left."""
        return self.closing and not self.workers and not self.queue.jobs

    @property
    def ready(self) -> bool:
        """Whether every worker that was asked for is up."""
        states = [worker.state for worker in self.workers.values()]
        return len(states) >= self.target and State.STARTING not in states

    def busy(self) -> list[WorkerRecord]:
        return [worker for worker in self.workers.values() if worker.batch is not None]

    @property
    def any_busy(self) -> bool:
        """Whether a worker has jobs."""
        return any(worker.batch is not None for worker in self.workers.values())

    def seconds_until_due(self, now: float) -> float | None:
        """Seconds until something is due; None: nothing is."""
        due = NEVER
        for worker in self.workers.values():
            if worker.batch is not None and worker.look_at < due:
                due = worker.look_at
        if self.starts.not_before and self._vacant():
            due = min(due, self.starts.not_before)
        return None if due == NEVER else max(0.0, due - now)

    def pause_is_over(self, now: float) -> bool:
        """Whether starts that had to wait may be made now, by ``on_tick``."""
        return 0.0 < self.starts.not_before <= now

    def due(self, now: float) -> list[int]:
        """Slots of the workers that should be looked at."""
        return [w.slot for w in self.workers.values() if w.batch is not None and w.look_at <= now]

    # -- workers come and go ----------------------------------------------------------------------------

    def on_tick(self, now: float) -> Actions:
        """Start what is missing, hand out what is queued."""
        return self._fill(now) + self._dispatch(now)

    def on_spawned(self, slot: int, pid: int) -> None:
        self.workers[slot].pid = pid

    def on_up(self, slot: int, now: float) -> Actions:
        """A worker's init_handler has returned."""
        actions: Actions = [*self.starts.on_up()]
        if self.renewal.is_tried_by(slot):
            actions += self._renew(now)
        return actions + self._settle(self.workers[slot], now)

    def on_start_failed(self, slot: int, text: str, now: float) -> Actions:
        """A worker could not be started, or ended before it was up."""
        generation = self.workers[slot].generation
        del self.workers[slot]
        if self.renewal.is_tried_by(slot):
            self.renewal.reject()
            return [Tried(generation, text), *self._fill(now)]
        return [*self.starts.on_failed(text, now), *self._fill(now)]

    def on_misbehaved(self, slot: int, why: str) -> Actions:
        """A worker wrote what cannot be true. It gets nothing more, and is ended."""
        worker = self.workers[slot]
        if worker.condemned:
            return []
        worker.condemned, worker.why = why, "misbehaved"
        worker.look_at = NEVER
        if slot in self._idle:
            self._idle.remove(slot)
        return [Kill(slot), Tell(_WARNING, f"worker ended: pid={worker.pid} reason={why!r}")]

    def on_exit(self, slot: int, how: Exit, snapshot: Snapshot | None, now: float) -> Actions:
        """A worker is gone, and everything it left has been taken from it. `snapshot`: None if nobody knows what."""
        worker = self.workers.pop(slot)
        if slot in self._idle:
            self._idle.remove(slot)
        orderly = worker.state is State.LEAVING
        actions: Actions = []
        if worker.batch is not None:
            actions += self._wind_up(worker, worker.batch, how, snapshot, now)
        if not orderly:
            self._count_restart(worker.why or "died")
            if worker.batch is None and not worker.jobs_done:
                self.starts.on_fresh_death(now)
        return actions + self.on_tick(now)

    def _wind_up(self, worker: WorkerRecord, batch: Batch, how: Exit, snapshot: Snapshot | None, now: float) -> Actions:
        """Decide on the jobs a dead worker had: one may have been running, the rest never started.

        When its recorder tells nothing, each of them may have been running.
        """
        claimed = worker.limit if snapshot is None else snapshot.claimed
        if claimed < worker.limit:
            self.queue.put_back(batch.part(claimed, worker.limit))
        started = now if snapshot is None else snapshot.started
        actions = self._cancel_queued(worker.cancelled, now) if worker.condemned else []
        for position in reversed(worker.lost(claimed)):
            actions += self._lose(worker, batch, position, how, started, now)
        return actions[::-1]

    def _lose(
        self, worker: WorkerRecord, batch: Batch, position: int, how: Exit, started: float, now: float
    ) -> Actions:
        """A job died with its worker: it was meant to stop, it is tried again, or it has crashed."""
        job_id, job_options = batch.first_id + position, batch.job_options
        text = f"{WORKER_DIED} ({how.text}"
        crash = Finish(job_id, worker.pid, job_options.attempt, Outcome.CRASH, text, started, now, how.code)
        reason = Terminated.CANCEL if job_id in worker.cancelled else None
        if reason is None and worker.expired == position:
            reason = worker.reason
        if reason is not None:
            outcome, text = reason.value
            if reason is Terminated.MEMORY:
                text = f"BossWorkerAsync: {describe_excess(worker.excess, self._max_memory)}"
            return [crash._replace(outcome=outcome, text=text, code=None)]
        if job_options.attempt <= job_options.retries:
            again = job_options._replace(attempt=job_options.attempt + 1)
            self.queue.put_back(batch.part(position, position + 1).with_options(again))
            return []
        return [crash]

    def _settle(self, worker: WorkerRecord, now: float) -> Actions:
        """A worker has nothing to do: it leaves, or waits for work."""
        if len(self.workers) > self.target and self._surplus() > 0:
            worker.dismissed, worker.why = True, "resized"
        spent = self._max_jobs and worker.jobs_done >= self._max_jobs
        worker.state = State.IDLE
        if worker.dismissed:
            return self._leave(worker)
        if spent or self._makes_place(worker):
            return self._leave(worker) + self._replace(worker, "max_jobs_per_worker" if spent else "reloaded", now)
        self._idle.append(worker.slot)
        return self._dispatch(now)

    def _makes_place(self, worker: WorkerRecord) -> bool:
        """Whether an idle worker has to leave for one with other handlers. One at a time does so for a trial."""
        return worker.generation < self.renewal.current or (self.renewal.needs_place and not self._vacant())

    def _surplus(self) -> int:
        """How many workers there are beyond those that are wanted."""
        return sum(not w.dismissed for w in self.workers.values()) - self.target

    def _leave(self, worker: WorkerRecord) -> Actions:
        worker.state = State.LEAVING
        worker.dismissed = True
        return [Leave(worker.slot)]

    def _replace(self, worker: WorkerRecord, why: str, now: float) -> Actions:
        """Start a successor at once: an exit_handler may take its time."""
        worker.why = why
        self._count_restart(why)
        return self.on_tick(now)

    def _count_restart(self, why: str, workers: int = 1) -> None:
        self.restarts += workers
        if workers:
            self.restart_reasons[why] += workers

    def _vacant(self) -> int:
        """How many workers are missing and may be started."""
        if self.closing and not self.queue.jobs:
            return 0
        return max(0, -self._surplus())

    def _fill(self, now: float) -> Actions:
        if not self.starts.allowed(now):
            return []
        actions: Actions = []
        free = (slot for slot in range(MAX_WORKERS) if slot not in self.workers)
        staying = {worker.index for worker in self.workers.values() if not worker.dismissed}
        indexes = filterfalse(staying.__contains__, count())
        for slot, index in zip(list(islice(free, self._vacant())), indexes):
            self.workers[slot] = WorkerRecord(slot, index, self.renewal.for_next(slot))
            actions.append(Spawn(slot))
        return actions

    # -- jobs -------------------------------------------------------------------------------------------

    def on_submit(self, batch: Batch, now: float) -> Actions:
        if self.stopping:
            return []
        self.queue.add(batch)
        return self._dispatch(now)

    def _dispatch(self, now: float) -> Actions:
        actions: Actions = []
        while self._idle and self.queue.jobs and not self.paused:
            worker = self.workers[self._idle.pop()]
            worker.batch = batch = self.queue.cut(self._batch_size(worker))
            worker.state, worker.given_at = State.BUSY, now
            worker.limit, worker.taken, worker.expired, worker.result_bytes = batch.count, 0, -1, 0
            worker.sending_since = 0.0
            for positions in (worker.spilled, worker.awaited, worker.cancelled):
                positions.clear()
            worker.look_at = min(self._deadlines.next_look(worker, now, now), now + OVERDUE_SECONDS)
            actions.append(Assign(worker.slot, batch, self._lengths.is_soon(batch.count)))
        if self.closing and not self.queue.jobs and not self.busy():
            while self._idle:
                actions += self._leave(self.workers[self._idle.pop()])
        return actions

    def _batch_size(self, worker: WorkerRecord) -> int:
        """As many jobs as are worth a batch, but no more than a fair share of the queue."""
        share = -(-self.queue.jobs // (2 * max(1, len(self.workers))))
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
        if leaves:
            worker.state = State.LEAVING
            worker.dismissed = True
            return self._replace(worker, "outgrown", now)
        return self._settle(worker, now)

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
        if unclaimed and (slow or (self._idle and not self.queue.jobs)):
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
        actions = self._deadlines.expire(worker, worker.batch, position, Terminated.MEMORY, now, excess)
        worker.look_at = self._deadlines.next_look(worker, now, now)
        return actions

    def on_taken_back(self, slot: int, snapshot: Snapshot, now: float) -> Actions:
        """The jobs behind the claimed ones are the boss's again."""
        self.reclaim(slot, snapshot, now)
        return self._dispatch(now)

    def reclaim(self, slot: int, snapshot: Snapshot, now: float) -> None:
        """Queue again what a worker was given but can no longer claim."""
        worker = self.workers[slot]
        batch = worker.batch
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
        actions = self._cancel_queued(ids, now)
        wanted = set(ids)
        count = len(actions) + self._cancel_condemned(wanted)
        for slot, snapshot in looks.items():
            worker = self.workers[slot]
            batch, position = worker.batch, snapshot.claimed - 1
            if batch is None or position < snapshot.published or position in worker.spilled:
                continue
            job_id = batch.first_id + position
            if job_id in wanted and job_id not in worker.cancelled:
                count += 1
                worker.cancelled.add(job_id)
                if worker.expired != position:
                    actions += self._deadlines.expire(worker, batch, position, Terminated.CANCEL, now)
                    worker.look_at = self._deadlines.next_look(worker, snapshot.started, now)
        return count, actions + self._dispatch(now)

    def on_take_back(self, ids: list[int], now: float) -> tuple[int, Actions]:
        """Cancel those jobs that are queued, and no others; how many these are."""
        actions = self._cancel_queued(ids, now)
        return len(actions), actions + self._dispatch(now)

    def _cancel_queued(self, ids: Iterable[int], now: float) -> Actions:
        """Each of these jobs that is queued ends here."""
        removed = self.queue.remove(ids)
        return [Finish(job_id, 0, attempt - 1, Outcome.CANCELLED, CANCELLED, now, now) for job_id, attempt in removed]

    def _cancel_condemned(self, wanted: set[int]) -> int:
        """What a worker has that is being ended anyway is cancelled as it exits; how many jobs that will be."""
        count = 0
        for worker in self.workers.values():
            if worker.condemned and worker.batch is not None:
                left = {worker.batch.first_id + position for position in worker.lost(worker.limit)}
                count += len(left & wanted - worker.cancelled)
                worker.cancelled |= left & wanted
        return count

    def on_resize(self, target: int, now: float) -> Actions:
        """Another number of workers. Surplus workers leave when they are idle, those with high numbers first."""
        self.target = target
        self.starts.begin_anew()
        surplus = self._surplus()
        actions: Actions = []
        actions += self._leave_idle(sorted(self._idle, key=self._index, reverse=True)[: max(0, surplus)], "resized")
        surplus -= len(actions)
        busy = [w for w in self.workers.values() if w.batch is not None and not w.dismissed]
        busy.sort(key=lambda worker: worker.index, reverse=True)
        for worker in busy[: max(0, surplus)]:
            worker.dismissed, worker.why = True, "resized"
            actions.append(TakeBack(worker.slot))
        return actions + self.on_tick(now)

    def on_reload(self, generation: int, now: float) -> Actions:
        """Other handlers for all workers, once one worker has come up with them."""
        self.renewal.begin(generation)
        self.starts.begin_anew()
        actions = self.on_tick(now)  # if one was missing, it is the one that tries
        if self._idle and self.renewal.needs_place and not self._vacant():
            slot = min(self._idle, key=self._index)
            worker = self.workers[slot]
            actions += self._leave_idle([slot], "reloaded") + self._replace(worker, "reloaded", now)
        return actions

    def _renew(self, now: float) -> Actions:
        """New handlers work: idle workers with others make place now, and busy ones after the job that they are in."""
        old = self.renewal.current
        self.renewal.accept()
        idle = [slot for slot in self._idle if self._makes_place(self.workers[slot])]
        busy = [worker.slot for worker in self.busy() if self._makes_place(worker) and not worker.condemned]
        self._count_restart("reloaded", len(idle))
        return [Tried(old), *self._leave_idle(idle, "reloaded"), *map(TakeBack, busy), *self.on_tick(now)]

    def _leave_idle(self, slots: list[int], why: str) -> Actions:
        actions: Actions = []
        for slot in slots:
            self._idle.remove(slot)
            self.workers[slot].why = why
            actions += self._leave(self.workers[slot])
        return actions

    def _index(self, slot: int) -> int:
        return self.workers[slot].index

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

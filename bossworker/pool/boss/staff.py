"""Who works: which workers there are and ought to be, which are idle, which leave, and which come in their place.

A part of the ledger, which decides on their jobs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from itertools import count, filterfalse, islice

from bossworker.pool.boss.actions import Actions, Kill, Leave, Spawn, TakeBack, Tell, Tried
from bossworker.pool.boss.renewal import Renewal
from bossworker.pool.boss.starts import Starts
from bossworker.pool.boss.workers import NEVER, State, WorkerRecord
from bossworker.pool.options import MAX_WORKERS
from bossworker.pool.wire.messages import WARNING


class Staff:
    """See the module. Times are monotonic seconds.

    Args:
        target: How many workers there ought to be.
        max_jobs: A worker is replaced after this many; 0: never.
        is_needed: Whether any worker is needed at all, should none be left.
    """

    def __init__(self, target: int, max_jobs: int, is_needed: Callable[[], bool]) -> None:
        self.workers: dict[int, WorkerRecord] = {}
        self.idle: list[int] = []  # slots; the last one became idle last, its caches are warm
        self.target = target
        self.restarts = 0
        self.restart_reasons: Counter[str] = Counter()  # in a word each
        self.starts = Starts()
        self.renewal = Renewal()
        self._max_jobs = max_jobs
        self._is_needed = is_needed

    @property
    def complete(self) -> bool:
        """Whether every worker that was asked for is up."""
        states = [worker.state for worker in self.workers.values()]
        return len(states) >= self.target and State.STARTING not in states

    @property
    def vacant(self) -> int:
        """How many workers are missing and may be started."""
        return max(0, -self._surplus()) if self._is_needed() else 0

    def _surplus(self) -> int:
        """How many workers there are beyond those that are wanted."""
        return sum(not w.dismissed for w in self.workers.values()) - self.target

    def busy(self) -> list[WorkerRecord]:
        return [worker for worker in self.workers.values() if worker.batch is not None]

    # -- they come and go -------------------------------------------------------------------------------

    def start_missing(self, now: float) -> Actions:
        """Start those who are missing, as far as that may be tried now."""
        if not self.starts.allowed(now):
            return []
        actions: Actions = []
        free = (slot for slot in range(MAX_WORKERS) if slot not in self.workers)
        staying = {worker.index for worker in self.workers.values() if not worker.dismissed}
        indexes = filterfalse(staying.__contains__, count())
        for slot, index in zip(list(islice(free, self.vacant)), indexes):
            self.workers[slot] = WorkerRecord(slot, index, self.renewal.for_next(slot))
            actions.append(Spawn(slot))
        return actions

    def on_up(self, slot: int, now: float) -> Actions:
        """A worker's init_handler has returned."""
        actions: Actions = [*self.starts.on_up()]
        if self.renewal.is_tried_by(slot):
            actions += self._renew(now)
        return actions + self.settle(self.workers[slot], now)

    def on_start_failed(self, slot: int, text: str, now: float) -> Actions:
        """A worker could not be started, or ended before it was up."""
        generation = self.workers.pop(slot).generation
        if self.renewal.is_tried_by(slot):
            self.renewal.reject()
            return [Tried(generation, text), *self.start_missing(now)]
        return [*self.starts.on_failed(text, now), *self.start_missing(now)]

    def settle(self, worker: WorkerRecord, now: float) -> Actions:
        """A worker has nothing to do: it leaves, or is idle."""
        if len(self.workers) > self.target and self._surplus() > 0:
            worker.dismissed, worker.why = True, "resized"
        spent = self._max_jobs and worker.jobs_done >= self._max_jobs
        worker.state = State.IDLE
        if worker.dismissed:
            return [self.send_away(worker)]
        if spent or self._makes_place(worker):
            why = "max_jobs_per_worker" if spent else "reloaded"
            return [self.send_away(worker), *self.replace(worker, why, now)]
        self.idle.append(worker.slot)
        return []

    def send_away(self, worker: WorkerRecord) -> Leave:
        """It leaves in order."""
        worker.state = State.LEAVING
        worker.dismissed = True
        return Leave(worker.slot)

    def replace(self, worker: WorkerRecord, why: str, now: float) -> Actions:
        """It leaves. Start a successor at once: an exit_handler may take its time."""
        worker.why = why
        self._count_restart(why)
        return self.start_missing(now)

    def on_misbehaved(self, slot: int, why: str) -> Actions:
        """A worker wrote what cannot be true. It gets nothing more, and is ended."""
        worker = self.workers[slot]
        if worker.condemned:
            return []
        worker.condemned, worker.why = why, "misbehaved"
        worker.look_at = NEVER
        if slot in self.idle:
            self.idle.remove(slot)
        return [Kill(slot), Tell(WARNING, f"worker ended: pid={worker.pid} reason={why!r}")]

    def on_exit(self, slot: int, now: float) -> WorkerRecord:
        """A worker is gone: what is known of it."""
        worker = self.workers.pop(slot)
        if slot in self.idle:
            self.idle.remove(slot)
        if worker.state is not State.LEAVING:
            self._count_restart(worker.why or "died")
            if worker.batch is None and not worker.jobs_done:
                self.starts.on_fresh_death(now)
        return worker

    def _count_restart(self, why: str) -> None:
        self.restarts += 1
        self.restart_reasons[why] += 1

    # -- more or fewer of them, or others ----------------------------------------------------------------

    def resize(self, target: int, now: float) -> Actions:
        """Another number of workers. Surplus workers leave when they are idle, those with high numbers first."""
        self.target = target
        self.starts.begin_anew()
        surplus = max(0, self._surplus())
        actions = self._leave_idle(sorted(self.idle, key=self._index, reverse=True)[:surplus], "resized")
        surplus -= len(actions)
        busy = [worker for worker in self.busy() if not worker.dismissed]
        busy.sort(key=lambda worker: worker.index, reverse=True)
        for worker in busy[:surplus]:
            worker.dismissed, worker.why = True, "resized"
            actions.append(TakeBack(worker.slot))
        return actions + self.start_missing(now)

    def reload(self, generation: int, now: float) -> Actions:
        """Other handlers for all workers, once one worker has come up with them."""
        self.renewal.begin(generation)
        self.starts.begin_anew()
        actions = self.start_missing(now)  # if one was missing, it is the one that tries
        if self.idle and self.renewal.needs_place and not self.vacant:
            slot = min(self.idle, key=self._index)
            actions += self._leave_idle([slot], "reloaded") + self.replace(self.workers[slot], "reloaded", now)
        return actions

    def _renew(self, now: float) -> Actions:
        """New handlers work: idle workers with others make place now, and busy ones after the job that they are in."""
        old = self.renewal.current
        self.renewal.accept()
        idle = [slot for slot in self.idle if self._makes_place(self.workers[slot])]
        busy = [worker.slot for worker in self.busy() if self._makes_place(worker) and not worker.condemned]
        for _ in idle:
            self._count_restart("reloaded")
        return [Tried(old), *self._leave_idle(idle, "reloaded"), *map(TakeBack, busy), *self.start_missing(now)]

    def _makes_place(self, worker: WorkerRecord) -> bool:
        """Whether an idle worker has to leave for one with other handlers. One at a time does so for a trial."""
        return worker.generation < self.renewal.current or (self.renewal.needs_place and not self.vacant)

    def _leave_idle(self, slots: list[int], why: str) -> Actions:
        actions: Actions = []
        for slot in slots:
            self.idle.remove(slot)
            self.workers[slot].why = why
            actions.append(self.send_away(self.workers[slot]))
        return actions

    def _index(self, slot: int) -> int:
        return self.workers[slot].index

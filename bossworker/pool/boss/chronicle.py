"""What becomes of the workers, told where it is looked for: as events, and to the program's logger, line by line.

INFO: workers come and leave, the pool is resized. WARNING: a worker dies or is killed, a job's time is up. Nothing is
told of a job that ends by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from bossworker.pool.boss.event_ring import EventRing
from bossworker.pool.boss.workers import Exit, State, Terminated, WorkerRecord
from bossworker.pool.wire.messages import INFO, WARNING
from bossworker.watch.event_records import DOWN, UP


class Chronicle:
    """See the module. `tell` is given a level and a line."""

    def __init__(self, ring: EventRing, tell: Callable[[int, str], None]) -> None:
        self._ring = ring
        self._tell = tell
        self._stopped: dict[int, int] = {}  # worker's pid -> the job that it was told to stop

    def worker_up(self, worker: WorkerRecord, now: float) -> None:
        """A worker's init_handler is through."""
        self._ring.add(UP, 1, worker.pid, now)
        self._say(INFO, "worker up", worker)

    def worker_down(self, worker: WorkerRecord, how: Exit, now: float, job_id: int | None = None) -> None:
        """A worker that was up has ended; `job_id`: in this job."""
        orderly = worker.state is State.LEAVING and not how.code
        self._stopped.pop(worker.pid, None)
        if orderly:
            reason = worker.why or "closed"
            self._say(INFO, "worker left", worker, jobs=worker.jobs_done, reason=repr(reason))
        else:
            reason = how.reason if not worker.why or worker.condemned else f"{how.reason} ({worker.why})"
            told = worker.kill_told or worker.condemned
            facts: dict[str, object] = {"job": job_id} if job_id is not None else {}
            facts |= {"jobs": worker.jobs_done, "reason": repr(reason)}
            self._say(INFO if told else WARNING, "worker died", worker, **facts)
        self._ring.add(DOWN, 1, worker.pid, reason, orderly, now)
        self._ring.forget_worker(worker.pid)

    def job_stopped(self, worker: WorkerRecord, job_id: int) -> None:
        """A job's time is up, or it outgrew what it may have. (A cancelled one is no news to whoever cancelled it.)"""
        reason = worker.reason
        if reason is None or self._stopped.get(worker.pid) == job_id:
            return
        self._stopped[worker.pid] = job_id
        if reason is Terminated.TIMEOUT and worker.batch is not None:
            limit = f"{worker.batch.job_options.timeout:g}s"
            self._say(WARNING, "job stopped", worker, job=job_id, reason="timeout", limit=limit)
        elif reason is Terminated.MEMORY:
            self._say(WARNING, "job stopped", worker, job=job_id, reason="memory", excess=worker.excess)

    def worker_killed(self, worker: WorkerRecord) -> None:
        """A worker is being killed that did not stop its job, or did not begin one."""
        if not worker.condemned and not worker.kill_told:
            worker.kill_told = True
            self._say(WARNING, "worker killed", worker, reason=worker.why)

    def _say(self, level: int, what: str, worker: WorkerRecord, **facts: Any) -> None:
        told = "".join(f" {name}={value}" for name, value in facts.items())
        self._tell(level, f"{what}: pid={worker.pid} index={worker.index}{told}")

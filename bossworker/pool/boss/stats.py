"""What a pool is doing at an instant: counted by the boss, told by the handle."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from bossworker.display import short_record, table
from bossworker.failure import kind_of
from bossworker.pool.boss.delivery import Delivery
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.recent import recent_figures
from bossworker.pool.boss.workers import WorkerRecord
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.progress import Progress, read_progress
from bossworker.pool.wire.recorder import Recorder
from bossworker.system import proc, processes

WorkerState = Literal["starting", "idle", "busy", "leaving"]


@dataclass(frozen=True, slots=True, repr=False)
class WorkerStats:
    """One worker, at one instant."""

    pid: int
    state: WorkerState
    """``starting``, ``idle``, ``busy`` or ``leaving``."""
    job_id: int | None
    """The job that runs now."""
    seconds: float
    """How long that job has been running."""
    jobs_done: int
    rss: int
    """Resident memory in bytes; 0 where the platform does not tell."""
    cpu_seconds: float = 0.0
    """Processor time that it has used; 0 where the platform does not tell. What it has started is not counted."""
    index: int = 0
    """Its number, as ``current_job().worker_index``."""
    progress: Progress | None = None
    """How far the job that runs is, if its handler says so: ``done``, ``total``, ``text``."""
    node: str = ""
    """Where it is, in a pool on an engine."""

    __repr__ = short_record


@dataclass(frozen=True, slots=True)
class NodeStats:
    """A worker of an engine, with a part of the pool."""

    name: str
    workers: int
    queued: int
    """Jobs that it has got and not begun."""
    running: int
    done: int
    failed: int
    batches: int
    """That it has brought to their end."""


@dataclass(frozen=True, slots=True, repr=False)
class Stats:
    """A pool, at one instant. ``done`` ended well, ``failed`` with an ERROR."""

    queued: int
    running: int
    done: int
    failed: int
    restarts: int
    """Workers that have been replaced."""
    failed_starts: int
    """Workers that could not be started since one came up; the next try is due in some two seconds at most."""
    start_error: str | None
    """Why the last of them could not, with the worker's traceback."""
    workers: tuple[WorkerStats, ...]
    restart_reasons: Mapping[str, int] = field(default_factory=dict)
    """How many of the restarts there were for each reason: ``died``, ``timeout``, ``cancel``, ``memory`` (killed when
    its job did not stop), ``misbehaved``, ``stuck``, ``max_jobs_per_worker``, ``outgrown`` (``max_worker_memory``),
    ``reloaded``."""
    rate: float = 0.0
    """Jobs that ended, a second, within the last minute; of a pool that does many thousands a second, within less."""
    duration_p50: float | None = None
    """Seconds from a job's start to its end, in the median of those jobs; None: there were none."""
    duration_p95: float | None = None
    """The same at 95 %."""
    latency_p50: float | None = None
    """Seconds from when a job was added to its end."""
    latency_p95: float | None = None
    last_failed_start: str | None = None
    """Why a worker could not be started the last time that one could not, however many have come up since."""
    paused: bool = False
    """Whether ``pause`` was called: no new job starts."""
    failed_by_kind: Mapping[str, int] = field(default_factory=dict)
    """How many have failed for each ``error_kind``."""
    nodes: tuple[NodeStats, ...] = ()
    """Where the pool is, with ``engine=``."""

    def __repr__(self) -> str:
        """On one line, however many workers there are; each of them has a repr of its own."""
        jobs = f"{self.queued} queued, {self.running} running, {self.done} done, {self.failed} failed"
        busy = sum(worker.state == "busy" for worker in self.workers)
        trouble = f", {self.failed_starts} failed starts" if self.failed_starts else ""
        paused = "; paused" if self.paused else ""
        return f"<Stats: {jobs}{paused}; {len(self.workers)} workers, {busy} busy, {self.restarts} restarts{trouble}>"

    def _repr_html_(self) -> str:
        columns = [one.name for one in fields(WorkerStats)]
        rows = [columns, *[[getattr(worker, column) for column in columns] for worker in self.workers]]
        return table(repr(self)[1:-1], rows, self.start_error or "")


def take_stock(
    ledger: Ledger,
    recorders: Mapping[int, Recorder],
    delivery: Delivery,
    now: float,
    recent: bool = True,
    usage: bool = True,
) -> dict[str, object]:
    """The boss's count, as data that can travel. `recent`, `usage`: with what takes long, so that not every look does.

    `recent` is how fast the pool has been of late, `usage` what memory and processor time each worker takes.
    """
    workers = [_describe(worker, recorders[worker.slot], now, usage) for worker in ledger.workers.values()]
    running = sum(worker["job_id"] is not None for worker in workers)
    assigned = sum(worker.limit - worker.taken for worker in ledger.busy())
    return {
        "queued": ledger.queue.jobs + assigned - running,
        "running": running,
        "done": delivery.done,
        "failed": delivery.failed,
        "restarts": ledger.staff.restarts,
        "restart_reasons": ledger.staff.restart_reasons,
        "last_failed_start": ledger.staff.starts.last_error,
        **(recent_figures(delivery.ring, now) if recent else {}),
        "failed_starts": ledger.staff.starts.failed,
        "start_error": ledger.staff.starts.error,
        "workers": workers,
        "paused": ledger.paused,
        "failed_by_kind": {kind_of(kind): jobs for kind, jobs in delivery.failures.by_kind.items()},
    }


def _describe(worker: WorkerRecord, recorder: Recorder, now: float, usage: bool) -> dict[str, object]:
    job_id, seconds, progress = None, 0.0, None
    if worker.batch is not None:
        with suppress(ProtocolError):  # then the worker is about to be ended
            snapshot = recorder.snapshot()
            if snapshot.running:
                job_id = worker.batch.first_id + snapshot.claimed - 1
                seconds = max(0.0, now - snapshot.started)  # it may have started since `now`
                progress = read_progress(recorder.progress, job_id)
    return {
        "pid": worker.pid,
        "state": worker.state.value,
        "job_id": job_id,
        "seconds": seconds,
        "jobs_done": worker.jobs_done,
        "rss": processes.resident_bytes(worker.pid) if usage else 0,
        "cpu_seconds": proc.cpu_seconds(worker.pid) if usage else 0.0,
        "index": worker.index,
        "progress": progress,
    }


def stats_of(count: Mapping[str, Any]) -> Stats:
    """What came of the boss's count, for the program that asked."""
    workers = tuple(map(_worker_of, count["workers"]))
    nodes = tuple(NodeStats(**node) for node in count.get("nodes", ()))
    return Stats(**{**count, "workers": workers, "nodes": nodes})


def _worker_of(count: Mapping[str, Any]) -> WorkerStats:
    said = count["progress"]
    return WorkerStats(**{**count, "progress": None if said is None else Progress(*said)})

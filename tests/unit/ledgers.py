"""What tests of the ledger and its parts begin with: no process anywhere."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Any, TypeVar

from bossworker.pool.boss.actions import (
    Action,
    Actions,
    Assign,
    Spawn,
)
from bossworker.pool.boss.ledger import Ledger
from bossworker.pool.boss.workers import Exit, State
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.recorder import Snapshot

GRACE = 1.0
A = TypeVar("A")

NOTHING_YET = Snapshot(claimed=0, published=0, started=0.0, running=False)
KILLED = Exit("signal 9, SIGKILL)", -9)
LEFT = Exit("exit code 0)", 0)


def run_of(
    first_id: int, count: int, *, timeout: float = 0.0, priority: int = 0, retries: int = 0, attempt: int = 1
) -> Batch:
    """Jobs of a byte each, each a block of its own."""
    job_options = JobOptions(priority, timeout, retries, attempt)
    return Batch(first_id, count, 0, job_options, array("I", [1] * count), array("Q", [1] * count), b"j" * count)


def running(claimed: int, started: float = 0.0) -> Snapshot:
    """The worker is in its `claimed`th job."""
    return Snapshot(claimed, claimed - 1, started, True)


def of(kind: type[A], actions: Iterable[Any]) -> list[A]:
    return [action for action in actions if isinstance(action, kind)]


def exactly(actions: Actions, *expected: Action) -> bool:
    """Whether these are the actions: of the same kinds too, which a comparison of the tuples alone passes over."""
    return actions == list(expected) and list(map(type, actions)) == list(map(type, expected))


def assigned(actions: Actions) -> list[tuple[int, list[int]]]:
    """Which slot got which jobs."""
    return [(action.slot, list(action.batch.ids)) for action in of(Assign, actions)]


def queued(ledger: Ledger) -> list[tuple[int, int]]:
    """(id, attempt) of what waits, most urgent first."""
    found = [(job_id, c.batch.job_options.attempt) for c in ledger.queue for job_id in c.rest().ids]
    assert len(found) == ledger.queue.jobs
    return found


def queued_ids(ledger: Ledger) -> list[int]:
    return [job_id for job_id, _ in queued(ledger)]


def new_ledger(workers: int, **settings: Any) -> Ledger:
    return Ledger(workers, **{"kill_grace": GRACE, "max_jobs_per_worker": 0, **settings})


def up(ledger: Ledger, *slots: int, now: float = 0.0) -> Actions:
    """These slots' workers come up, with pid 100 + slot."""
    actions: Actions = []
    for slot in slots:
        ledger.on_spawned(slot, 100 + slot)
        actions += ledger.on_up(slot, now)
    return actions


def started(workers: int, **settings: Any) -> Ledger:
    """A ledger whose workers are all up and idle."""
    ledger = new_ledger(workers, **settings)
    spawns = ledger.on_tick(0.0)
    assert exactly(spawns, *map(Spawn, range(workers)))
    assert up(ledger, *range(workers)) == []
    assert ledger.staff.complete
    return ledger


def complete(
    ledger: Ledger, slot: int, now: float = 0.0, seconds: float | None = None, leaves: bool = False
) -> Actions:
    """The worker is through with what is left to it of its batch."""
    worker = ledger.workers[slot]
    ledger.on_taken(slot, worker.limit)
    return ledger.on_done(slot, worker.limit * 1.0 if seconds is None else seconds, leaves, now)


def with_batch(jobs: int, *, extra: int = 0, workers: int = 1, first_id: int = 1, **job_options: Any) -> Ledger:
    """A ledger in which slot 0 has a batch of `jobs` short jobs, the others are idle, and `extra` are queued."""
    ledger = started(workers, max_batch=jobs)
    for slot in range(1, workers):  # keep them out of the way
        ledger.on_submit(run_of(10_000 + slot, 1), 0.0)
        assert ledger.workers[workers - slot].state is State.BUSY
    ledger.on_submit(run_of(9_999, 1), 0.0)
    complete(ledger, 0, seconds=1e-6)
    total = max(jobs + extra, 2 * workers * jobs)
    (action,) = of(Assign, ledger.on_submit(run_of(first_id, total, **job_options), 0.0))
    assert action.batch.ids == range(first_id, first_id + jobs)
    surplus = range(first_id + jobs + extra, first_id + total)
    ledger.queue.remove(surplus)
    assert queued_ids(ledger) == list(range(first_id + jobs, first_id + jobs + extra))
    for slot in range(1, workers):
        worker = ledger.workers[slot]
        worker.batch, worker.state = None, State.IDLE
        ledger.staff.idle.append(slot)
    return ledger


def timed(timeout: float = 2.0, **job_options: Any) -> Ledger:
    ledger = started(1)
    ledger.on_submit(run_of(1, 1, timeout=timeout, **job_options), 0.0)
    return ledger


def fail(ledger: Ledger, slot: int = 0, times: int = 20) -> Actions:
    """Let a worker's start fail again and again; the last actions."""
    for now in range(0, 100 * times, 100):
        ledger.on_start_failed(slot, "no luck", now)
        assert exactly(ledger.on_tick(now + 99.0), Spawn(slot))
    return ledger.on_start_failed(slot, "no luck", 100.0 * times)

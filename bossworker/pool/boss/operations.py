"""What operators ask for: those who watch a pool and steer it, be it this program or one that came through a door.

A request and its answer are JSON objects. One that makes no sense is refused, with the reason; it harms nobody. What
changes something is told to the program's log, with whoever asked for it.
"""

from __future__ import annotations

import json
import sys
import time
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count, islice
from typing import Any

from bossworker.failure import kind_of
from bossworker.pool.boss.failed_jobs import KeptFailure
from bossworker.pool.boss.pool_access import PoolAccess
from bossworker.pool.boss.replying import Reply
from bossworker.pool.boss.stacks import jobs_meant
from bossworker.pool.boss.stats import take_stock
from bossworker.pool.options import check_handler_name, check_workers
from bossworker.pool.wire.batch import Batch, JobOptions
from bossworker.pool.wire.messages import FIRST_RERUN_ID, INFO, ProtocolError
from bossworker.system import identity
from bossworker.watch.event_records import ENDED, QUEUED

MOST_ENDED = 4000  # jobs that one answer tells of, the newest: to tell of one takes a tenth of a microsecond
FEW_ENDED = 1000  # where more have ended since the last look than can be told of: a look costs a quarter then
MOST_RECORDS = 1000
MOST_ERRORS = 1 << 19  # bytes of errors in an answer, about
MOST_STRETCHES = 4000  # of queued jobs
LONGEST_JOB = 1 << 20  # bytes that are shown
MOST_IDS = 200_000  # of a request


class Operations:
    """See the module."""

    def __init__(self, pool: PoolAccess) -> None:
        self._pool = pool
        self._ledger = pool.ledger
        self._delivery = pool.delivery
        self._rerun_ids = count(FIRST_RERUN_ID + 1)
        self._answers: dict[object, Callable[[dict[str, Any]], dict[str, object]]] = {
            "now": self._now,
            "stats": self._stats,
            "failed": self._failed,
            "queued": self._queued,
            "jobs": self._jobs,
            "output": self._output,
            "again": self._again,
            "cancel": self._cancel,
            "pause": self._pause,
            "resize": self._resize,
            "reload": self._reload,
        }

    def ask(self, number: int, body: bytes, reply: Reply) -> None:
        """Request `number`. What takes time is answered later."""
        try:
            told = json.loads(body)
            if told["op"] == "stack":
                self._pool.stacks.ask(number, jobs_meant(None if told["id"] is None else int(told["id"])), reply)
                return
            answer = self._answer(told)
        except (ValueError, TypeError) as error:
            answer = {"refused": str(error)}
        except (KeyError, RecursionError) as error:
            answer = {"refused": f"no such request: {error!r}"}
        reply(number, answer)

    def _answer(self, told: dict[str, Any]) -> dict[str, object]:
        answer = self._answers.get(told["op"])
        if answer is None:
            raise ValueError(f"no such operation: {told['op']!r:.50}")
        return answer(told)

    def _note(self, told: dict[str, Any], what: str) -> None:
        self._pool.note(INFO, f"pool steered: {what} by={str(told.get('by', 'a program'))[:200]!r}")

    # -- looks --------------------------------------------------------------------------------------------

    def _now(self, told: dict[str, Any]) -> dict[str, object]:
        """Figures, and what has happened behind the event that was seen last, or the newest of that."""
        now, ring = time.monotonic(), self._delivery.ring
        recorders = self._pool.recorders
        stock = take_stock(self._ledger, recorders, self._delivery, now, recent=False, usage=bool(told["usage"]))
        records = list(self._newest(int(told["seen"])))[::-1]
        return {
            "stats": stock,
            "target": self._ledger.staff.target,
            "records": records,
            "clock": self._pool.watchers.offset(),
            "now": now,
            "next": ring.next,
            "indexes": dict(ring.indexes) if len(ring.indexes) <= MOST_RECORDS else {},
            "last_ids": ring.last_ids,
            "last_failed": self._delivery.failures.last,
            "reload": self._pool.reloads.describe(),
            "journal": self._pool.options.journal,
        }

    def _stats(self, told: dict[str, Any]) -> dict[str, object]:
        return {"stats": self._pool.stats()}

    def _newest(self, seen: int) -> Iterator[tuple[Any, ...]]:
        """The newest records, the last one first."""
        told, ring = 0, self._delivery.ring
        most = MOST_ENDED if ring.next - seen <= 3 * MOST_ENDED else FEW_ENDED  # a job is told of by three events
        for record in reversed(ring.newest(MOST_RECORDS)):
            if record[1] + record[2] <= seen + 1 or told > most:
                return
            if record[0] == ENDED:
                told += record[4]
                *facts, marks, outcomes = record
                yield (*facts, marks.hex(), outcomes.hex())
            elif record[0] == QUEUED or record[2]:
                yield record

    def _failed(self, told: dict[str, Any]) -> dict[str, object]:
        found: list[dict[str, object]] = []
        size = 0
        for one in self._delivery.failures.after(int(told["seen"])):
            found.append(_describe_failed(one))
            size += one.size + 200
            if size > MOST_ERRORS:
                break
        return {"failed": found, "clock": self._pool.watchers.offset()}

    def _queued(self, told: dict[str, Any]) -> dict[str, object]:
        return {"stretches": list(_joined(self._stretches()))}

    def _stretches(self) -> Iterator[tuple[int, int]]:
        """Ids of queued jobs, first and behind the last, in about the order in which they will run."""
        for worker in self._ledger.busy():
            assert worker.batch is not None
            with suppress(ProtocolError):  # then the worker is about to be ended
                claimed = self._pool.recorders[worker.slot].snapshot().claimed
                yield worker.batch.first_id + claimed, worker.batch.first_id + worker.limit
        for cursor in islice(self._ledger.queue, MOST_STRETCHES):
            yield cursor.ids.start, cursor.ids.stop

    def _jobs(self, told: dict[str, Any]) -> dict[str, object]:
        """What jobs are: runs of ids that follow each other, as blocks that the boss does not look into."""
        runs: list[dict[str, object]] = []
        size, ids = 0, deque(_ids(told))
        while ids and size < LONGEST_JOB:
            run = self._run_from(ids)
            if run is not None:
                runs.append(_describe_run(run))
                size += len(run.payload) + 200
        return {"runs": runs}

    def _run_from(self, ids: deque[int]) -> Batch | None:
        """The first of these ids, and those that follow it and are in the same batch, are taken off."""
        job_id = ids.popleft()
        found = self._find(job_id)
        if found is None:
            return None
        at = job_id - found.first_id
        stop = at + 1
        while found.file is None and stop < found.count and ids and ids[0] == found.first_id + stop:
            ids.popleft()
            stop += 1
        return found.part(at, stop)

    def _find(self, job_id: int) -> Batch | None:
        for worker in self._ledger.busy():
            if worker.batch is not None and job_id in worker.batch.ids:
                return worker.batch
        for cursor in self._ledger.queue:
            if job_id in cursor.ids:
                return cursor.batch
        failed = self._delivery.failures.find(job_id)
        return None if failed is None else failed.batch

    def _output(self, told: dict[str, Any]) -> dict[str, object]:
        """What a job has written last, with ``logs="relay"``; and which process runs it."""
        job_id, tails = int(told["id"]), self._pool.tails
        workers = (worker for worker in self._ledger.busy() if worker.batch is not None and job_id in worker.batch.ids)
        worker = next((worker for worker in workers if tails.running_job(worker) == job_id), None)
        return {
            "logs": self._pool.options.logs,
            "clock": self._pool.watchers.offset(),
            # Elsewhere, to ask for an identity is to start a program, for which we would have to wait.
            "worker": identity.of(worker.pid) if worker is not None and sys.platform == "linux" else None,
            **tails.after(job_id, int(told["since"])),
        }

    # -- orders -------------------------------------------------------------------------------------------

    def _again(self, told: dict[str, Any]) -> dict[str, object]:
        """Run failed jobs once more, as new jobs. Their results are nobody's: whoever added them has had theirs."""
        if self._ledger.closing:
            raise ValueError("the pool is being shut down")
        ids, new = _ids(told), dict[str, str]()
        for job_id in ids:
            failed = self._delivery.failures.find(job_id)
            if failed is not None and failed.batch is not None:
                new[str(job_id)] = str(self._run_again(failed, failed.batch))
        self._note(told, f"op=retry jobs={len(new)} of={len(ids)}")
        return {"new": new}

    def _run_again(self, failed: KeptFailure, batch: Batch) -> int:
        at = failed.job_id - batch.first_id
        options = batch.job_options
        again = batch.part(at, at + 1).with_options(JobOptions(options.priority, options.timeout, options.retries, 1))
        new_id = again.first_id = next(self._rerun_ids)
        self._pool.submit(again)
        return new_id

    def _cancel(self, told: dict[str, Any]) -> dict[str, object]:
        ids = _ids(told)
        number = self._pool.cancel(ids)
        self._note(told, f"op=cancel jobs={number} of={len(ids)}")
        return {"count": number}

    def _pause(self, told: dict[str, Any]) -> dict[str, object]:
        on = bool(told["on"])
        if on and self._ledger.closing:
            raise ValueError("the pool is being shut down: it sees to what is queued")
        self._pool.perform(self._ledger.on_pause() if on else self._ledger.on_resume(time.monotonic()))
        self._note(told, "op=pause" if on else "op=resume")
        return {}

    def _resize(self, told: dict[str, Any]) -> dict[str, object]:
        workers = check_workers("workers", told["workers"])
        self._note(told, f"op=resize workers={workers} before={self._ledger.staff.target}")
        self._pool.perform(self._ledger.on_resize(workers, time.monotonic()))
        return {}

    def _reload(self, told: dict[str, Any]) -> dict[str, object]:
        """Answered at once: how it goes on is told by `_now`."""
        handler = check_handler_name(told["handler"])
        if self._ledger.closing:
            raise ValueError("the pool is being shut down")
        self._pool.perform(self._pool.reloads.add_named(handler))
        self._note(told, f"op=reload handler={handler}")
        return {"number": self._pool.reloads.last}


def _describe_run(run: Batch) -> dict[str, object]:
    large = run.file is not None or len(run.payload) > LONGEST_JOB
    return {
        "first": run.first_id,
        "jobs": run.count,
        "skip": run.skip,
        "options": run.job_options._asdict(),
        "counts": run.counts.tolist(),
        "sizes": run.sizes.tolist(),
        "payload": None if large else b64encode(run.payload).decode(),
    }


def _describe_failed(one: KeptFailure) -> dict[str, object]:
    return {
        "number": one.number,
        "id": one.job_id,
        "pid": one.pid,
        "attempt": one.attempt,
        "started": one.started,
        "finished": one.finished,
        "kind": kind_of(one.outcome),
        "outcome": one.outcome,
        "error": None if one.error is None else b64encode(one.error).decode(),
        "again": one.batch is not None,
    }


def _joined(stretches: Iterator[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """As few as can be."""
    before: tuple[int, int] | None = None
    for start, stop in stretches:
        if before is not None and before[1] == start:
            before = (before[0], stop)
            continue
        if before is not None and before[0] < before[1]:
            yield before
        before = (start, stop)
    if before is not None and before[0] < before[1]:
        yield before


def _ids(told: dict[str, Any]) -> list[int]:
    ids = [int(one) for one in told["ids"]]
    if len(ids) > MOST_IDS or any(not 0 < one < 1 << 63 for one in ids):
        raise ValueError(f"ids must be at most {MOST_IDS}, each from 1 to 2**63 - 1")
    return ids

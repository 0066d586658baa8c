"""Which of a pool's jobs somebody wants to see: by status, kind of error, time and text. No I/O in here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from bossworker.pool.boss.stats import WorkerStats
from bossworker.pool.caller.operating import name_of
from bossworker.pool.wire.messages import CLIENT_BITS
from bossworker.web.job_table import JobTable

QUEUED, RUNNING, DONE, FAILED, DROPPED = STATUSES = ("queued", "running", "done", "failed", "dropped")
MOST_LOOKED_AT = 1_000_000  # jobs that are gone through


@dataclass(frozen=True, slots=True)
class JobQuery:
    """What is wanted; what is empty does not matter."""

    status: str = ""
    kind: str = ""
    since: float = 0.0
    """Unix seconds: ended or, if they have not, added since then."""
    until: float = 0.0
    text: str = ""

    @property
    def looks_inside(self) -> bool:
        """Whether jobs have to be looked at one by one."""
        return bool(self.text or self.since or self.until)


class JobView:
    """The jobs of a pool at an instant: what is in the table, and what is queued and running just now."""

    def __init__(
        self, table: JobTable, queued: Iterable[range], workers: Iterable[WorkerStats], texts: Mapping[int, str]
    ) -> None:
        self.table = table
        self.queued = list(queued)
        self.running = {worker.job_id: worker for worker in workers if worker.job_id is not None}
        self._texts = texts

    def status_of(self, job_id: int) -> str:
        """One of STATUSES."""
        if job_id in self.running:
            return RUNNING
        if any(job_id in stretch for stretch in self.queued):  # there are few of them, mostly
            return QUEUED
        if job_id in self.table.failed:
            return FAILED
        if job_id >> CLIENT_BITS in self.table.gone and self.table.end_of(job_id) is None:
            return DROPPED
        return DONE

    def find(self, query: JobQuery, offset: int, limit: int) -> tuple[int, list[int]]:
        """How many there are, and the ids of some of them, the newest first (of queued ones the next)."""
        if query.looks_inside:
            found = [job_id for job_id in islice(self._candidates(query), MOST_LOOKED_AT) if self._fits(job_id, query)]
            return len(found), found[offset : offset + limit]
        if not query.status and not query.kind:
            return self.table.total, list(sliced(self.table.ids(), offset, limit))
        if query.status == QUEUED:
            return sum(map(len, self.queued)), list(sliced(self.queued, offset, limit))
        if query.status == DONE and not query.kind:
            known = sum(map(len, self.queued)) + len(self.running) + len(self.table.failed)
            total = max(0, self.table.total - known)
            return total, list(islice(self._done(), offset, offset + limit))
        found = list(self._candidates(query))
        return len(found), found[offset : offset + limit]

    def _candidates(self, query: JobQuery) -> Iterator[int]:
        """Those of the status and the kind."""
        if query.kind or query.status == FAILED:
            for job_id, kind in reversed(self.table.failed.items()):
                if not query.kind or kind == query.kind:
                    yield job_id
        elif query.status == QUEUED:
            for stretch in self.queued:
                yield from stretch
        elif query.status == RUNNING:
            yield from sorted(self.running, key=lambda job_id: self.running[job_id].index)
        elif query.status in (DONE, DROPPED):
            yield from (one for one in self._done() if self.status_of(one) == query.status)
        else:
            for ids in self.table.ids():
                yield from ids

    def _done(self) -> Iterator[int]:
        """All that are neither queued nor running and have not failed, the newest first."""
        others = {*self.running, *self.table.failed}
        for ids in self.table.ids():
            low, high = ids[-1], ids[0] + 1
            within = [one for one in self.queued if one.start < high and low < one.stop]
            for job_id in ids:
                if job_id not in others and not any(job_id in one for one in within):
                    yield job_id

    def _fits(self, job_id: int, query: JobQuery) -> bool:
        if query.text and not self._has_text(job_id, query.text.casefold()):
            return False
        if not query.since and not query.until:
            return True
        end = self.table.end_of(job_id)
        at = end.ended if end is not None else self.table.added_at(job_id) or 0.0
        return query.since <= at and (not query.until or at <= query.until)

    def _has_text(self, job_id: int, text: str) -> bool:
        record = self.table.records.get(job_id)
        told = (name_of(job_id), self._texts.get(job_id, ""), "" if record is None else record.error)
        return any(text in one.casefold() for one in told)

    def row(self, job_id: int) -> dict[str, Any]:
        """A job as the list shows it."""
        status, worker = self.status_of(job_id), self.running.get(job_id)
        end = None if status in (QUEUED, RUNNING) else self.table.end_of(job_id)
        record = self.table.records.get(job_id) if status == FAILED else None
        row: dict[str, Any] = {
            "id": str(job_id),
            "name": name_of(job_id),
            "status": status,
            "kind": self.table.failed.get(job_id) if status == FAILED else None,
            "added": self.table.added_at(job_id),
            "text": self._texts.get(job_id),
            "error": None if record is None else record.error,
            "retry": record is not None and record.can_run_again,
        }
        if worker is not None:
            progress = worker.progress
            row |= {"worker": worker.index, "pid": worker.pid, "seconds": worker.seconds}
            row |= {"progress": None if progress is None else list(progress)}
        if end is not None:
            row |= {"worker": end.worker_index, "pid": end.worker_pid, "attempt": end.attempt}
            row |= {"started": end.started, "ended": end.ended, "seconds": end.ended - end.started}
        return row


def sliced(ranges: Iterable[range], offset: int, limit: int) -> Iterator[int]:
    """Positions offset..offset+limit-1 of all of them, without going through what is before."""
    if not limit:
        return
    for ids in ranges:
        if offset >= len(ids):
            offset -= len(ids)
            continue
        part = ids[offset : offset + limit]
        yield from part
        limit -= len(part)
        offset = 0
        if not limit:
            return

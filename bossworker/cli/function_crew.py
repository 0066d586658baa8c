"""A handler in Python (``-f``) is run by a pool."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from bossworker import BossWorker, Result
from bossworker.cli.cell_book import CellBook
from bossworker.cli.crews import CANCELLED, TIMEOUT
from bossworker.cli.outcomes import Ended, Planned
from bossworker.commands.hosting.cells import Cells


class FunctionCrew:
    """A pool, and what is with it."""

    ahead = 256  # a function may take microseconds

    def __init__(
        self,
        handler: Callable[[Any], Mapping[Any, Any] | None],
        slots: int,
        begin: Callable[[], None],
        timeout: float,
        book: CellBook | None = None,
    ) -> None:
        """
        Args:
            begin: Called in each worker, before its first job.
            timeout: Seconds that a job may run; 0: no limit.
            book: Gives cells, in which workers tell what they begin with.
        """
        self._book = book
        self._cells: dict[int, int] = {}  # by place
        if book is not None:
            handler = _TellingHandler(handler, book.cells)
        self._pool = BossWorker(
            handler, init_handler=begin, worker_count=slots, global_timeout=timeout, transport="socketpair"
        )
        self._plans: dict[int, Planned] = {}
        self._overdue: set[int] = set()

    def add(self, plans: Sequence[Planned]) -> None:
        jobs = [plan.job for plan in plans]
        if self._book is not None:
            cells = self._book.give(plans)
            self._cells.update((plan.place, cell) for plan, cell in zip(plans, cells, strict=True))
            jobs = [{"cell": cell, "job": job} for cell, job in zip(cells, jobs, strict=True)]
        self._plans.update(zip(self._pool.add_work(*jobs), plans, strict=True))

    def fileno(self) -> int:
        return self._pool.fileno()

    def receive(self) -> list[tuple[Planned, Ended | None]]:
        found = []
        while self._plans and (result := self._pool.get_result_nb()) is not None:
            found.append(self._ended(result))
        return found

    def cancel(self, places: Collection[int], kind: str = CANCELLED, queued_only: bool = False) -> None:
        ids = [job_id for job_id, plan in self._plans.items() if plan.place in places]
        if kind == TIMEOUT:
            self._overdue.update(ids)
        self._pool.cancel(*ids, queued_only=queued_only)

    def running(self) -> list[tuple[Planned, float]]:
        workers = self._pool.stats().workers
        return [(self._plans[one.job_id], one.seconds) for one in workers if one.job_id in self._plans]

    def close(self, force: bool = False) -> None:
        self._pool.shut_down(force=force)
        if self._book is not None:
            self._book.close()

    def _ended(self, result: Result) -> tuple[Planned, Ended | None]:
        plan = self._plans.pop(result.job_id)
        if self._book is not None:
            self._book.take_back(self._cells.pop(plan.place))
        timed_out = result.job_id in self._overdue and result.error_kind == CANCELLED
        self._overdue.discard(result.job_id)
        if result.error_kind == CANCELLED and not timed_out:
            return plan, None
        kind = TIMEOUT if timed_out else result.error_kind or ""
        return plan, Ended(
            plan=plan,
            ok=not kind,
            exit_code=None,
            signal=None,
            seconds=result.duration,
            started_at=result.started_at,
            stdout=b"",
            stderr=b"",
            jobid="",
            kind=kind,
            reason="timed out" if timed_out else result.error or "",
            answer=result,
        )


class _TellingHandler:
    """The same, for jobs that come with their cells."""

    def __init__(self, handler: Callable[[Any], Mapping[Any, Any] | None], cells: Cells) -> None:
        self._handler = handler
        self._cells = cells

    def __call__(self, job: Mapping[str, Any]) -> Mapping[Any, Any] | None:
        self._cells.starting(job["cell"], time.time())
        self._cells.running(job["cell"], os.getpid())
        return self._handler(job["job"])

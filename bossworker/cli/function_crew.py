"""A handler in Python (``-f``) is run by a pool."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from bossworker import BossWorker, Result
from bossworker.cli.crews import CANCELLED, TIMEOUT
from bossworker.cli.outcomes import Ended, Planned


class FunctionCrew:
    """A pool, and what is with it."""

    ahead = 256  # a function may take microseconds

    def __init__(
        self, handler: Callable[[Any], Mapping[Any, Any] | None], slots: int, begin: Callable[[], None], timeout: float
    ) -> None:
        """
        Args:
            begin: Called in each worker, before its first job.
            timeout: Seconds that a job may run; 0: no limit.
        """
        self._pool = BossWorker(
            handler, init_handler=begin, worker_count=slots, global_timeout=timeout, transport="socketpair"
        )
        self._plans: dict[int, Planned] = {}
        self._overdue: set[int] = set()

    def add(self, plans: Sequence[Planned]) -> None:
        self._plans.update(zip(self._pool.add_work(*(plan.job for plan in plans)), plans, strict=True))

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

    def _ended(self, result: Result) -> tuple[Planned, Ended | None]:
        plan = self._plans.pop(result.job_id)
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

"""Pools of this user's that have a door, as entries beside jobs and tasks: found, described and steered through it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from bossworker.cli.entries import EntryError, GoneError
from bossworker.errors import BossWorkerError, DoorRefused, PoolClosed
from bossworker.pool.boss.stats import Stats
from bossworker.pool.caller.remote_operator import RemoteOperator, operate, pools

ANSWER_SECONDS = 1.0  # for a pool to answer; one that is stopped holds up nobody for longer
LOOK_SECONDS = 0.2  # between looks whether a pool is there still
MOST_IDS = 100_000  # in a request

Told = TypeVar("Told")


class PoolEntry:
    """One pool. What can only be done to a command is an EntryError."""

    kind = "pool"

    def __init__(self, operator: RemoteOperator) -> None:
        self.operator = operator
        self.id = f"p{operator.boss_pid}"
        self.name = operator.name
        self.gone = False

    def told(self, call: Callable[[], Told]) -> Told:
        """What a call tells. EntryError for what a pool refuses, or when it is gone."""
        try:
            return call()
        except PoolClosed:
            self.gone = True
            raise GoneError(f"there is no pool {self.name} any more") from None
        except (BossWorkerError, TimeoutError) as error:
            raise EntryError(f"pool {self.name}: {error}") from error

    def describe(self) -> dict[str, Any]:
        """As of a job; its own figures are under ``pool``. One that is gone has ended well, as far as we know."""
        try:
            stats = None if self.gone else self.told(lambda: self.operator.now().stats)
        except EntryError:
            stats = None
        operator, now = self.operator, time.time()
        return {
            "id": self.id,
            "kind": self.kind,
            "name": self.name,
            "status": "running" if stats else "completed" if self.gone else "unknown",
            "exit_code": None,
            "signal": None,
            "reason": None if stats or self.gone else "it does not answer",
            "paused": bool(stats and stats.paused),
            "command": [operator.program],
            "shell": False,
            "cwd": None,
            "pid": None if self.gone else operator.owner_pid,
            "created": operator.since,
            "started": operator.since,
            "ended": None,
            "elapsed": now - operator.since,
            "user_time": None,
            "system_time": None,
            "max_rss": None,
            "timeout": operator.options["global_timeout"] or None,
            "meta": {},
            "directory": None,
            "pool": self._figures(stats),
        }

    def _figures(self, stats: Stats | None) -> dict[str, Any]:
        told: dict[str, Any] = {"address": self.operator.address, "boss_pid": self.operator.boss_pid}
        if stats is None:
            return told
        figures = ("queued", "running", "done", "failed", "restarts")
        return {**told, "workers": len(stats.workers), **{name: getattr(stats, name) for name in figures}}

    def wait(self, timeout: float | None) -> None:
        """Until the pool has ended."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self.gone:
            try:
                self.told(self.operator.now)
            except EntryError:
                continue
            left = LOOK_SECONDS if until is None else min(LOOK_SECONDS, until - time.monotonic())
            if left <= 0:
                return
            time.sleep(left)

    def signal(self, number: int) -> bool:
        """Whatever the signal: cancel all its jobs. EntryError when there are none."""
        if not self.told(self._cancel_all):
            raise EntryError(f"pool {self.name} has no jobs to cancel")
        return True

    def _cancel_all(self) -> int:
        stretches = self.operator.queued()
        running = [one.job_id for one in self.operator.now(usage=False).stats.workers if one.job_id]
        ids = [*running, *(job_id for stretch in stretches for job_id in stretch)]
        return sum(self.operator.cancel(ids[at : at + MOST_IDS]) for at in range(0, len(ids), MOST_IDS))

    def pause(self, on: bool) -> bool:
        """Start no more jobs, or start them again."""
        self.told(self.operator.pause if on else self.operator.resume)
        return True

    def stack(self) -> str:
        """Of all workers."""
        return self.told(self.operator.stack)

    def trace(self, path: str) -> None:
        """As ``BossWorker.trace``."""
        self.told(lambda: self.operator.trace(path))

    def read(self, stream: str, since: int, limit: int | None = None) -> tuple[int, bytes]:
        raise EntryError(f"pool {self.name} writes nothing: bossworker top shows what its jobs do")

    def send(self, text: str, timeout: float | None = None) -> None:
        raise EntryError(f"pool {self.name} reads nothing")

    def again(self) -> PoolEntry:
        """Run its failed jobs once more, but for those that somebody has cancelled. EntryError when there are none."""
        failed = self.told(self.operator.failed)
        ids = [one.job_id for one in failed if one.can_run_again and one.kind != "cancelled"]
        if not self.told(lambda: self.operator.run_again(ids)):
            raise EntryError(f"pool {self.name} knows of no job that has failed and can run again")
        return self

    def delete(self) -> None:
        raise EntryError(f"pool {self.name} has no files: it ends with its program, process {self.operator.owner_pid}")


def pool_entries() -> Iterator[PoolEntry]:
    """All that answer, by name."""
    for address in pools():
        try:
            yield PoolEntry(operate(address, timeout=ANSWER_SECONDS))
        except (OSError, DoorRefused):  # what has no door any more, does not answer, or is another's
            continue

"""The settings of a pool by their names and types, for faces that hand them on; type checkers alone load this."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from bossworker.pool.options import StartMethod


class PoolSettings(TypedDict, total=False):
    """The keyword arguments of `BossWorker`, which says what they mean."""

    result_handler: Callable[[Any], Mapping[Any, Any] | None] | None
    init_handler: Callable[[], object] | None
    exit_handler: Callable[[], object] | None
    global_timeout: float | None
    worker_count: int | None
    kill_grace: float
    retries: int
    max_pending: int | None
    max_jobs_per_worker: int | None
    max_worker_memory: int | None
    max_job_memory: int | None
    start_method: StartMethod
    close_fds: bool
    transport: Literal["zmq", "socketpair"]
    logs: Literal["inherit", "relay", "discard"]
    name: str | None
    engine: object
    journal: str | os.PathLike[str] | None
    interrupted: Literal["report", "rerun"]
    max_journal_age: float | None
    max_journal_size: int | None

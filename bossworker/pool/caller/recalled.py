"""Jobs that somebody else has added, as they come to a handle that is to get their results."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bossworker.pool.caller.sent_jobs import KeptJobs
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.codec import BLOCK_JOBS, load_block, load_job


def jobs_of(batch: Batch) -> list[Any]:
    """What a batch holds; None in the place of a job that cannot be loaded here."""
    jobs: list[Any] = []
    at = 0
    for count, size in zip(batch.counts, batch.sizes):
        block = memoryview(batch.payload)[at : at + size]
        at += size
        try:
            jobs += load_block(count, block) if count > 1 else [load_job(block, None)]
        except Exception:
            jobs += [None] * count
    return jobs[batch.skip : batch.skip + batch.count]


def recalled_jobs(batch: Batch) -> Sequence[Any]:
    """The same; of small plain jobs, only the bytes are kept, and loaded when somebody asks for one of them."""
    counts = batch.counts
    if not counts or counts[-1] < 2 or set(counts[:-1]) - {BLOCK_JOBS}:
        return jobs_of(batch)
    groups: list[bytes | list[Any]] = []
    at = 0
    for size in batch.sizes:
        groups.append(bytes(memoryview(batch.payload)[at : at + size]))
        at += size
    return KeptJobs(groups, batch.count, batch.skip)

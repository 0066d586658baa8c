"""Jobs that somebody else has added, as they come to a handle that is to get their results."""

from __future__ import annotations

from typing import Any

from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.codec import load_block, load_job


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

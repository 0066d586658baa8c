"""Steps of running a job, wherever it runs: its jobs out of a batch, and what went wrong as data."""

from __future__ import annotations

import traceback
from collections.abc import Iterable, Iterator
from itertools import islice

from bossworker.errors import TIMED_OUT, JobTimeout
from bossworker.failure import Outcome, capture, describe, encode_error
from bossworker.function_calls import Initializer
from bossworker.pickling import MainDefinitions
from bossworker.pool.wire import codec
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.messages import FIRST_CLIENT_ID
from bossworker.pool.wire.parcel import Parcel

_SINCE_THE_FORK = (
    ' (workers know what was defined when the pool was made: make a new one, reload it, or use start_method="spawn")'
)


def blocks_of(batch: Batch) -> Iterator[Iterable[object]]:
    """The jobs of a batch, block by block: ready ones, or the bytes of one whose loading may do anything at all."""
    load = codec.load_block if batch.first_id < FIRST_CLIENT_ID else codec.load_strange_block
    payload = memoryview(batch.payload)
    at, skip = 0, batch.skip
    for count, size in zip(batch.counts, batch.sizes, strict=True):
        block = payload[at : at + size]
        at += size
        yield (block,) if count == 1 else islice(load(count, block), skip, None)
        skip = 0


def failure_of(error: BaseException, stage: int, by_value: bool | MainDefinitions) -> tuple[int, bytes | Parcel]:
    """An error as outcome and payload."""
    text = ""
    if isinstance(error, JobTimeout):
        stage, text = (Outcome.MEMORY, str(error)) if error.memory else (Outcome.TIMEOUT, TIMED_OUT)
    elif isinstance(error, codec.BadResult):
        text = f"BossWorkerAsync: {error}"
    elif stage == Outcome.BAD_JOB:
        text = f"BossWorkerAsync: the job could not be rebuilt in the worker: {describe(error)}"
        if by_value is not True and isinstance(error, AttributeError | ImportError):
            text += _SINCE_THE_FORK
    return stage | Outcome.WHOLE, encode_error(capture(error, skip_frames=1, text=text, by_value=by_value))


def describe_failed_init(handler: object, error: BaseException) -> bytes:
    """What an init_handler raised, by the name that its user knows."""
    name = "initializer" if isinstance(handler, Initializer) else "init_handler"
    return describe_failed_start(f"{name} raised", error)


def describe_failed_start(what: str, error: BaseException) -> bytes:
    trace = "".join(traceback.format_exception(error)).rstrip()
    return f"{what}: {describe(error)}\n\n{trace}".encode("utf-8", "replace")

"""The worker's loop over jobs of plain data, compiled or in Python: to the byte what `JobRunner._run` does.

A job whose handler raises, or returns what is not plain data, is brought to its end here; and so is one that is a block
of its own, or that has written something which is relayed.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from bossworker.errors import JobTimeout
from bossworker.failure import Outcome
from bossworker.pool.wire import codec
from bossworker.pool.wire.batch import Batch
from bossworker.pool.wire.parcel import Parcel
from bossworker.pool.wire.shared_counter import exclusive
from bossworker.pool.worker.job_steps import failure_of
from bossworker.pool.worker.python_loop import PythonLoop
from bossworker.pool.worker.relayed_output import SHORT_SECONDS
from bossworker.system.compiled import core

if TYPE_CHECKING:
    from bossworker.pool.worker.job_runner import JobRunner

_EXCEPTION, _BAD_RESULT = int(Outcome.EXCEPTION), int(Outcome.BAD_RESULT)


class PlainJobs:
    """See the module."""

    def __init__(self, runner: JobRunner) -> None:
        self._runner = runner
        loop: Any
        if core is not None:
            loop = runner.recorder.compiled_loop()
        else:
            loop = PythonLoop(runner.recorder, lambda: runner.encode is codec.encode_result)
        if runner.output is not None:
            loop.pipe, loop.error_pipe = runner.output.pipes
            loop.short_seconds = SHORT_SECONDS
        self._loop = loop

    @property
    def armed(self) -> int:
        """1 + id of the job that JobTimeout may be raised in."""
        return self._loop.armed  # type: ignore[no-any-return]

    def disarm(self) -> None:
        """No JobTimeout may be raised any more."""
        self._loop.armed = 0

    def note_copy(self) -> None:
        """We are a child that a handler forked."""
        self._loop.copy = True

    def run(self, batch: Batch) -> None:
        """Run a batch of our own program's."""
        loop, runner = self._loop, self._runner
        loop.end, loop.over, loop.by_value = 0, False, runner.by_value is True
        runner.recorder.marks[0] = time.monotonic()
        payload = memoryview(batch.payload)
        at, index, skip = 0, 0, batch.skip
        for count, size in zip(batch.counts, batch.sizes, strict=True):
            block = payload[at : at + size]
            at += size
            if count == 1:
                self._run_one(block, batch.first_id, index)
                index += 1
            else:
                jobs = codec.load_block(count, block)
                self._run_many(jobs, skip, batch.first_id, index)
                index += count - skip
            skip = 0
            if loop.over:
                return

    def _run_one(self, block: memoryview, first_id: int, index: int) -> None:
        if not self._runner.recorder.unclaimed.acquire(False):
            self._loop.over = True
            return
        outcome, payload = self._runner.run_one(block, first_id + index + 1)
        self._record(first_id, index, outcome, payload)

    def _run_many(self, jobs: list[object], position: int, first_id: int, index: int) -> None:
        """Jobs from a position on; that one is the `index`-th of the batch."""
        before = index - position
        while position < len(jobs) and not self._loop.over:
            ended = self._run_plain(jobs, position, before + position, first_id)
            if ended is None:
                return
            position = self._loop.at
            self._record(first_id, before + position, *ended)
            self._loop.open = False
            position += 1

    def _run_plain(
        self, jobs: list[object], position: int, index: int, first_id: int
    ) -> tuple[int, bytes | Parcel] | None:
        """Run them up to one that is not plain; how that one ended, or None."""
        loop, runner = self._loop, self._runner
        stage = _EXCEPTION
        try:
            try:
                value = loop.run(runner.work, jobs, position, index, first_id + index + 1)
                if not loop.open:
                    return None
                if runner.copy:
                    runner.stop_copies()
                stage = _BAD_RESULT
                return runner.encode(value, runner.by_value)
            finally:
                loop.armed = 0
        except BaseException as error:
            if stage == _EXCEPTION and type(loop) is PythonLoop and error.__traceback__ is not None:
                error.__traceback__ = error.__traceback__.tb_next  # without the loop's own frame
            runner.stop_copies(error)
            if not loop.open:  # raised by a signal handler of the program's, between jobs
                raise
            if isinstance(error, JobTimeout):
                runner.end_offspring()
            return failure_of(error, stage, runner.by_value)

    def _record(self, first_id: int, index: int, outcome: int, payload: bytes | Parcel) -> None:
        """As in `JobRunner._run`."""
        if self._runner.output is not None:
            self._runner.output.job_ended(first_id + index, self._runner.recorder.marks[index])
        self._loop.end = self._runner.record(first_id, index, outcome, payload, time.monotonic(), self._loop.end)


def plain_jobs(runner: JobRunner) -> PlainJobs | None:
    """None where there is no semaphore that a loop could take, and where output is relayed, unless it is compiled."""
    return PlainJobs(runner) if exclusive() and (core is not None or runner.output is None) else None

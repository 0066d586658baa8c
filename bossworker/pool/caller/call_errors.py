"""What a call of a function raises, in the program that made it."""

from __future__ import annotations

from concurrent.futures import CancelledError
from concurrent.futures.process import BrokenProcessPool

from bossworker import errors
from bossworker.errors import BossWorkerError, JobFailed, JobTimedOut
from bossworker.failure import set_cause
from bossworker.pool.wire.codec import BadResult
from bossworker.result import Result, exception_of


class RemoteTraceback(BossWorkerError):
    """The cause of what a call raised: the worker's traceback, as text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


class NotRebuilt(JobFailed, BrokenProcessPool):
    """The arguments of a call did not rebuild in the worker, or its value did not rebuild here."""


class PoolBroken(BossWorkerError, BrokenProcessPool):
    """The pool beneath an executor has ended before its time. The cause tells why."""


def error_of(result: Result) -> BaseException:
    """What a call raised, with the worker's traceback as its cause; or what became of it otherwise."""
    error = _error_by_kind(result, f"call {result.job_id}: {result.error}")
    if result.traceback:
        set_cause(error, RemoteTraceback(result.traceback))
    return error


def _error_by_kind(result: Result, text: str) -> BaseException:  # noqa: PLR0911 - a table
    exception = exception_of(result)
    match result.error_kind:
        case "cancelled":
            return CancelledError()
        case "exception":
            return exception or JobFailed(text, result)
        case "timeout":
            return JobTimedOut(text, result)
        case "crash":
            return errors.WorkerDied(text, result)
        case "bad_result" if isinstance(exception, BadResult) and exception.__cause__ is not None:
            return exception.__cause__  # what its pickling raised
        case "bad_job" | "bad_result":
            return NotRebuilt(text, result)
        case _:
            return JobFailed(text, result)


def broken(error: BaseException) -> PoolBroken:
    """A pool's error as one that is known from ``ProcessPoolExecutor``, too."""
    mine = PoolBroken(str(error))
    mine.__cause__ = error
    return mine

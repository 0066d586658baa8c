"""Every error this package raises, and the fixed texts that land in a result's ``ERROR`` key.

The tree::

    BossWorkerError             everything below
     +-- PoolClosed             the handle was shut down, or belongs to another process
     +-- NothingPending         a blocking get_result with no job outstanding
     +-- WorkerStartError       no worker could be started (its init_handler failed, or fork did)
     +-- BossDied               the boss process is gone; ``unfinished`` names the jobs without a result
     +-- ResultHandlerError     the caller's own result_handler raised; ``result`` is not lost
     +-- JobFailed              from Result.raise_for_error; ``result`` is the failed result
     |    +-- WorkerDied        from a future of an Executor: also a BrokenProcessPool
     |    +-- JobTimedOut       from a future of an Executor: also a TimeoutError
     +-- JournalError           a journal cannot be used, or did not take the jobs; the text says why
     |    +-- JournalInUse      another program owns it; ``pid`` tells which
     +-- DoorRefused            a pool of another program does not let us in
     +-- RemoteError            stands in for a worker's exception that cannot be rebuilt here

    JobTimeout (BaseException)  raised inside a handler whose time is up, or whose job is cancelled
"""

from __future__ import annotations

from collections.abc import Mapping

from bossworker.display import short_record
from bossworker.system.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from bossworker.result import Result

TIMED_OUT = "BossWorkerAsync: timed out"
CANCELLED = "BossWorkerAsync: cancelled"
MEMORY_EXCEEDED = "memory limit exceeded"
WORKER_DIED = "BossWorkerAsync: worker died"
INTERRUPTED = "BossWorkerAsync: interrupted"


class BossWorkerError(Exception):
    """Base of every error of this package."""


class PoolClosed(BossWorkerError):
    """The handle was shut down, or was carried into a forked child, and takes no more work."""


class NothingPending(BossWorkerError):
    """A blocking ``get_result`` was asked for, but no job is outstanding: it could only hang."""


class WorkerStartError(BossWorkerError):
    """No worker could be started; the text holds the reason with the worker's traceback."""


class UnfinishedJob(NamedTuple):
    """A job that had no result when the boss died."""

    job_id: int
    job: Mapping[Any, Any]
    may_have_run: bool
    """False only when the job provably never reached a worker."""

    def __repr__(self) -> str:
        return short_record(self)


class BossDied(BossWorkerError):
    """The boss process is gone, and with it every worker.

    ``unfinished`` lists an :class:`UnfinishedJob` for each job that has no result.
    """

    def __init__(self, message: str, unfinished: list[UnfinishedJob]) -> None:
        super().__init__(message)
        self.unfinished = unfinished

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.unfinished)


class _ErrorWithResult(BossWorkerError):
    def __init__(self, message: str, result: Result) -> None:
        super().__init__(message)
        self.result = result

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.result)


class ResultHandlerError(_ErrorWithResult):
    """The ``result_handler`` raised (it is the cause); ``result`` is what it was given."""


class JobFailed(_ErrorWithResult):
    """Raised by ``Result.raise_for_error``, with the worker's exception as its cause."""


class JobTimedOut(JobFailed, TimeoutError):
    """A call of an ``Executor`` outran its time. Its cause tells where it was."""


if TYPE_CHECKING:
    from concurrent.futures.process import BrokenProcessPool

    class WorkerDied(JobFailed, BrokenProcessPool):
        """See below."""


def __getattr__(name: str) -> type:
    """``WorkerDied`` is made when it is asked for: what it derives from takes as long to load as all of ours."""
    if name != "WorkerDied":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from concurrent.futures.process import BrokenProcessPool

    class WorkerDied(JobFailed, BrokenProcessPool):
        """The worker of a call of an ``Executor`` died, and its retries are used up.

        A ``BrokenProcessPool``, so that what was written for ``ProcessPoolExecutor`` catches it; but the pool goes on.
        """

    WorkerDied.__qualname__ = name
    return globals().setdefault(name, WorkerDied)  # type: ignore[no-any-return]


class DoorRefused(BossWorkerError):
    """The pool is there, and does not let this client in; the text says why."""


class JournalError(BossWorkerError):
    """A journal cannot be used (it is damaged, or none of ours), or it did not take jobs (the disk is full)."""


class JournalInUse(JournalError):
    """Another program owns the journal; ``pid`` is its process, 0 if that is not known."""

    def __init__(self, message: str, pid: int = 0) -> None:
        super().__init__(message)
        self.pid = pid

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.args[0], self.pid)


class RemoteError(BossWorkerError):
    """Stands in for a worker's exception that cannot be rebuilt in this process.

    ``type_name`` is the class it had there, ``message`` its text, ``traceback`` the worker's traceback.
    """

    def __init__(self, type_name: str, message: str, traceback: str = "") -> None:
        super().__init__(type_name, message, traceback)
        self.type_name = type_name
        self.message = message
        self.traceback = traceback

    def __str__(self) -> str:
        return f"{self.type_name}: {self.message}" if self.message else self.type_name


class JobTimeout(BaseException):
    """Raised inside the handler when its job's time is up, when it takes too much memory, or when it is cancelled.

    A ``BaseException``, so that ``except Exception`` does not swallow it. A handler may catch it to tidy
    up, and has ``kill_grace`` seconds for that before its worker is killed. One that lets it pass has what its job has
    started ended: its worker's children that were not there before the job, with all below them.
    """

    grace = 0.0
    """That many seconds, where a pool has raised it."""
    memory = False
    """Whether it is not the job's time that is up, but the memory that it may take (``max_job_memory``)."""

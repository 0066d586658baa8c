"""A pool for long-running programs: jobs in, results out, and nothing lost in between.

The way of a job, and the folder for each part of it (each ``__init__.py`` has a map of its folder)::

    pool/         BossWorker: caller/ (the handle) -> boss/ (queue, deadlines) -> worker/ (handlers); wire/ between them
    commands/     external commands: run_command in a worker (inline/), detached ones (supervision/), job directories
    jobs/         detached commands: start, and ask later by id
    tasks/        background tasks under supervisors of their own: client/, supervisor/, wire/ between them
    forkqueue/    how many children a program that forks has at once
    watch/        events, and what shows them
    journal/      a pool's queue and results, on the disk
    engines/      pools on clusters;  executor.py, aio.py, joblib.py: a pool as an executor, on asyncio, under joblib
    cli/, web/    ``bossworker COMMAND`` (__main__.py), the page;  metrics.py, otel.py: for Prometheus and OpenTelemetry
    system/       what the operating system can do: processes, signals, descriptors, folders

    errors.py, failure.py, result.py, pickling.py, jobkey.py    the words that all of them use;  function_calls.py: jobs
    that are calls;  culprits.py, display.py: how values are told of;  mypy_plugin.py

What stands above may import what stands below, never the other way round: ``tests/unit/test_layers.py``.
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bossworker import forkqueue as forkqueue
    from bossworker import joblib as joblib
    from bossworker import jobs as jobs
    from bossworker import journal as journal
    from bossworker import metrics as metrics
    from bossworker import otel as otel
    from bossworker import tasks as tasks
    from bossworker import web as web
    from bossworker.aio import AsyncBossWorker
    from bossworker.commands.inline.handler import CommandHandler, run_command
    from bossworker.errors import (
        CANCELLED,
        INTERRUPTED,
        TIMED_OUT,
        BossDied,
        BossWorkerError,
        DoorRefused,
        JobFailed,
        JobTimedOut,
        JobTimeout,
        JournalError,
        JournalInUse,
        NothingPending,
        PoolClosed,
        RemoteError,
        ResultHandlerError,
        UnfinishedJob,
        WorkerDied,
        WorkerStartError,
    )
    from bossworker.executor import Executor
    from bossworker.jobkey import job_key
    from bossworker.pool.boss.stats import Stats, WorkerStats
    from bossworker.pool.caller.attached import AttachedPool, connect
    from bossworker.pool.caller.client import BossWorker
    from bossworker.pool.caller.operating import Operator
    from bossworker.pool.caller.pool_future import JobFuture
    from bossworker.pool.caller.remote_operator import RemoteOperator, operate, pools
    from bossworker.pool.door.keys import Keys, keys
    from bossworker.pool.door.listening import ClientInfo, Door
    from bossworker.pool.worker.current_job import CurrentJob, current_job
    from bossworker.result import Result
    from bossworker.watch.pool_events import (
        JobEnded,
        JobLog,
        JobProgress,
        JobQueued,
        JobStarted,
        Missed,
        WorkerDown,
        WorkerUp,
    )

__version__ = "0.2.0"

__all__ = [
    "CANCELLED",
    "INTERRUPTED",
    "TIMED_OUT",
    "AsyncBossWorker",
    "AttachedPool",
    "BossDied",
    "BossWorker",
    "BossWorkerError",
    "ClientInfo",
    "CommandHandler",
    "CurrentJob",
    "Door",
    "DoorRefused",
    "Executor",
    "JobEnded",
    "JobFailed",
    "JobFuture",
    "JobLog",
    "JobProgress",
    "JobQueued",
    "JobStarted",
    "JobTimedOut",
    "JobTimeout",
    "JournalError",
    "JournalInUse",
    "Keys",
    "Missed",
    "NothingPending",
    "Operator",
    "PoolClosed",
    "RemoteError",
    "RemoteOperator",
    "Result",
    "ResultHandlerError",
    "Stats",
    "UnfinishedJob",
    "WorkerDied",
    "WorkerDown",
    "WorkerStartError",
    "WorkerStats",
    "WorkerUp",
    "connect",
    "current_job",
    "job_key",
    "keys",
    "operate",
    "pools",
    "run_command",
]

_MODULES = {
    "aio": ("AsyncBossWorker",),
    "executor": ("Executor",),
    "pool.caller.attached": ("AttachedPool", "connect"),
    "pool.caller.client": ("BossWorker",),
    "pool.caller.pool_future": ("JobFuture",),
    "pool.door.keys": ("Keys", "keys"),
    "pool.door.listening": ("ClientInfo", "Door"),
    "pool.caller.operating": ("Operator",),
    "pool.caller.remote_operator": ("RemoteOperator", "operate", "pools"),
    "commands.inline.handler": ("CommandHandler", "run_command"),
    "jobkey": ("job_key",),
    "result": ("Result",),
    "pool.boss.stats": ("Stats", "WorkerStats"),
    "watch.pool_events": (
        "JobEnded",
        "JobLog",
        "JobProgress",
        "JobQueued",
        "JobStarted",
        "Missed",
        "WorkerDown",
        "WorkerUp",
    ),
    "pool.worker.current_job": ("CurrentJob", "current_job"),
}
_SUBMODULES = ("forkqueue", "jobs", "journal", "tasks")  # as ``bossworker.jobs``, without a further import
_EXTRAS = {  # the same, and what they need
    "joblib": "joblib",
    "metrics": "prometheus_client",
    "otel": "opentelemetry",
    "web": "starlette",
}
_HOME = {name: module for module, names in _MODULES.items() for name in names}

if not TYPE_CHECKING:  # or type checkers would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Load what is asked for, when it is: a supervisor, which is of this package too, has no use for a pool."""
        from importlib import import_module

        if name in _SUBMODULES or name in _EXTRAS:
            return import_module(f"{__name__}.{name}")
        if name not in __all__:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
        globals()[name] = value
        return value


del TYPE_CHECKING


def __dir__() -> list[str]:
    """What is public: neither what has been loaded meanwhile, nor what this file needs for itself.

    Of the extras those that are installed, so that help() and whatever else looks at all of it finds nothing missing.
    """
    from importlib.util import find_spec

    extras = [name for name, needed in _EXTRAS.items() if find_spec(needed) is not None]
    return sorted([*__all__, *_SUBMODULES, *extras, "__version__"])

"""A pool for long-running programs: jobs in, results out, and nothing lost in between.

The way of a job, and the file for each part of it::

    caller    client.py      add_work, get_result: the handle that programs use
              outbox.py      jobs get ids and are sent;  codec.py: they become bytes, errors become data
              connection.py  frames to and from the boss;  inbox.py: results, each given out once
              mapping.py     map() over an iterable;  standing.py: what may be asked now
    boss      boss.py        reads, performs;  ledger.py: decides, without I/O;  actions.py, entry.py: what and on what
              queue.py       what waits;  run.py: runs of jobs, cut and joined;  delivery.py: results on their way
              poller.py      what it listens to;  stats.py: what it counts, for whoever asks
    nursery   nursery.py     forks the workers and reaps them
    worker    worker.py      claims jobs, runs the handler;  recorder.py: its flight recorder, shared with the boss

    commands  commands/      run_command, job directories, supervisors (its __init__.py has a map, too)
              jobs/          detached commands: start, and ask later by id
    tasks     tasks/         background tasks under supervisors of their own (with a map, too)

    between them             link.py: frames over sockets;  messages.py: what they mean;
                             parcel.py: large payloads, in shared memory;  spin.py: staying awake

    around them              launch.py: forks and what each child sheds;  process.py: trees, orphans, exits;
                             signals.py, stdio.py: what is inherited;  options.py, checks.py: settings, checked;
                             errors.py;  result.py;  jobkey.py

Beside the pool, and independent of it::

    forkqueue/     how many children a program that forks has at once
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bossworker.client import BossWorker
    from bossworker.commands.handler import CommandHandler, run_command
    from bossworker.errors import (
        CANCELLED,
        TIMED_OUT,
        BossDied,
        BossWorkerError,
        JobFailed,
        JobTimeout,
        NothingPending,
        PoolClosed,
        RemoteError,
        ResultHandlerError,
        UnfinishedJob,
        WorkerStartError,
    )
    from bossworker.jobkey import job_key
    from bossworker.result import Result
    from bossworker.stats import Stats, WorkerStats

del TYPE_CHECKING

__all__ = [
    "CANCELLED",
    "TIMED_OUT",
    "BossDied",
    "BossWorker",
    "BossWorkerError",
    "CommandHandler",
    "JobFailed",
    "JobTimeout",
    "NothingPending",
    "PoolClosed",
    "RemoteError",
    "Result",
    "ResultHandlerError",
    "Stats",
    "UnfinishedJob",
    "WorkerStartError",
    "WorkerStats",
    "job_key",
    "run_command",
]

_MODULES = {
    "client": ("BossWorker",),
    "commands.handler": ("CommandHandler", "run_command"),
    "jobkey": ("job_key",),
    "result": ("Result",),
    "stats": ("Stats", "WorkerStats"),
}
_SUBMODULES = ("forkqueue", "jobs", "tasks")  # as ``bossworker.jobs``, without a further import
_HOME = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> object:
    """Load what is asked for, when it is: a supervisor, which is of this package too, has no use for a pool."""
    from importlib import import_module

    if name in _SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_HOME.get(name, 'errors')}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})

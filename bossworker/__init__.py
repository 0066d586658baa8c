"""A pool for long-running programs: jobs in, results out, and nothing lost in between.

The way of a job, and the file for each part of it::

    caller    client.py      add_work, get_result: the handle that programs use
              outbox.py      jobs get ids and are sent;  codec.py: they become bytes, errors become data
              connection.py  frames to and from the boss;  inbox.py: results, each given out once
              mapping.py     map() over an iterable;  standing.py: what may be asked now
    boss      boss.py        reads, performs;  ledger.py: decides, without I/O;  actions.py, entry.py: what and on what
              queue.py       what waits;  run.py: runs of jobs, cut and joined;  delivery.py: results on their way
    nursery   nursery.py     forks the workers and reaps them
    worker    worker.py      claims jobs, runs the handler;  recorder.py: its flight recorder, shared with the boss

    between them             link.py: frames over sockets;  messages.py: what they mean;
                             parcel.py: large payloads, in shared memory;  spin.py: staying awake
    around them              launch.py: forks and what each child sheds;  process.py: trees, orphans, exits;
                             options.py: settings, checked;  errors.py;  result.py;  jobkey.py

Beside the pool, and independent of it::

    forkqueue/     how many children a program that forks has at once
"""

from bossworker.client import BossWorker, Stats, WorkerStats
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

__all__ = [
    "CANCELLED",
    "TIMED_OUT",
    "BossDied",
    "BossWorker",
    "BossWorkerError",
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
]

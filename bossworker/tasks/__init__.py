"""Background tasks: commands under supervisors of their own, for anyone with access to find, watch, feed and end.

The way of a task, and the file for each part of it::

    programs      pool.py        TaskPool: spawn and search;  directory.py: where it is;  patterns.py: what is found
                  task.py        Task;  stream.py: its streams;  own.py: current(), for the command itself
                  spawning.py    has a supervisor started;  connection.py: talks to one
                  record.py      what is on the disk of a task;  reader.py: its streams;  remains.py: what outlived
                                 a supervisor that was killed
    supervisor    birth.py       from a request to a command that runs, and the supervisor's last words
                  supervisor.py  the command's life, over the steps of bossworker.commands.supervisor
                  restarts.py    decides whether it is started again
                  service.py     its clients;  requests.py: what they may ask for
                  plumbing.py    all its streams;  channels.py: the pipes and sockets;  store.py: the files

    between them  protocol.py    the wire;  segments.py: the files of a stream;  account.py: what info() tells;
                                 address.py: sockets with long paths;  lockfile.py
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bossworker.tasks.errors import StreamClosed, TaskError, TaskGone, TaskLocked, TaskNotStarted, TaskRefused
    from bossworker.tasks.own import CurrentTask, current
    from bossworker.tasks.pool import TaskPool, default_task_pool, search, spawn
    from bossworker.tasks.stream import Stream
    from bossworker.tasks.task import Task

del TYPE_CHECKING

__all__ = [
    "CurrentTask",
    "Stream",
    "StreamClosed",
    "Task",
    "TaskError",
    "TaskGone",
    "TaskLocked",
    "TaskNotStarted",
    "TaskPool",
    "TaskRefused",
    "current",
    "default_task_pool",
    "search",
    "spawn",
]

_HOMES = {
    "tasks.errors": ("StreamClosed", "TaskError", "TaskGone", "TaskLocked", "TaskNotStarted", "TaskRefused"),
    "tasks.pool": ("TaskPool", "default_task_pool", "search", "spawn"),
    "tasks.stream": ("Stream",),
    "tasks.task": ("Task",),
    "tasks.own": ("CurrentTask", "current"),
}


def __getattr__(name: str) -> object:
    """Looked up when first used: a supervisor, which needs none of it, imports this package, too."""
    from importlib import import_module

    for home, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"bossworker.{home}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

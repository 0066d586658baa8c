"""Background tasks: commands under supervisors of their own, for anyone with access to find, watch, feed and end.

client/       in the programs that use tasks: TaskPool, Task, Stream, current()
supervisor/   the process that supervises one task
wire/         between them: the protocol, and the files of a task
errors.py
"""

TYPE_CHECKING = False
if TYPE_CHECKING:
    from bossworker.tasks.client.current import CurrentTask, current
    from bossworker.tasks.client.stream import Stream
    from bossworker.tasks.client.task import Task
    from bossworker.tasks.client.task_pool import TaskPool, default_task_pool, search, spawn
    from bossworker.tasks.errors import StreamClosed, TaskError, TaskGone, TaskLocked, TaskNotStarted, TaskRefused

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
    "tasks.client.task_pool": ("TaskPool", "default_task_pool", "search", "spawn"),
    "tasks.client.stream": ("Stream",),
    "tasks.client.task": ("Task",),
    "tasks.client.current": ("CurrentTask", "current"),
}


if not TYPE_CHECKING:  # or type checkers would take every name for one of ours

    def __getattr__(name: str) -> object:
        """Looked up when first used: a supervisor, which needs none of it, imports this package, too."""
        from importlib import import_module

        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"bossworker.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


del TYPE_CHECKING


def __dir__() -> list[str]:
    return sorted(__all__)

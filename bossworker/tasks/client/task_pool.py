"""A pool of tasks: a directory, and the tasks in it."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bossworker.commands import request
from bossworker.commands.supervision.interpreter import find_python
from bossworker.system import identity
from bossworker.system.checks import check_count, check_seconds
from bossworker.tasks.client.patterns import Pattern, matcher
from bossworker.tasks.client.spawning import Program, spawn_supervisor
from bossworker.tasks.client.survey import describe_all
from bossworker.tasks.client.task import Task, check_size
from bossworker.tasks.client.task_record import TaskRecord, find
from bossworker.tasks.errors import TaskGone
from bossworker.tasks.supervisor import restarts
from bossworker.tasks.wire import directory, task_info

LINGER_SECONDS = 3600.0  # for somebody to look at what has ended, and to restart it
GRACE_SECONDS = 2.0  # for a command to tidy up
BEHAVIORS = ("foreground", "background", "daemon")

_PACKAGE_FOLDER = str(Path(__file__).parents[3])
_PROGRAM = (
    f"import sys; sys.path.append({_PACKAGE_FOLDER!r}); from bossworker.tasks.supervisor.startup import main; main()"
)


class TaskPool:
    """A directory with tasks in it: a view of it, and methods to start tasks there and to find them.

    A task in it is a directory with all that is known of it and, while its supervisor lives, a socket. Both are named
    after the task's id. Whoever may read the pool's directory may look at the tasks, and whoever may write to it may
    control them, as far as the umask of their spawner allows it, too; in a directory with the sticky bit, such as /tmp,
    everybody controls their own.

    Source: RapidApp::BgTask::TaskPool.
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        mkdir_if_missing: directory.Mkdir = None,
        supervisor_cmd: Sequence[str | os.PathLike[str]] | None = None,
        supervisor_env: Mapping[str, str] | None = None,
        task_class: Callable[[TaskPool, int], Task] = Task,
    ) -> None:
        """
        Args:
            path: The directory; None: the default pool's, which is made when it is missing.
            mkdir_if_missing: Whether to make it: True, a mode such as 0o770, or (mode, uid, gid), each of which may be
                None. Without a mode it is private to the user.
            supervisor_cmd: argv of a program that becomes the supervisor; see the property.
            supervisor_env: Variables for it; see the property.
            task_class: Makes what `spawn` and `search` return, from a pool and a supervisor's pid.

        Raises:
            TypeError, ValueError: An argument is not allowed; the text names it.
            FileNotFoundError: There is no such directory, and it is not to be made.
            NotADirectoryError: There is something else.
        """
        self.path = request.check_path("path", directory.default_path() if path is None else path)
        self.supervisor_cmd = supervisor_cmd
        self.supervisor_env = supervisor_env
        if not callable(task_class):
            raise TypeError(f"task_class must be a callable, not {task_class!r}")
        self.task_class = task_class
        making = directory.check_making(path is None if mkdir_if_missing is None else mkdir_if_missing)
        directory.ensure(self.path, making)

    def __repr__(self) -> str:
        return f"TaskPool({self.path!r})"

    # -- settings ---------------------------------------------------------------------------------------

    @property
    def socket_dir(self) -> str:
        """Where the supervisors' sockets are: the pool's own directory."""
        return self.path

    @property
    def supervisor_cmd(self) -> list[str]:
        """argv of the program that becomes a supervisor, for instance one that begins with ``nice`` or ``sudo``.

        It finds the request on its stdin and ends up in ``bossworker.tasks.supervisor.startup.main``, as the default
        does, which is run by ``$BOSSWORKER_PYTHON`` or else ``sys.executable``. Setting it (None: the default again)
        means that each supervisor is an interpreter of its own, started from nothing; by default they are forked from a
        small process that is ready for it, which is quicker and takes less memory.
        """
        if self._supervisor_cmd is not None:
            return list(self._supervisor_cmd)
        # -I would ignore PYTHONHOME as well, without which some Pythons find no library.
        apart = ["-s", "-P"] if "PYTHONHOME" in os.environ else ["-I"]
        return [find_python(), *apart, "-S", "-c", _PROGRAM]

    @supervisor_cmd.setter
    def supervisor_cmd(self, argv: Sequence[str | os.PathLike[str]] | None) -> None:
        if isinstance(argv, str):
            raise ValueError(f"supervisor_cmd must be a list of str, not {argv!r:.200}")
        self._supervisor_cmd = None if argv is None else request.check_argv("supervisor_cmd", argv)

    @property
    def supervisor_env(self) -> dict[str, str]:
        """Variables that supervisors and commands get besides this process's; at first the pool's path alone.

        Setting it replaces all of them; `apply_supervisor_env` adds.
        """
        return dict(self._supervisor_env)

    @supervisor_env.setter
    def supervisor_env(self, env: Mapping[str, str] | None) -> None:
        self._supervisor_env = self._default_env() if env is None else self._check_env(env)

    def apply_supervisor_env(self, **env: str) -> dict[str, str]:
        """Add to the supervisor's variables; all of them."""
        self._supervisor_env |= self._check_env(env)
        return self.supervisor_env

    def _default_env(self) -> dict[str, str]:
        return {directory.PATH_VARIABLE: self.path}

    @staticmethod
    def _check_env(env: Mapping[str, str]) -> dict[str, str]:
        checked = request.check_env(env, "supervisor_env")
        return {name: value for name, value in checked.items() if value is not None}

    def output_path(self, pid: int | None = None) -> str:
        """The file that the stdout of the supervisor of that pid (None: this process) goes to, until it ends unused.

        Its name comes from the task's id. When the pool has no task of that pid, there is no such file.
        """
        return self._path_of(pid, task_info.output_name)

    def socket_path(self, pid: int | None = None) -> str:
        """The Unix socket that the supervisor of that pid (None: this process) listens on.

        Its name comes from the task's id. When the pool has no task of that pid, there is no such file.
        """
        return self._path_of(pid, task_info.socket_name)

    def _path_of(self, pid: int | None, name: Callable[[str], str]) -> str:
        pid = os.getpid() if pid is None else pid
        try:
            return f"{self.path}/{name(find(self.path, pid).id)}"
        except (TaskGone, OSError):
            return f"{self.path}/{name(str(pid))}"

    # -- starting tasks ---------------------------------------------------------------------------------

    def spawn(
        self,
        args: Sequence[str | os.PathLike[str]] | None = None,
        *,
        cmd: str | None = None,
        env: Mapping[str, str | None] | None = None,
        cwd: str | os.PathLike[str] | None = None,
        behavior: str = "background",
        meta: Mapping[str, Any] | None = None,
        retain_output: int | None = None,
        max_read_buf_size: int | None = None,
        lockfile: str | os.PathLike[str] | None = None,
        restart: str = restarts.NEVER,
        restart_limit: int | None = None,
        restart_backoff: float = 1.0,
        restart_backoff_max: float = 60.0,
        linger: float | None = LINGER_SECONDS,
        grace: float = GRACE_SECONDS,
    ) -> Task:
        """Start a command under a supervisor of its own; returns when the command really runs.

        A task that is spawned by a task's command is one of the things that this has started, and ends when that one is
        killed, ended or deleted; one that is spawned as a daemon is not. The same holds for what a handler of a
        `BossWorker` spawns, and its worker.

        Args:
            args: Program and arguments, no shell.
            cmd: Instead of `args`: a line for the shell.
            env: Variables to add; None removes one.
            cwd: The command's working directory; None: this process's.
            behavior: ``"foreground"``: the supervisor is a child of this process, with its terminal, stdout and process
                group; it is reaped by `Task.delete` and `Task.terminate_supervisor`, or else to be waited for by
                ``os.waitpid``. ``"background"``: no child of this process, but in its process group and session: Ctrl-C
                and a hang-up reach it, and it ends its command. It outlives the program that spawned it, a leader of
                the session included. (The original's ends within seconds.) ``"daemon"``: in a session of its own.
            meta: Metadata, JSON values under str keys.
            retain_output: How many bytes are kept after they have been read; the rest is given up. None: all are kept.
            max_read_buf_size: How many of the newest bytes of each stream are kept. None or 0: all.
            lockfile: A file that must be lockable, and is locked while the command runs or is due to be restarted.
            restart: ``"never"``, ``"on-failure"`` (exit code not 0, or a signal) or ``"always"``: when a command that
                has ended is started again by itself. One that somebody ended through the task stays ended.
            restart_limit: How often at most; None or 0: no limit.
            restart_backoff: Seconds before the first restart; doubled with each that follows, until the command has run
                for a minute,
            restart_backoff_max: up to this many seconds.
            linger: Seconds from the command's end until the supervisor leaves (0: at once), after which it can restart
                nothing; status, metadata and output stay, and are told from the disk. As long as something that the
                command has started lives, or has one of its streams open, the supervisor stays. None: it stays until
                somebody ends it.
            grace: Seconds between TERM and KILL when somebody ends the task.

        Raises:
            TypeError, ValueError: An argument is not allowed; the text names it.
            TaskNotStarted: The program cannot be run; with the reason.
            TaskLocked: The lock file is held; with the pid of the task's supervisor that holds it.
            OSError: The pool cannot be written to, or no process can be made.
        """
        wanted = _check_command(args, cmd, env, cwd, meta)
        if behavior not in BEHAVIORS:
            raise ValueError(f"behavior must be one of {', '.join(map(repr, BEHAVIORS))}; not {behavior!r}")
        if restart not in restarts.POLICIES:
            raise ValueError(f"restart must be one of {', '.join(map(repr, restarts.POLICIES))}; not {restart!r}")
        task = {
            "behavior": behavior,
            "retain_output": _optional("retain_output", retain_output),
            "max_read_buf_size": _optional("max_read_buf_size", max_read_buf_size) or None,
            "lockfile": None if lockfile is None else request.check_path("lockfile", lockfile),
            "restart": restart,
            "restart_limit": _optional("restart_limit", restart_limit) or None,
            "restart_backoff": check_seconds("restart_backoff", restart_backoff),
            "restart_backoff_max": check_seconds("restart_backoff_max", restart_backoff_max),
            "linger": None if linger is None else check_seconds("linger", linger),
            "grace": check_seconds("grace", grace),
        }
        job = {
            **wanted.record(),
            "cwd": wanted.cwd or os.getcwd(),
            "meta": check_size(wanted.meta),
            task_info.TASK: task,
        }
        environment = self._environment(wanted.env, detached=behavior == "daemon")
        program = self._program() if behavior == "foreground" or self._has_own_program() else None
        return self._task(*spawn_supervisor(self.path, job, environment, program))

    def _has_own_program(self) -> bool:
        """Whether supervisors are not what they are by default, and so must be started from nothing."""
        return self._supervisor_cmd is not None or self._supervisor_env != self._default_env()

    def _program(self) -> Program:
        return Program(self.supervisor_cmd, {**os.environ, **self._supervisor_env})

    def _environment(self, env: Mapping[str, str | None], detached: bool) -> list[str]:
        """What a command gets: this process's variables, the supervisor's, and its own, as ``NAME=value``.

        A daemon does not inherit the mark of the pool's job that spawned it, which says what ends with that job. (Marks
        of a task are replaced by its own.)
        """
        merged = {**os.environ, **self._supervisor_env, **env}
        if detached and request.JOB_VARIABLE not in env:
            merged.pop(request.JOB_VARIABLE, None)
        return [f"{name}={value}" for name, value in merged.items() if value is not None]

    # -- finding tasks ----------------------------------------------------------------------------------

    def search(self, pattern: Pattern = None) -> list[Task]:
        """The tasks whose info matches, the oldest first.

        Those whose supervisors have ended are among them, as long as their files are there: their info says
        ``{"supervisor": {"running": False}}``. Those that other users hide from this one are not. The supervisor of a
        task that this process cannot see (on another host or in a container that shares the pool) is asked; when it
        cannot be reached, the task is ``unknown``. Looking changes nothing about it. Sockets of supervisors that are
        known to be dead are removed.

        Args:
            pattern: A nested mapping, whose keys must all be in the info, at every depth, with these values; or a
                predicate on the info, whose errors count as no match; None: all tasks. See `Task.info`.
        """
        matches = matcher(pattern)
        records = [TaskRecord(self.path, task_id) for task_id in directory.task_ids(self.path)]
        found = describe_all(records)
        return [self._task(pid, task_id) for pid, task_id, info in found if matches(info)]

    def task_by_pid(self, pid: int) -> Task | None:
        """The task of a supervisor's pid, if that is a supervisor and listens on its socket; None otherwise."""
        if isinstance(pid, int) and pid < 0:
            return None
        check_count("pid", pid)
        with suppress(TaskGone, OSError):
            record = find(self.path, pid)
            facts = record.facts()
            if facts.sight == identity.ALIVE:  # not where the same number is another process's
                record.connect(facts).close()
                return self._task(pid, record.id)
        return None

    def _task(self, pid: int, task_id: str) -> Task:
        task = self.task_class(self, pid)
        if isinstance(task, Task):
            task._belong_to(task_id)
        return task


_default: TaskPool | None = None


def default_task_pool() -> TaskPool:
    """The pool in ``$BOSSWORKER_TASKS``, else in the user's state directory; made when missing, private to the user.

    The same object each time, as long as that is the same directory: what is set stays so, also for `spawn`.

    Source: RapidApp::BgTask, defaultTaskPool.
    """
    global _default
    made = TaskPool()
    if _default is None or _default.path != made.path:
        _default = made
    return _default


def spawn(*args: Any, **settings: Any) -> Task:
    """`TaskPool.spawn` of the default pool."""
    return default_task_pool().spawn(*args, **settings)


def search(pattern: Pattern = None) -> list[Task]:
    """`TaskPool.search` of the default pool."""
    return default_task_pool().search(pattern)


def _check_command(args: object, cmd: object, env: object, cwd: object, meta: object) -> request.Request:
    if (args is None) == (cmd is None):
        raise TypeError("spawn takes either args, a list of str, or cmd, a str for the shell")
    if isinstance(args, str):
        raise ValueError(f"args must be a list of str, not {args!r:.200}; a str for the shell is given as cmd")
    if cmd is not None and not isinstance(cmd, str):
        raise TypeError(f"cmd must be a str for the shell, not {cmd!r:.200}; a list is given as args")
    wanted = {"cmd": args if cmd is None else cmd, "shell": cmd is not None, "env": env, "cwd": cwd, "meta": meta}
    return request.check(wanted, "args" if cmd is None else "cmd")


def _optional(name: str, value: object) -> int | None:
    return None if value is None else check_count(name, value, most=(1 << 62))

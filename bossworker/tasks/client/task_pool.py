"""A pool of tasks: a directory, and who is found in it."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from bossworker.commands import request, roots
from bossworker.system import identity
from bossworker.system.checks import check_count, check_seconds
from bossworker.tasks.client.patterns import Pattern, matcher
from bossworker.tasks.client.spawning import spawn_supervisor
from bossworker.tasks.client.task import Task, check_size
from bossworker.tasks.client.task_record import TaskRecord, describe_all
from bossworker.tasks.errors import TaskGone, TaskRefused
from bossworker.tasks.supervisor import restarts
from bossworker.tasks.wire import directory, task_info
from bossworker.tasks.wire.control_connection import ControlConnection
from bossworker.tasks.wire.lockfile import lock_pool

LINGER_SECONDS = 3600.0  # for somebody to look at what has ended, and to restart it
BEHAVIORS = ("foreground", "background", "daemon")

_OF_A_SUPERVISOR = re.compile(r"\.?(\d{1,10})\.(?:sock|out)", re.ASCII)
_PACKAGE_FOLDER = str(Path(__file__).parents[3])
_PROGRAM = (
    f"import sys; sys.path.append({_PACKAGE_FOLDER!r}); from bossworker.tasks.supervisor.startup import main; main()"
)


class TaskPool:
    """A directory with tasks in it: a view of it, and methods to start tasks there and to find them.

    A task in it is a directory with all that is known of it, and while its supervisor lives a socket named after the
    supervisor's pid. Whoever may read the pool's directory may look at the tasks, and whoever may write to it may
    control them, as far as the umask of who spawned them allows it, too; in a directory with the sticky bit, such as
    /tmp, everybody controls their own.

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
        does. Setting it (None: the default again) means that each supervisor is an interpreter of its own, started from
        nothing; by default they are forked from a small process that is ready for it, which is quicker and takes less
        memory.
        """
        return list(self._supervisor_cmd or [sys.executable, "-I", "-S", "-c", _PROGRAM])

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
        """The file that the stdout of the supervisor of that pid (None: this process) goes to, until it ends unused."""
        return f"{self.path}/{task_info.output_name(os.getpid() if pid is None else pid)}"

    def socket_path(self, pid: int | None = None) -> str:
        """The Unix socket that the supervisor of that pid (None: this process) listens on."""
        return f"{self.path}/{task_info.socket_name(os.getpid() if pid is None else pid)}"

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
                ``os.waitpid``. ``"background"``: a child of nobody
                here, but still of this process's process group and session: Ctrl-C and a hang-up reach it, and it ends
                its command. ``"daemon"``: in a session of its own.
            meta: Metadata, JSON values under str keys.
            retain_output: So many bytes are kept after they have been read, the rest is given up; None: all are kept.
            max_read_buf_size: Only so many of the newest bytes of each stream are kept; None: all.
            lockfile: A file that must be lockable, and is locked while the command runs or is due to be restarted.
            restart: ``"never"``, ``"on-failure"`` (exit code not 0, or a signal) or ``"always"``: when a command that
                has ended is started again by itself. One that somebody ended through the task stays ended.
            restart_limit: At most so many times; None: without end.
            restart_backoff: Seconds before the first restart; doubled with each that follows, until the command has run
                for a minute,
            restart_backoff_max: up to so many seconds.
            linger: So many seconds after the command's end the supervisor leaves, and can restart it no more; status,
                metadata and output stay, and are told from the disk. As long as something that the command has started
                lives, or has one of its streams open, the supervisor stays. None: it stays until somebody ends it.

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
            "max_read_buf_size": _optional("max_read_buf_size", max_read_buf_size),
            "lockfile": None if lockfile is None else request.check_path("lockfile", lockfile),
            "restart": restart,
            "restart_limit": _optional("restart_limit", restart_limit),
            "restart_backoff": check_seconds("restart_backoff", restart_backoff),
            "restart_backoff_max": check_seconds("restart_backoff_max", restart_backoff_max),
            "linger": None if linger is None else check_seconds("linger", linger),
        }
        job = {
            **wanted.record(),
            "cwd": wanted.cwd or os.getcwd(),
            "meta": check_size(wanted.meta),
            task_info.TASK: task,
        }
        pid, job_id = spawn_supervisor(self, job, self._environment(wanted.env))
        return self._task(pid, job_id)

    def _environment(self, env: Mapping[str, str | None]) -> list[str]:
        """What a command gets: this process's variables, the supervisor's, and its own, as ``NAME=value``."""
        merged = {**os.environ, **self._supervisor_env, **env}
        return [f"{name}={value}" for name, value in merged.items() if value is not None]

    @property
    def forks_supervisors(self) -> bool:
        """Whether supervisors are what they are by default, and so need not be started from nothing."""
        return self._supervisor_cmd is None and self._supervisor_env == self._default_env()

    # -- finding tasks ----------------------------------------------------------------------------------

    def search(self, pattern: Pattern = None) -> list[Task]:
        """The tasks whose info matches, the oldest first.

        Those whose supervisors have ended are among them, as long as their files are there: their info says
        ``{"supervisor": {"running": False}}``. What other users do not let us see is not. Sockets of dead supervisors
        are cleared away on the occasion.

        Args:
            pattern: A nested mapping, whose keys must all be in the info, at every depth, with these values; or a
                predicate on the info, whose errors count as no match; None: all tasks. See `Task.info`.
        """
        matches = matcher(pattern)
        records = [TaskRecord(self.path, job_id) for job_id in self.job_ids()]
        found = [(pid, record) for record in records if (pid := record.supervisor()) is not None]
        self._clear_dead_sockets({pid for pid, record in found if record.supervised()})
        return [self._task(pid, job_id) for pid, job_id, info in describe_all(self, found) if matches(info)]

    def task_by_pid(self, pid: int) -> Task | None:
        """The task of a supervisor's pid, if that is a supervisor and listens on its socket; None otherwise."""
        if isinstance(pid, int) and pid < 0:
            return None
        found = Task(self, check_count("pid", pid))
        with suppress(TaskGone, TaskRefused, OSError):
            found.connect()
            return self._task(pid, found.id)
        return None

    def job_ids(self) -> list[str]:
        """The names of the tasks' directories, the oldest first."""
        return sorted(name for name in os.listdir(self.path) if roots.is_id(name))

    def _task(self, pid: int, job_id: str) -> Task:
        task = self.task_class(self, pid)
        if isinstance(task, Task):
            task.belong_to(job_id)
        return task

    # -- sockets ----------------------------------------------------------------------------------------

    def connect(self, pid: int) -> ControlConnection:
        """A connection to the supervisor of a pid. TaskGone when there is none; a dead one's socket is cleared away."""
        try:
            return ControlConnection(self.path, task_info.socket_name(pid), pid)
        except ConnectionRefusedError as error:
            self.clear_socket(pid)
            raise TaskGone(f"the supervisor {pid} of {self.path} is dead") from error
        except FileNotFoundError as error:
            raise TaskGone(f"no supervisor {pid} in {self.path}") from error
        except OSError as error:
            raise TaskGone(f"the supervisor {pid} of {self.path} cannot be reached: {error}") from error

    def clear_output(self, pid: int) -> None:
        """Remove what the supervisor of a pid has said, unless another one has that pid by now."""
        if not os.path.lexists(self.socket_path(pid)):
            with suppress(FileNotFoundError, PermissionError):
                os.unlink(self.output_path(pid))

    def clear_socket(self, pid: int) -> None:
        """Remove the socket of a pid if nobody listens on it any more."""
        with suppress(OSError):
            held = lock_pool(self.path, 0.0)
            if held is None:  # somebody else is at it
                return
            try:
                self._clear(pid)
            finally:
                os.close(held)

    def _clear(self, pid: int) -> None:
        try:
            ControlConnection(self.path, task_info.socket_name(pid), pid).close()
            return
        except ConnectionRefusedError:
            os.unlink(self.socket_path(pid))
        except FileNotFoundError:
            pass
        if identity.start_time(pid) is None:  # nor is it one that is being born
            for path in (f"{self.path}/.{task_info.socket_name(pid)}", self.output_path(pid)):
                with suppress(FileNotFoundError):
                    if not os.path.getsize(path):  # otherwise it may say why it died
                        os.unlink(path)

    def _clear_dead_sockets(self, living: set[int]) -> None:
        for name in os.listdir(self.path):
            match = _OF_A_SUPERVISOR.fullmatch(name)
            if match and int(match[1]) not in living:
                self.clear_socket(int(match[1]))


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

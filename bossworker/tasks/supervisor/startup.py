"""How a supervisor comes to be: from what `TaskPool.spawn` asks to a command that runs under it.

It comes from the launcher, or from the pool's `supervisor_cmd`. That gets the request on its stdin, which is a socket,
and answers there; see `main`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from bossworker.commands import jobdir, safe_files
from bossworker.commands.supervision.supervisor import Order
from bossworker.system import descendants, identity
from bossworker.system.cpython import dumps, loads, signal, socket
from bossworker.system.eventloop import Loop
from bossworker.tasks.supervisor.clients import Service
from bossworker.tasks.supervisor.requests import Requests
from bossworker.tasks.supervisor.task_supervisor import TASK_FD, TaskSupervisor
from bossworker.tasks.wire import socket_paths, task_info
from bossworker.tasks.wire.lockfile import LockFile, LockHeld
from bossworker.tasks.wire.task_info import PATHS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BACKLOG = 1024  # connections that wait to be accepted, while the supervisor does something else
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
_SURVIVED = (signal.SIGUSR1, signal.SIGUSR2)


def main() -> None:
    """A program that becomes a supervisor: the request on stdin, to its end, as JSON; the answer there as well."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the spawner may block SIGCHLD, and we would never hear it
    reply = os.dup(0)
    request = loads(safe_files.read_all(0).decode())
    if request["behavior"] != "foreground" and os.fork():
        os._exit(0)
    if request["behavior"] == "daemon":
        descendants.mark_detached(descendants.TASK)
    os._exit(supervise(request, reply))


def supervise_task(data: bytes, reply: int) -> int:
    """What the launcher calls in its child: see a task through; the exit code."""
    request = loads(data.decode())
    if request["behavior"] == "daemon":
        descendants.mark_detached(descendants.TASK)
    return supervise(request, reply)


def supervise(request: dict[str, Any], reply: int) -> int:
    """Be the supervisor, to the end; the exit code. `reply` is where the answer goes, and is closed then."""
    reply = reserve_number(TASK_FD, reply)
    try:
        startup = _Startup(request)
        answer = startup.start()
    except OSError as error:
        number, path = error.errno or errno.EIO, error.filename
        answer = {"error": error.strerror or str(error), "errno": number, "path": path and os.fsdecode(path)}
    except Exception as error:  # a fault of ours: whoever asked has to hear of it
        answer = {"error": f"the supervisor failed: {type(error).__name__}: {error}"}
    try:
        os.write(reply, dumps(answer).encode())
    except OSError:  # whoever asked is dead; what was asked is done all the same
        pass
    os.close(reply)
    if "error" in answer:
        return 1
    startup.supervisor.run()
    startup.clear_away()
    return 0


class _Startup:
    """What has to be there before the command can run, in this order; and taken away again if it cannot."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.loop = Loop()
        # First: a signal that a service manager sends to all must not end us between here and the first status.
        self._outlive_signals()
        self.pool = os.fsdecode(request["pool"].encode(PATHS))
        self.pool_fd = os.open(self.pool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self.pid = os.getpid()
        lockfile = request["lockfile"]
        self.lock = None if lockfile is None else LockFile(os.fsdecode(lockfile.encode(PATHS)))
        self.access, self.socket_access = accesses(os.fstat(self.pool_fd).st_mode, request["umask"])
        os.umask(0o777 & ~self.access)
        if request["behavior"] != "foreground":
            shed()

    def _outlive_signals(self) -> None:
        """From here on, a signal that is sent to all (by systemd, docker, pkill) does not keep us from telling the end.

        They are handled, not ignored: the command would inherit that a signal is ignored.
        """
        for number in _ENDING:
            signal.signal(number, self._on_signal)
        for number in _SURVIVED:
            signal.signal(number, lambda number, frame: None)

    def _on_signal(self, number: int, frame: object) -> None:
        # Not here: the handler may have interrupted anything, the start of the command for instance. The loop does it
        # between two calls, once there is a supervisor.
        self.loop.soon(lambda: self.supervisor.told_to_end(number))

    def start(self) -> dict[str, Any]:
        """Start the command; the answer for whoever asked for it."""
        try:
            if self.lock is not None:
                # Before the directory is made, and before anything runs: of two tasks with one lock file, one gets
                # here.
                self.lock.acquire()
            self.supervisor = self._prepare()
            self.supervisor.begin()
        except LockHeld as error:
            return {"error": str(error), "holder": error.pid}
        except BaseException:
            self._remove_all()
            raise
        failure = self.supervisor.failure
        if failure is not None:
            self._remove_all()
            return {"error": failure.reason, "exit_code": failure.exit_code}
        return {"pid": self.pid, "id": self.supervisor.directory.id}

    def _prepare(self) -> TaskSupervisor:
        request = self.request
        job = {**request["job"], "supervisor": identity.own()}
        self.directory, streams = jobdir.create_at(self.pool_fd, self.pool, job, self.access, request["id"])
        for fd in streams:  # ours are written to by offset, not appended to
            os.close(fd)
        if request["behavior"] != "foreground":
            speak_to(self._path(task_info.output_name))
        supervisor = TaskSupervisor(self.directory, self._order(), self.loop, job, self.lock)
        supervisor.remove_files = self._remove_all
        requests = Requests(supervisor)
        supervisor.events.service = Service(self.loop, self._listen(), requests.serve, supervisor.streams.forget)
        return supervisor

    def _order(self) -> Order:
        request = self.request
        own = {
            "BOSSWORKER_TASKS": request["pool"],
            "BOSSWORKER_TASK_ID": self.directory.id,
            "BOSSWORKER_TASK_PID": str(self.pid),
            "BOSSWORKER_TASK_FD": str(TASK_FD),
        }
        given = dict(one.split("=", 1) for one in request["environment"])  # by a task, perhaps: with that one's names
        environment = [f"{name}={value}".encode(PATHS) for name, value in {**given, **own}.items()]
        argv = [arg.encode(PATHS) for arg in request["argv"]]
        cwd = request["cwd"].encode(PATHS)
        grace = request["job"][task_info.TASK]["grace"]
        return Order(argv, environment, cwd, (-1, -1, -1), umask=request["umask"], grace=grace, outlives_us=False)

    def _listen(self) -> socket.socket:
        """The socket, with the mode that it is to have from its first moment on.

        To change the mode by its path would be too late: whoever may write to the pool could have put a link there.
        """
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            os.fchmod(listener.fileno(), self.socket_access)  # Linux: also where the pool has a default ACL
        except OSError:
            pass
        before = os.umask(0o777 & ~self.socket_access)
        try:
            socket_paths.bind(listener, self.pool, task_info.socket_name(self.directory.id))
        finally:
            os.umask(before)
        listener.listen(BACKLOG)
        return listener

    def clear_away(self) -> None:
        """Before the supervisor ends: from here on, nobody can reach it."""
        _unlink(self._path(task_info.socket_name))
        if self.supervisor.events.service is not None:
            self.supervisor.events.service.close()
        self._remove_output(if_empty=True)

    def _remove_all(self) -> None:
        if hasattr(self, "directory"):
            from bossworker.commands import removal  # memory that other supervisors do without

            _unlink(self._path(task_info.socket_name))
            self._remove_output()
            try:
                removal.discard(self.pool_fd, self.directory.id)
            except OSError:  # something of another user's is in it: whoever asked sees that it is still there
                pass

    def _remove_output(self, if_empty: bool = False) -> None:
        """The file that our own stdout goes to; with `if_empty`, only if we have had nothing to say."""
        if self.request["behavior"] != "foreground" and not (if_empty and os.fstat(1).st_size):
            _unlink(self._path(task_info.output_name))

    def _path(self, name: Callable[[str], str]) -> str:
        return f"{self.pool}/{name(self.directory.id)}"


def reserve_number(number: int, other: int) -> int:
    """Occupy the descriptor of this number with /dev/null; the other one, moved to a higher number."""
    moved = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, number + 1)
    os.close(other)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null != number:
        os.dup2(null, number, inheritable=False)
        os.close(null)
    return moved


def shed() -> None:
    """Let go of what was the spawner's: its folder, and its stdin, stdout and stderr."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    if null > 2:
        os.close(null)


def speak_to(output: str) -> None:
    """Have stdout and stderr go to a new file, whatever somebody may have put in its place."""
    _unlink(output)
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o666)
    for fd in (1, 2):
        os.dup2(out, fd)
    os.close(out)


def accesses(pool: int, umask: int) -> tuple[int, int]:
    """The modes of a task's directory and socket, by the pool directory's mode and the spawner's umask.

    A task is as open as both allow: whoever may read the pool may read the task, and whoever may write to the pool may
    use the task's socket. In a directory with the sticky bit, only a task's owner may use its socket.
    """
    directory, control = 0o700, 0o600
    for shift in (3, 0):
        granted = (pool & ~umask) >> shift & 7
        if granted & 4:
            directory |= 5 << shift
        if granted & 6 == 6 and not pool & stat.S_ISVTX:
            control |= 6 << shift
    return directory, control


def _unlink(path: str) -> None:
    try:
        os.unlink(path)
    except OSError:
        pass

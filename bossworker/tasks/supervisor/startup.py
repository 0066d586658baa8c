"""How a supervisor comes to be: from what `TaskPool.spawn` asks to a command that runs under it.

It comes from the launcher, or from the pool's `supervisor_cmd`. That gets the request on its stdin, which is a socket,
and answers there; see `main`.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat

from bossworker.commands import jobdir
from bossworker.commands.supervision.supervisor import Order
from bossworker.system import descendants
from bossworker.system.cpython import dumps, loads, signal, socket
from bossworker.system.eventloop import Loop
from bossworker.tasks.supervisor.clients import Service
from bossworker.tasks.supervisor.requests import Requests
from bossworker.tasks.supervisor.task_supervisor import TASK_FD, TaskSupervisor
from bossworker.tasks.wire import socket_paths, task_info
from bossworker.tasks.wire.lockfile import LockFile, LockHeld, lock_pool

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

BACKLOG = 1024  # connections that wait to be accepted, while the supervisor does something else
LOCK_SECONDS = 1.0  # for others to be done with the pool's sockets; whoever holds on for longer is not waited for
_ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def main() -> None:
    """A program that becomes a supervisor: the request on stdin, to its end, as JSON; the answer there as well."""
    signal.pthread_sigmask(signal.SIG_SETMASK, ())  # the spawner may block SIGCHLD, and we would never hear it
    reply = os.dup(0)
    request = loads(jobdir.read_all(0).decode())
    if request["behavior"] != "foreground" and os.fork():
        os._exit(0)
    if request["behavior"] == "daemon":
        descendants.mark_detached(descendants.TASK)
    os._exit(supervise(request, reply))


def forked(data: bytes, reply: int) -> int:
    """A child of the launcher that is to become a supervisor; the exit code."""
    request = loads(data.decode())
    if request["behavior"] == "daemon":
        descendants.mark_detached(descendants.TASK)
    return supervise(request, reply)


def supervise(request: dict[str, Any], reply: int) -> int:
    """Be the supervisor, to the end; the exit code. `reply` is where the answer goes, and is closed then."""
    reply = keep_number_free(TASK_FD, reply)
    try:
        birth = _Birth(request)
        answer = birth.start()
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
    birth.supervisor.run()
    birth.farewell()
    return 0


class _Birth:
    """What has to be there before the command can run, in this order; and taken away again if it cannot."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.request = request
        self.pool: str = request["pool"]
        self.pid = os.getpid()
        self.loop = Loop()
        self.lock = (
            LockFile(request["job"][task_info.TASK]["lockfile"]) if request["job"][task_info.TASK]["lockfile"] else None
        )
        self.access, self.socket_access = accesses(os.stat(self.pool).st_mode, request["umask"])
        os.umask(0o777 & ~self.access)
        if request["behavior"] != "foreground":
            shed(f"{self.pool}/{task_info.output_name(self.pid)}")

    def start(self) -> dict[str, Any]:
        """Start the command; the answer for whoever asked for it."""
        try:
            if self.lock is not None:
                self.lock.acquire()
            self.supervisor = self._prepare()
            self.supervisor.begin()
        except LockHeld as error:
            self._remove_output()
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
        self.directory, streams = jobdir.create(self.pool, request["job"], self.access, request["id"])
        for fd in streams:  # ours are written to by offset, not appended to
            os.close(fd)
        supervisor = TaskSupervisor(self.directory, self._order(), self.loop, request["job"], self.lock)
        supervisor.remove_files = self._remove_all
        requests = Requests(supervisor)
        supervisor.service = Service(self.loop, self._listen(), requests.serve, supervisor.plumbing.forget)
        for number in _ENDING:
            signal.signal(number, lambda number, frame: self.loop.after(0.0, self._told_to_end))
        return supervisor

    def _order(self) -> Order:
        request = self.request
        own = {
            "BOSSWORKER_TASKS": self.pool,
            "BOSSWORKER_TASK_ID": self.directory.id,
            "BOSSWORKER_TASK_PID": str(self.pid),
            "BOSSWORKER_TASK_FD": str(TASK_FD),
        }
        given = dict(one.split("=", 1) for one in request["environment"])  # by a task, perhaps: with that one's names
        environment = [os.fsencode(f"{name}={value}") for name, value in {**given, **own}.items()]
        argv = [os.fsencode(arg) for arg in request["job"]["argv"]]
        cwd = os.fsencode(request["job"]["cwd"])
        return Order(argv, environment, cwd, (-1, -1, -1), umask=request["umask"], parting=False)

    def _listen(self) -> socket.socket:
        """A socket under a hidden name, which gets its own when connections to it are not refused any more."""
        name, hidden = task_info.socket_name(self.pid), f".{task_info.socket_name(self.pid)}"
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        _unlink(f"{self.pool}/{hidden}")  # of one that had our pid
        socket_paths.bind(listener, self.pool, hidden)
        os.chmod(f"{self.pool}/{hidden}", self.socket_access)
        listener.listen(BACKLOG)
        with_pool = lock_pool(self.pool, LOCK_SECONDS)
        os.rename(f"{self.pool}/{hidden}", f"{self.pool}/{name}")
        if with_pool is not None:
            os.close(with_pool)
        return listener

    def _told_to_end(self) -> None:
        self.supervisor.leave(lambda: None)

    def farewell(self) -> None:
        """The supervisor is about to end: nobody can reach it any more."""
        _unlink(f"{self.pool}/{task_info.socket_name(self.pid)}")
        if self.supervisor.service is not None:
            self.supervisor.service.close()
        self._remove_output(if_empty=True)

    def _remove_all(self) -> None:
        for name in (task_info.socket_name(self.pid), f".{task_info.socket_name(self.pid)}"):
            _unlink(f"{self.pool}/{name}")
        self._remove_output()
        if hasattr(self, "directory"):
            jobdir.remove_tree(self.directory.path)

    def _remove_output(self, if_empty: bool = False) -> None:
        """The file that our own stdout goes to; with `if_empty`, only if we have had nothing to say."""
        path = f"{self.pool}/{task_info.output_name(self.pid)}"
        if self.request["behavior"] != "foreground" and not (if_empty and os.path.getsize(path)):
            _unlink(path)


def keep_number_free(number: int, other: int) -> int:
    """Make sure that a descriptor of this number is no use to us; what becomes of the other one, which is."""
    moved = fcntl.fcntl(other, fcntl.F_DUPFD_CLOEXEC, number + 1)
    os.close(other)
    null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    if null != number:
        os.dup2(null, number, inheritable=False)
        os.close(null)
    return moved


def shed(output: str) -> None:
    """Let go of what was the spawner's: its folder, and its stdin, stdout and stderr."""
    os.chdir("/")
    null = os.open(os.devnull, os.O_RDONLY)
    _unlink(output)  # of one that had our pid; or a trap, in a directory that all may write to
    out = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o666)
    for fd, ours in ((0, null), (1, out), (2, out)):
        os.dup2(ours, fd)
    for fd in (null, out):
        if fd > 2:
            os.close(fd)


def accesses(pool: int, umask: int) -> tuple[int, int]:
    """The modes of a task's directory and socket, by the pool directory's mode and the spawner's umask.

    A task is as open as both allow: who may read the pool may read the task, and who may write to the pool may use
    the task's socket. In a directory with the sticky bit everybody's tasks are their own.
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

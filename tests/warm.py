"""Python programs without what it takes to start Python: each is forked from a process that has loaded what it imports.

`Popen` and `run` are those of `subprocess`, for commands that begin with ``sys.executable``. A program is a child of
this process, as any other, with an argv, an environment, a folder, an import path, streams and a ``__main__`` of its
own; it ends as Python does, and no frame but its own is in its tracebacks. But nothing is executed: where a test is
about what a program inherits (limits, signals, descriptors, titles) or loads, or how much memory it takes, it needs
`subprocess`. So do commands for which this cannot work: they go there by themselves.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from subprocess import DEVNULL, PIPE
from typing import Any, NamedTuple

__all__ = ["DEVNULL", "PIPE", "Popen", "run"]

PROJECT = Path(__file__).parents[1]
READ_AT_START = ("PYTHON", "LD_", "LC_", "LANG", "MALLOC_", "GLIBC_", "BOSSWORKER_PURE", "TZ")  # of variables' names
READ_LATER = ("PYTHONPATH", "PYTHONIOENCODING", "PYTHONUNBUFFERED")
LOADED = {
    "tests.": ("tests.conftest",),
    "bossworker.pool.door.": ("bossworker.pool.door.door_server", "bossworker.pool.door.porter"),
    "bossworker.journal.": ("bossworker.journal.scribe_process",),
    "bossworker.web.": ("bossworker.web.page_process", "bossworker.web.serving", "uvicorn", "starlette.applications"),
    "distributed.": ("distributed",),
}
"""What a program needs beside the package, if this is in its text, or first among its arguments."""

OFTEN = ((), ("-W", "error"), ("-S", "-E"))  # options that are worth a process
FLAGS = {"-W": 2, "-S": 1, "-E": 1}  # what there can be a process for, with the number of words


class Command(NamedTuple):
    """A command line of Python's, taken apart."""

    options: tuple[str, ...]
    kind: str  # "-c", "-m", or "" for a file
    program: str
    args: list[str]


def taken_apart(command: list[str]) -> Command | None:
    """None: it is another program, or Python with options that only a start can heed."""
    if command[0] != sys.executable:
        return None
    at = 1
    while command[at : at + 1] and command[at] in FLAGS:
        at += FLAGS[command[at]]
    kind = command[at] if command[at : at + 1] in (["-c"], ["-m"]) else ""
    rest = command[at + bool(kind) :]
    if not rest or (not kind and (rest[0].startswith("-") or not os.path.isfile(rest[0]))):
        return None
    return Command(tuple(command[1:at]), kind, rest[0], rest[1:])


class Origin:
    """The process that programs with the same options are forked from."""

    def __init__(self, options: tuple[str, ...], loaded: tuple[str, ...]) -> None:
        self.lock, self.count = threading.Lock(), 0
        self.socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        libraries = [str(PROJECT), *(path for path in sys.path if path and path != str(PROJECT))]
        code = (
            f"import sys; own = sys.path[1:]; sys.path[:] = {libraries}\n"
            f"from tests.warm_origin import serve; serve({theirs.fileno()}, own, {loaded})"
        )
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, *options, "-c", code],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, pass_fds=[theirs.fileno()], env=self.environment,
            )  # fmt: skip

    def suits(self, environment: dict[str, str]) -> bool:
        """Whether it has been started with the same of what Python, and libc, read when they start."""
        names = {*environment, *self.environment} - {*READ_LATER}
        return all(
            environment.get(name) == self.environment.get(name) for name in names if name.startswith(READ_AT_START)
        )

    def start(self, request: dict[str, Any], fds: list[int]) -> int:
        """The pid of a program; it gets these descriptors, the first three of them as its streams."""
        with self.lock:
            self.count += 1
            socket.send_fds(self.socket, [json.dumps({**request, "count": self.count}).encode()], fds)
            while True:
                count, pid = map(int, self.socket.recv(64).split())
                if count == self.count:  # a signal handler may have raised where an earlier answer was awaited
                    break
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)  # an error, if it is not our child
        return pid

    def end(self) -> None:
        self.socket.close()
        self.process.kill()
        self.process.wait()


origins: dict[tuple[tuple[str, ...], tuple[str, ...]], Origin] = {}
enabled = 0  # the process whose programs are started so: one that runs tests, and adopts orphans


def enable() -> None:
    global enabled
    enabled = os.getpid()


def end() -> None:
    """No process is left that programs are forked from; the next program starts one."""
    while origins:
        origins.popitem()[1].end()


def pids() -> set[int]:
    """The processes that programs are forked from."""
    return {origin.process.pid for origin in origins.values()}


def descriptors() -> set[int]:
    """The links to them."""
    return {origin.socket.fileno() for origin in origins.values()}


class Popen(subprocess.Popen[Any]):
    """See the module."""

    def _execute_child(
        self, args: Any, executable: Any, preexec_fn: Any, close_fds: bool, pass_fds: Any, cwd: Any, env: Any,
        startupinfo: Any, creationflags: int, shell: bool, p2cread: int, p2cwrite: int, c2pread: int, c2pwrite: int,
        errread: int, errwrite: int, restore_signals: bool, gid: Any, gids: Any, uid: Any, umask: int,
        start_new_session: bool, process_group: Any,
    ) -> None:  # fmt: skip
        pipes = (p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)
        environment = dict(os.environ if env is None else env)
        command = [] if isinstance(args, (str, bytes)) else [os.fsdecode(one) for one in args]
        parts = taken_apart(command) if command else None
        unusual = preexec_fn or executable or shell or not close_fds or umask != -1 or gid or uid or gids
        origin = None if parts is None or unusual or sys.platform != "linux" else _origin(parts, environment)
        if parts is None or origin is None:
            super()._execute_child(  # type: ignore[misc]
                args, executable, preexec_fn, close_fds, pass_fds, cwd, env, startupinfo, creationflags, shell, *pipes,
                restore_signals, gid, gids, uid, umask, start_new_session, process_group,
            )  # fmt: skip
            return
        request = {
            "command": command,
            "kind": parts.kind,
            "program": parts.program,
            "args": parts.args,
            "environment": environment,
            "folder": os.path.abspath(cwd or os.getcwd()),
            "session": start_new_session,
            "group": process_group,
            "numbers": [0, 1, 2, *pass_fds],
        }
        streams = [own if own != -1 else number for number, own in enumerate((p2cread, c2pwrite, errwrite))]
        try:
            self.pid = origin.start(request, [*streams, *pass_fds])
            self._child_created = True
        finally:
            self._close_pipe_fds(*pipes)  # type: ignore[attr-defined]


def _origin(parts: Command, environment: dict[str, str]) -> Origin | None:
    """The one for such a program, if there can be one."""
    if enabled != os.getpid() or parts.options not in OFTEN:
        return None
    text = " ".join((parts.program, *parts.args[:2]))
    key = parts.options, tuple(module for word, modules in LOADED.items() if word in text for module in modules)
    if key not in origins:
        origins[key] = Origin(*key)
    return origins[key] if origins[key].suits(environment) else None


def run(
    command: Sequence[str | Path],
    *,
    timeout: float | None = None,
    check: bool = False,
    input: Any = None,
    **settings: Any,
) -> subprocess.CompletedProcess[Any]:
    """As `subprocess.run`."""
    if settings.pop("capture_output", False):
        settings |= {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    if input is not None:
        settings["stdin"] = subprocess.PIPE
    with Popen([str(part) for part in command], **settings) as process:
        try:
            stdout, stderr = process.communicate(input, timeout=timeout)
        except BaseException:
            process.kill()
            raise
    done = subprocess.CompletedProcess(process.args, process.returncode, stdout, stderr)
    if check:
        done.check_returncode()
    return done

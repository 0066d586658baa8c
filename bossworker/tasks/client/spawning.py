"""The spawner's side of a supervisor's birth: the request is handed over, and the answer waited for."""

from __future__ import annotations

import os
import select
import socket
import subprocess
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from bossworker.commands import jobdir
from bossworker.commands.supervision import orders
from bossworker.commands.supervision.launching import ATTEMPTS, ask, current_umask, launcher_for
from bossworker.system import processes
from bossworker.system.cpython import NO_SIGPIPE, dumps, loads
from bossworker.tasks.errors import TaskError, TaskLocked, TaskNotStarted

if TYPE_CHECKING:
    from bossworker.tasks.client.task_pool import TaskPool

ANSWER_SECONDS = 60.0  # for a supervisor to say whether its command runs; a machine may be slow
_ANSWER_SIZE = 1 << 16  # bytes
SUPERVISOR = "bossworker.tasks.supervisor.startup:forked"  # what the launcher runs


def spawn_supervisor(pool: TaskPool, job: dict[str, Any], environment: list[str]) -> tuple[int, str]:
    """Have a supervisor start a command; its pid and the id of the task. See `TaskPool.spawn` for what is raised."""
    behavior, task_id = job["task"]["behavior"], jobdir.new_id()
    request = {
        "pool": pool.path,
        "id": task_id,
        "job": job,
        "environment": environment,
        "umask": current_umask(),
        "behavior": behavior,
    }
    data = dumps(request).encode()
    if behavior == "foreground" or not pool.forks_supervisors:
        told = _start_program(pool, data, behavior)
    else:
        told = _have_forked(data, behavior == "daemon", f"{pool.path}/{task_id}")
    answer = loads(told.decode()) if told else {"error": "the supervisor ended before it had started the command"}
    if "error" not in answer:
        return int(answer["pid"]), str(answer["id"])
    raise _failure(answer)


def _failure(answer: dict[str, Any]) -> Exception:
    text = str(answer["error"])
    if "holder" in answer:
        return TaskLocked(text, answer["holder"])
    if "exit_code" in answer:
        return TaskNotStarted(text, answer["exit_code"])
    if "errno" in answer:
        return OSError(answer["errno"], text, answer["path"])
    return TaskError(text)


def _have_forked(data: bytes, detached: bool, folder: str) -> bytes:
    """Have the launcher fork a supervisor. If it was killed before it could, another one has to: see `detach.start`."""
    for _ in range(ATTEMPTS):
        told = ask(launcher_for(detached), orders.encode(SUPERVISOR, data), [])
        if told or os.path.isdir(folder):
            return told
    return b""


def _start_program(pool: TaskPool, data: bytes, behavior: str) -> bytes:
    """Run the pool's supervisor program: request and answer over its stdin."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        environment = {**os.environ, **pool.supervisor_env}
        started = subprocess.Popen(pool.supervisor_cmd, stdin=theirs.fileno(), env=environment)
        theirs.close()
        ours.settimeout(ANSWER_SECONDS)
        with suppress(OSError):  # it does not read, or has ended: no answer will come
            ours.sendall(data, NO_SIGPIPE)
            ours.shutdown(socket.SHUT_WR)
        told = _await_answer(ours)
    if not told:
        started.kill()  # unless it has ended
    if behavior != "foreground" or not told or b'"error"' in told:
        started.wait()
    else:
        started.returncode = 0  # the caller's child, to be waited for by its pid if the caller likes
    return told


def _await_answer(sock: socket.socket) -> bytes:
    if not processes.await_fd(sock.fileno(), select.POLLIN | select.POLLHUP, ANSWER_SECONDS):
        return b""
    try:
        return sock.recv(_ANSWER_SIZE)
    except ConnectionError:
        return b""

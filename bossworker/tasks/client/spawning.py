"""The spawner's side of a supervisor's startup: it hands the request over, and waits for the answer."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import time
from contextlib import suppress
from typing import Any, NamedTuple

from bossworker.commands import jobdir
from bossworker.commands.supervision import orders
from bossworker.commands.supervision.launching import ATTEMPTS, ask, current_umask, launcher_for
from bossworker.system import identity, processes
from bossworker.system.cpython import NO_SIGPIPE, dumps, loads
from bossworker.tasks.client.task_record import TaskRecord
from bossworker.tasks.errors import TaskError, TaskLocked, TaskNotStarted
from bossworker.tasks.wire import task_info
from bossworker.tasks.wire.task_info import PATHS

LOOK_SECONDS = 0.01  # between looks at the directory where there is no answer
ANSWER_SECONDS = 60.0  # for a supervisor to say whether its command runs; a machine may be slow
_ANSWER_SIZE = 1 << 16  # bytes
SUPERVISOR = "bossworker.tasks.supervisor.startup:supervise_task"  # what the launcher runs


class Program(NamedTuple):
    """A program that becomes a supervisor: its argv and environment."""

    argv: list[str]
    environment: dict[str, str]


def spawn_supervisor(
    pool: str, job: dict[str, Any], environment: list[str], program: Program | None
) -> tuple[int, str]:
    """Have a supervisor start a command; its pid and the id of the task. See `TaskPool.spawn` for what is raised.

    Args:
        program: Becomes the supervisor; None: it is forked.
    """
    behavior, task_id = job[task_info.TASK]["behavior"], jobdir.new_id()
    lockfile = job[task_info.TASK]["lockfile"]
    request = {
        "pool": _carried(pool),
        "id": task_id,
        "job": job,
        "argv": [_carried(arg) for arg in job["argv"]],
        "cwd": _carried(job["cwd"]),
        "environment": [_carried(variable) for variable in environment],
        "lockfile": lockfile and _carried(lockfile),
        "umask": current_umask(),
        "behavior": behavior,
    }
    data, record = dumps(request).encode(), TaskRecord(pool, task_id)
    if program is None:
        told = _have_forked(data, behavior == "daemon", record)
    else:
        told = _start_program(program, data, behavior)
    answer = loads(told.decode()) if told else _find_out(record)
    if "error" not in answer:
        return int(answer["pid"]), str(answer["id"])
    raise _failure(answer)


def _carried(text: str) -> str:
    """The bytes that a text means to the operating system, as JSON carries them.

    They are made of it here. The supervisor is another interpreter, and may use another encoding.
    """
    return os.fsencode(text).decode(PATHS)


def _failure(answer: dict[str, Any]) -> Exception:
    text = str(answer["error"])
    if "holder" in answer:
        return TaskLocked(text, answer["holder"])
    if "exit_code" in answer:
        return TaskNotStarted(text, answer["exit_code"])
    if "errno" in answer:
        return OSError(answer["errno"], text, answer["path"])
    return TaskError(text)


def _find_out(record: TaskRecord) -> dict[str, Any]:
    """What there is no answer about: the launcher was killed, or a program ended. The task's directory tells of it."""
    deadline = time.monotonic() + ANSWER_SECONDS
    while time.monotonic() < deadline:
        facts = record.facts()
        if facts.status.get("state", jobdir.CREATED) != jobdir.CREATED:
            return {"pid": facts.pid or 0, "id": record.id}
        if not facts.status or facts.sight == identity.GONE:
            return {"error": "the supervisor ended before it had started the command"}
        time.sleep(LOOK_SECONDS)
    return {"error": f"the supervisor of task {record.id} has not said in {ANSWER_SECONDS} s whether its command runs"}


def _have_forked(data: bytes, detached: bool, record: TaskRecord) -> bytes:
    """Have the launcher fork a supervisor. If it is killed before, another one has to: see `launching.start`."""
    for _ in range(ATTEMPTS):
        told = ask(launcher_for(detached), orders.encode(SUPERVISOR, data), [])
        if told or os.path.isdir(record.folder):
            return told
    return b""


def _start_program(program: Program, data: bytes, behavior: str) -> bytes:
    """Run a program that becomes a supervisor: request and answer over its stdin."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        started = subprocess.Popen(program.argv, stdin=theirs.fileno(), env=program.environment)
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

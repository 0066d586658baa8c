"""The end of what a killed supervisor left: whoever meets it ends it, since nobody else is left to do so.

The kernel ends the command itself together with its supervisor (on Linux). What the command had started is known by two
marks that it inherits: the task's id in its environment, and the session that the command led.

What is on record was written by the owner of the task's directory, which may be any user in a pool that users share. So
only processes of that user are ended, whoever looks.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import Any

from bossworker.system import descendants, identity
from bossworker.system.cpython import signal

TASK_ID = "BOSSWORKER_TASK_ID"
_SECONDS = 2.0  # after SIGKILL, for all to be gone
_PAUSE = 0.005  # seconds


def end_leftovers(job_id: str, status: dict[str, Any], owner: int) -> None:
    """SIGKILL all of the owner's processes that are left of a task, as far as we may, and wait until they are gone."""
    command = status.get("command")
    if identity.holds(command) and _is_of(owner, int(command[0])):
        identity.send(command, signal.SIGKILL, group=True)  # all that can be found where there is no /proc
    deadline = time.monotonic() + _SECONDS
    # One that is listed may start another before it is killed: so all are looked for until none is found.
    while _kill_all(job_id, command, owner) and time.monotonic() < deadline:
        time.sleep(_PAUSE)


def _kill_all(job_id: str, command: Any, owner: int) -> bool:
    mark = f"{TASK_ID}={job_id}".encode()
    session = _session(command)
    killed = False
    for pid in _pids():
        who = identity.of(pid)
        # The pid may be another process's by the time that it is signalled: so it is signalled by its identity, which
        # includes when it was started.
        if who is None or not identity.holds(who) or not _is_of(owner, pid) or descendants.is_detached(pid):
            continue
        if _belongs(pid, mark, session):
            killed |= identity.send(who, signal.SIGKILL)
    return killed


def _session(command: Any) -> int | None:
    """The session that the command led; None when its number means another one by now."""
    match command:
        case [int(pid), _, str(boot), *_] if boot == identity.boot_id():
            return pid if identity.start_time(pid) is None or identity.holds(command) else None
    return None


def _is_of(user: int, pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}").st_uid == user
    except OSError:  # gone; or there is no /proc
        return user == os.geteuid()


def _belongs(pid: int, mark: bytes, session: int | None) -> bool:
    with suppress(OSError):
        if session is not None and os.getsid(pid) == session:
            return True
        with open(f"/proc/{pid}/environ", "rb") as file:
            return mark in file.read().split(b"\0")
    return False


def _pids() -> list[int]:
    with suppress(OSError):
        return [int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid()]
    return []

"""What is told of a task: from the facts to the nested, JSON-able mapping that `Task.info` returns.

A living supervisor and a reader of what a dead one left both make it here, so that they say the same.
"""

from __future__ import annotations

import os

from bossworker.commands import jobdir
from bossworker.system.cpython import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TASK, META = "task", "meta.json"
"""Where a task's own facts are: a key of job.json and of status.json; and a file for metadata that came later."""
_NAME_DIGITS = 12  # hexadecimal: 48 bits
PATHS = "latin-1"
"""In which the JSON of a request carries the bytes of paths, arguments and variables, whatever the locales are."""


def info(
    job_id: str,
    job: dict[str, Any],
    status: dict[str, Any],
    meta: dict[str, Any],
    streams: dict[str, Any],
    *,
    alive: bool | None,
    clients: int = 0,
    paused: bool = False,
    usage: dict[str, Any] | None = None,
    trouble: list[str] | None = None,
) -> dict[str, Any]:
    """The whole account.

    Args:
        job: What job.json says.
        status: What status.json says, or will.
        alive: Whether the supervisor is; None when that cannot be seen from here.
        usage: What the command has used so far; None: what the status says.
        trouble: What the supervisor cannot do at present.
    """
    asked, own = facts(job), facts(status)
    argv = job.get("argv") or [None]
    command = argv[-1] if job.get("shell") and isinstance(argv, list) else argv
    state = status.get("state", jobdir.UNKNOWN)
    running = None if alive is None and state == jobdir.UNKNOWN else state == jobdir.RUNNING
    return {
        "id": job_id,
        "command": command,
        "shell": bool(job.get("shell")),
        "cwd": job.get("cwd"),
        "pid": pid_of(status.get("command")) if running else None,
        "supervisor": {"pid": pid_of(status.get("supervisor")), "running": alive},
        "behavior": asked.get("behavior"),
        "lockfile": asked.get("lockfile"),
        "status": {
            "state": state,
            "running": running,
            "paused": paused,
            **{key: status.get(key) for key in ("exit_code", "signal", "core", "reason")},
        },
        "meta": meta,
        "streams": streams,
        "clients": clients,
        "times": {
            "created": job.get("created"),
            **{key: status.get(key) for key in ("started", "ended", "elapsed")},
        },
        "restarts": {
            "policy": asked.get("restart"),
            "limit": asked.get("restart_limit"),
            "count": own.get("restarts", 0),
            "next": own.get("next_start") if alive is not False else None,
        },
        "usage": usage or {key: status.get(key) for key in ("user_time", "system_time", "max_rss")},
        "trouble": trouble or [],
    }


def socket_name(task_id: str) -> str:
    """The socket of a task's supervisor, in the pool's directory: the end of the task's id, which is random.

    A pid would not do: in two containers that share a pool, two supervisors may have the same. All of the id would be
    too long, for an address holds only a hundred bytes.
    """
    return f"{task_id[-_NAME_DIGITS:]}.sock"


def output_name(task_id: str) -> str:
    """The file that a supervisor's own stdout and stderr go to, in the pool's directory."""
    return f"{task_id[-_NAME_DIGITS:]}.out"


def facts(record: dict[str, Any]) -> dict[str, Any]:
    """A task's own facts in job.json or status.json; none where that is damaged."""
    found = record.get(TASK)
    return found if isinstance(found, dict) else {}


def pid_of(identity: object) -> int | None:
    """The pid of an identity; None of what is none."""
    match identity:
        case [int(pid), *_]:
            return pid
    return None


def live(pid: int) -> tuple[bool, dict[str, Any] | None]:
    """Whether a process is stopped, and what it has used so far (Linux; elsewhere nothing is known)."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            fields = file.read(4096).rpartition(b")")[2].split()
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            status = file.read(4096)
    except OSError:
        return False, None
    tick = os.sysconf("SC_CLK_TCK")
    peak = status.partition(b"VmHWM:")[2].split(maxsplit=1)
    return fields[0] == b"T" or _is_to_stop(status), {
        "user_time": int(fields[11]) / tick,
        "system_time": int(fields[12]) / tick,
        "max_rss": int(peak[0]) * 1024 if peak else 0,
    }


def _is_to_stop(status: bytes) -> bool:
    """Whether SIGSTOP waits for it.

    So it does while a process waits for a child that it has made by vfork (a shell, for its next program): the child is
    stopped, and the process stops as soon as it could go on.
    """
    pending = [status.partition(name)[2].split(maxsplit=1) for name in (b"SigPnd:", b"ShdPnd:")]
    return any(int(mask[0], 16) >> signal.SIGSTOP - 1 & 1 for mask in pending if mask)

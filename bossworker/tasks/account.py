"""What is told of a task: from the facts to the nested, JSON-able mapping that `Task.info` returns.

A living supervisor and a reader of what a dead one left both make it here, so that they say the same.
"""

from __future__ import annotations

from bossworker.commands import jobdir

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TASK, META = "task", "meta.json"
"""Where a task's own facts are: a key of job.json and of status.json, and a file beside them, if metadata came later."""


def info(
    job_id: str,
    job: dict[str, Any],
    status: dict[str, Any],
    meta: dict[str, Any],
    streams: dict[str, Any],
    *,
    alive: bool,
    clients: int = 0,
    paused: bool = False,
    usage: dict[str, Any] | None = None,
    trouble: list[str] | None = None,
) -> dict[str, Any]:
    """The whole account.

    Args:
        job: What job.json says.
        status: What status.json says, or will.
        alive: Whether the supervisor is.
        usage: What the command has used so far; None: what the status says.
        trouble: What the supervisor cannot do at present.
    """
    asked = job.get(TASK) or {}
    own = status.get(TASK) or {}
    running = status.get("state") == jobdir.RUNNING
    return {
        "id": job_id,
        "command": job.get("cmd"),
        "shell": bool(job.get("shell")),
        "cwd": job.get("cwd"),
        "pid": (status.get("command") or [None])[0] if running else None,
        "supervisor": {"pid": (status.get("supervisor") or [None])[0], "running": alive},
        "behavior": asked.get("behavior"),
        "lockfile": asked.get("lockfile"),
        "status": {
            "state": status.get("state", jobdir.UNKNOWN),
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
            "next": own.get("next_start") if alive else None,
        },
        "usage": usage or {key: status.get(key) for key in ("user_time", "system_time", "max_rss")},
        "trouble": trouble or [],
    }

"""What a status says of a command: from the facts to the record in ``status.json``."""

from __future__ import annotations

import os
import sys

from bossworker.commands import jobdir
from bossworker.system.cpython import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from resource import struct_rusage
    from typing import Any

    from bossworker.system.identity import Identity

RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss

ENDING_SIGNALS = frozenset(
    (signal.SIGKILL, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGABRT)
)
"""Whoever sends one of these means the command to end."""


def requested(wait_status: int, asked: set[int]) -> int:
    """Which of the signals that somebody has `asked` to be sent accounts for a command's end; 0 when none does.

    KILL before all, since it was meant for all that the command has started; then the one that it ended by.
    """
    code = os.waitstatus_to_exitcode(wait_status)
    if signal.SIGKILL in asked:
        return int(signal.SIGKILL)
    return -code if -code in asked else next((one for one in asked if one in ENDING_SIGNALS), 0)


def ends_all(wait_status: int, requested: int) -> bool:
    """Whether what a command has left running is to end as well, since somebody asked for the command's end."""
    by_it = os.WIFSIGNALED(wait_status) and os.WTERMSIG(wait_status) == requested
    return requested == signal.SIGKILL or (by_it and requested in ENDING_SIGNALS)


def created(supervisor: Identity) -> dict[str, Any]:
    """It has somebody to start it."""
    return {"state": jobdir.CREATED, "supervisor": supervisor}


def running(supervisor: Identity, command: Identity | None, started: float) -> dict[str, Any]:
    """It has been started. `started` is Unix seconds."""
    return {"state": jobdir.RUNNING, "supervisor": supervisor, "command": command, "started": started}


def ended(
    status: dict[str, Any],
    wait_status: int,
    usage: struct_rusage,
    elapsed: float,
    *,
    reason: str = "",
    requested: int = 0,
    max_rss: int | None = None,
    out_of_memory: bool = False,
) -> dict[str, Any]:
    """It has ended.

    Args:
        status: What `running` gave.
        elapsed: Seconds that it ran.
        reason: Why it was made to end; empty when it was not.
        requested: The signal that it ended by, or was to, because somebody asked; 0 if there is none.
        max_rss: Bytes that it had in memory at most, if that is known better than by `usage`.
        out_of_memory: Whether it was likely the kernel that killed it, for want of memory.
    """
    code = os.waitstatus_to_exitcode(wait_status)
    asked = bool(reason) or (requested in ENDING_SIGNALS and code != 0) or (code < 0 and requested == -code)
    return status | {
        "state": jobdir.BY_REQUEST if asked else jobdir.COMPLETED if code == 0 else jobdir.BY_ERROR,
        "ended": status["started"] + elapsed,
        "elapsed": elapsed,
        "exit_code": code if code >= 0 else None,
        "signal": -code if code < 0 else None,
        "core": os.WCOREDUMP(wait_status),
        "user_time": usage.ru_utime,
        "system_time": usage.ru_stime,
        "max_rss": usage.ru_maxrss * RSS_UNIT if max_rss is None else max_rss,
        "reason": reason,
        **({"out_of_memory": True} if out_of_memory else {}),
    }


def given_up(status: dict[str, Any], reason: str, now: float) -> dict[str, Any]:
    """It was made to end and cannot be, and whoever has tried waits no longer: its end will not be on record."""
    unknown = _nothing_known(now, reason)
    del unknown["ended"]
    return status | unknown | {"state": jobdir.RUNNING, "given_up": True, "elapsed": max(0.0, now - status["started"])}


def lost(status: dict[str, Any], reason: str, now: float) -> dict[str, Any]:
    """It is gone, and nobody knows how it ended. `now` is Unix seconds."""
    return status | _nothing_known(now, reason) | {"elapsed": max(0.0, now - status["started"])}


def not_started(status: dict[str, Any], exit_code: int, reason: str, now: float) -> dict[str, Any]:
    """It could not be started, as a shell would tell it. `now` is Unix seconds."""
    return status | _nothing_known(now, reason) | {"command": None, "started": now, "exit_code": exit_code}


def _nothing_known(now: float, reason: str) -> dict[str, Any]:
    return {
        "state": jobdir.BY_ERROR,
        "ended": now,
        "elapsed": 0.0,
        "exit_code": None,
        "signal": None,
        "core": False,
        "user_time": 0.0,
        "system_time": 0.0,
        "max_rss": 0,
        "reason": reason,
    }


def measured(status: dict[str, Any]) -> dict[str, Any]:
    """Of the status of a command that has ended: how it did, and what it took."""
    return {key: status[key] for key in ("exit_code", "signal", "elapsed", "user_time", "system_time", "max_rss")}

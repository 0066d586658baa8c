"""Whether a pid still means the process that was meant: a pid is used again, its start time is not.

An identity is a list as it stands in JSON: pid, start time, boot id. The start time has the kernel's own unit (clock
ticks since boot on Linux) and is only ever compared; the boot id tells the same numbers after a restart apart.
"""

from __future__ import annotations

import os
import sys

from bossworker.system.cpython import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

Identity = list[int | str]
"""Pid, start time, boot id."""

_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_STARTED, _ENV_END = 19, 48  # fields 22 and 51 of /proc/pid/stat, counted from the state, which is the third
_boot_id = ""
_own: Identity = [0]


def boot_id() -> str:
    """What changes when the machine is restarted; asked for once in a process."""
    global _boot_id
    if not _boot_id:
        _boot_id = _read_boot_id()
    return _boot_id


def _read_boot_id() -> str:
    try:
        with open("/proc/sys/kernel/random/boot_id", "rb", buffering=0) as file:
            return file.read(64).decode("ascii", "replace").strip()
    except OSError:
        return _ask("sysctl", "-n", "kern.bootsessionuuid") or "unknown"


def start_time(pid: int) -> int | str | None:
    """When a process was started; None when there is none, or when it has ended and only waits to be reaped."""
    if sys.platform != "linux":
        return _ask("ps", "-o", "lstart=", "-p", str(pid)) or None
    state, started = _stat(pid)
    return None if state in "ZX" else started


def of(pid: int) -> Identity | None:
    """The identity of a process; of one that is a child of ours, also after it has ended but before it is reaped."""
    started = _stat(pid)[1] if sys.platform == "linux" else start_time(pid)
    return None if started is None else [pid, started, boot_id()]


def amid_exec(pid: int) -> bool:
    """Whether a process has given up its old program and has not got its arguments and environment yet (Linux)."""
    fields = _fields(pid)
    return len(fields) > _ENV_END and fields[0] not in (b"Z", b"X") and fields[_ENV_END] == b"0"


def own() -> Identity:
    """The identity of this process; looked up once, and again in a forked child."""
    global _own
    pid = os.getpid()
    if _own[0] != pid:
        _own = of(pid) or [pid, 0, boot_id()]
    return _own


def holds(identity: object) -> TypeGuard[Identity]:
    """Whether the process of this identity, of whatever origin, still runs."""
    match identity:
        case [int(pid), int() | str() as started, str(boot)] if pid > 0 and boot == boot_id():
            return start_time(pid) == started
    return False


def send(identity: Identity, number: int, group: bool = False) -> bool:
    """Send a signal to the very process (or the group that it leads), to no other; False when it is gone.

    The descriptor is opened first and the identity checked then: from there on it can mean nobody else.
    """
    pid = int(identity[0])
    if not hasattr(os, "pidfd_open"):
        return holds(identity) and _kill(pid, number, group)
    try:
        fd = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        return holds(identity) and _send(fd, pid, number, group)
    finally:
        os.close(fd)


def _send(fd: int, pid: int, number: int, group: bool) -> bool:
    if not group:
        return _succeeds(signal.pidfd_send_signal, fd, number)
    return _succeeds(signal.pidfd_send_signal, fd, number, None, _PROCESS_GROUP) or _kill(pid, number, group)


def _kill(pid: int, number: int, group: bool) -> bool:
    return _succeeds(os.killpg if group else os.kill, pid, number)


def _succeeds(call: object, *arguments: object) -> bool:
    try:
        call(*arguments)  # type: ignore[operator]
    except OSError:
        return False
    return True


def _stat(pid: int) -> tuple[str, int | None]:
    """State and start time from /proc."""
    fields = _fields(pid)
    try:
        return fields[0].decode(), int(fields[_STARTED])
    except (IndexError, ValueError):
        return "X", None


def _fields(pid: int) -> list[bytes]:
    """What /proc tells, from the third field on, past a name that may hold anything; nothing of who is not there."""
    try:
        fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return []
    try:
        return os.read(fd, 4096).rpartition(b")")[2].split()
    except OSError:
        return []
    finally:
        os.close(fd)


def _ask(*command: str) -> str:
    """What a program says, in one line; where there is no /proc."""
    import subprocess

    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return ""
    return " ".join(ended.stdout.split())

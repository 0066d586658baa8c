"""Whether a pid still means the process that was meant, and whether it can be seen from here at all.

An identity is a list as it stands in JSON: pid, start time, boot id, namespaces, host.

- A pid is used again; its start time is not. The start time has the kernel's own unit (clock ticks since boot on Linux)
  and is only ever compared. The boot id tells the same numbers after a restart apart.
- A pid means nothing outside its pid namespace, nor on another host: a container and its host, or two machines, may
  share a folder. So the identity names both, and `look` does not judge what it cannot see.

Identities of an older format end after the boot id. They are taken to be of our own namespace and host.
"""

from __future__ import annotations

import os
import sys

from bossworker.system import proc
from bossworker.system.cpython import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeGuard

Identity = list[int | str]
"""Pid, start time, boot id, namespaces, host."""

ALIVE, GONE = "alive", "gone"
NO_PROC = "/proc is missing here, or is another pid namespace's"

_PROCESS_GROUP = 4  # PIDFD_SIGNAL_PROCESS_GROUP, Linux 6.9
_MACHINE_ID = "/etc/machine-id"
_UNKNOWN = "unknown"

_boot_id = ""
_host = ""
_space: tuple[int, str] = (0, "")  # of which process: its namespaces
_own: Identity = [0]


# -- what can be seen from here ---------------------------------------------------------------------------------


def look(identity: object) -> str:
    """Whether the process of this identity, of whatever origin, still runs: ALIVE or GONE.

    Or, where that cannot be seen from here, why: "on host NAME", for instance. Then it may run.
    """
    match identity:
        case [int(pid), int() | str() as started, str(boot), *place] if pid > 0:
            return _hidden(pid, started, boot, place) or _look_here(pid, started)
    return GONE


def holds(identity: object) -> TypeGuard[Identity]:
    """Whether the process of this identity can be seen, and still runs."""
    return look(identity) == ALIVE


def unseen(identity: object) -> str:
    """Why it cannot be told whether the process of this identity still runs; empty when it can."""
    found = look(identity)
    return "" if found in (ALIVE, GONE) else found


def _hidden(pid: int, started: int | str, boot: str, place: list[object]) -> str:
    """Why the process's numbers are not numbers of ours; empty when they are, or the process is gone for certain."""
    namespaces, host = _where()
    their_host = place[1] if len(place) > 1 and isinstance(place[1], str) else host
    elsewhere = f"on host {their_host.partition(':')[0]}" if their_host != host else ""
    if boot != boot_id():
        # Our own machine, after a restart. But if this very process is there, it is the boot id that was masked.
        masked = not elsewhere and started and start_time(pid) == started
        return "under another boot id" if masked else elsewhere
    if not started or boot == _UNKNOWN:  # it was named by somebody who could not see it
        return NO_PROC
    if place and place[0] != namespaces:
        return elsewhere or "in another pid namespace"
    return ""


def _look_here(pid: int, started: int | str) -> str:
    """Of a pid of our own namespace."""
    if start_time(pid) == started:
        return ALIVE
    if sys.platform != "linux":
        return GONE
    # Not there: unless /proc itself is not (any more), or hides the process from us (the mount option hidepid).
    if not proc.is_ours():
        return NO_PROC
    if exists(pid) and proc.state_and_start(pid)[1] is None and exists(pid):
        return "hidden by /proc"
    return GONE


def exists(pid: int) -> bool:
    """Whether there is such a process, whoever's; of a negative number, whether anybody is in that process group."""
    try:
        os.kill(pid, 0)
    except PermissionError:
        return True
    except (OSError, OverflowError):
        return False
    return True


# -- names ------------------------------------------------------------------------------------------------------


def of(pid: int) -> Identity | None:
    """The identity of a process; of one that is a child of ours, also after it has ended but before it is reaped."""
    if sys.platform == "linux":
        started: int | str | None = proc.state_and_start(pid)[1] if proc.is_ours() else None
    else:
        started = start_time(pid)
    return None if started is None else [pid, started, boot_id(), *_where()]


def own() -> Identity:
    """The identity of this process; looked up once, and again in a forked child."""
    global _own
    pid = os.getpid()
    if _own[0] != pid:
        _own = of(pid) or [pid, 0, boot_id(), *_where()]
    return _own


def start_time(pid: int) -> int | str | None:
    """When a process was started; None when there is none, or when it has ended and only waits to be reaped."""
    if sys.platform != "linux":
        return _ask("ps", "-o", "lstart=", "-p", str(pid)) or None
    state, started = proc.state_and_start(pid)
    return None if state in "ZX" else started


def boot_id() -> str:
    """What changes when the machine is restarted; asked for once in a process."""
    global _boot_id
    if not _boot_id:
        _boot_id = _read_boot_id()
    return _boot_id


def _read_boot_id() -> str:
    told = proc.read("sys/kernel/random/boot_id").decode("ascii", "replace").strip()
    if not told and sys.platform != "linux":
        told = _ask("sysctl", "-n", "kern.bootsessionuuid")
    return told or _UNKNOWN


def _where() -> tuple[str, str]:
    """This process's namespaces that numbers depend on (looked up again in a forked child), and its host."""
    global _host, _space
    pid = os.getpid()
    if _space[0] != pid:
        _space = pid, f"{proc.namespace('pid')}+{proc.namespace('time')}"
    _host = _host or _read_host()
    return _space[1], _host


def _read_host() -> str:
    """The host's name, and a number made of its machine id: names such as "localhost" are many hosts'."""
    from binascii import crc32

    name = os.uname().nodename
    try:
        with open(_MACHINE_ID, "rb", buffering=0) as file:
            machine = file.read(64).strip()
    except OSError:
        machine = b""
    return f"{name}:{crc32(machine):08x}" if machine else name


def _ask(*command: str) -> str:
    """What a program says, in one line; where there is no /proc."""
    import subprocess

    try:
        ended = subprocess.run(command, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    except OSError:
        return ""
    return " ".join(ended.stdout.split())


# -- signals ----------------------------------------------------------------------------------------------------


def send(identity: Identity, number: int, group: bool = False) -> bool:
    """Send a signal to the very process (or the group that it leads), to no other; False when it is gone.

    The descriptor is opened first and the identity checked then: from there on it can mean nobody else.
    """
    pid = int(identity[0])
    if not hasattr(os, "pidfd_open"):
        return holds(identity) and _kill(pid, number, group)
    try:
        # The descriptor first, then the identity: if it holds now, the descriptor is of this very process, whatever
        # becomes of the number.
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
    # An older kernel signals groups by number alone. It was the process's own a moment ago; nothing better can be had
    # there.
    return _succeeds(signal.pidfd_send_signal, fd, number, None, _PROCESS_GROUP) or _kill(pid, number, group)


def _kill(pid: int, number: int, group: bool) -> bool:
    return _succeeds(os.killpg if group else os.kill, pid, number)


def _succeeds(call: object, *arguments: object) -> bool:
    try:
        call(*arguments)  # type: ignore[operator]
    except OSError:
        return False
    return True

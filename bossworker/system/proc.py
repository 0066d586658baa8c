"""All that is read from /proc (Linux).

Where /proc is missing, or belongs to another pid namespace than ours (``unshare --pid`` without ``--mount-proc``), its
numbers are not our numbers: then nothing is known, and every reader says so by an empty value.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = "/proc"
CHILDREN = "children"  # of /proc/PID/task/TID; only with CONFIG_PROC_CHILDREN

_SHORT = 1024  # bytes; where there is more to be read, the kernel gives most of a page at once
_USER_TIME, _SYSTEM_TIME = 11, 12  # fields 14 and 15, counted from the third
_BELOW_TIMES = slice(13, 15)  # fields 16 and 17: the same of children that have ended and were waited for
_STATE, _PARENT, _STARTED, _STACK, _ENV_END = 0, 1, 19, 25, 48  # fields 3, 4, 22, 28, 51 of stat, from the third


def is_ours() -> bool:
    """Whether there is a /proc, and its pids are those that this process sees."""
    try:
        return int(os.readlink(f"{ROOT}/self")) == os.getpid()
    except (OSError, ValueError):
        return False


def read(path: str) -> bytes:
    """A file of /proc; nothing of a process that is gone, or whose file is not for us to read."""
    try:
        fd = os.open(f"{ROOT}/{path}", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return b""
    parts: list[bytes] = []
    try:
        _read_into(parts, fd)
    except OSError:  # the process has ended meanwhile
        pass
    finally:
        os.close(fd)
    return b"".join(parts)


def _read_into(parts: list[bytes], fd: int) -> None:
    while part := os.read(fd, 65536):
        parts.append(part)
        if len(part) < _SHORT:
            return


def names(path: str) -> list[str]:
    """What is in a folder of /proc."""
    try:
        return os.listdir(f"{ROOT}/{path}")
    except OSError:
        return []


# -- one process ------------------------------------------------------------------------------------------------


def state_and_start(pid: int) -> tuple[str, int | None]:
    """A process's state letter, and its start time in clock ticks since boot. ``X`` and None when there is none.

    A leader that has left its threads behind (by ``pthread_exit``) is shown as a zombie. The process lives on in them.
    """
    fields = stat_fields(pid)
    try:
        state, started = fields[_STATE].decode(), int(fields[_STARTED])
    except (IndexError, ValueError):
        return "X", None
    return "S" if state == "Z" and len(names(f"{pid}/task")) > 1 else state, started


def amid_exec(pid: int) -> bool:
    """Whether a process has given up its old program and has not got its arguments and environment yet."""
    fields = stat_fields(pid)
    return len(fields) > _ENV_END and fields[_STATE] not in (b"Z", b"X") and fields[_ENV_END] == b"0"


def is_copy(pid: int, of: int) -> bool:
    """Whether a process has been forked from another, directly or not, and has executed no program since.

    A program that is executed gets its stack at an address of its own, which a fork copies.
    """
    one, other = stat_fields(pid), stat_fields(of)
    marks = [[fields[at] for at in (_STACK, _ENV_END)] for fields in (one, other) if len(fields) > _ENV_END]
    return len(marks) == 2 and marks[0] == marks[1] and b"0" not in marks[0]


def stat_fields(pid: int) -> list[bytes]:
    """What ``stat`` tells, from the third field on, past a name that may hold anything."""
    return read(f"{pid}/stat").rpartition(b")")[2].split()


def cpu_seconds(pid: int) -> float:
    """Processor time that a process has used so far, its threads' too; 0 when it is not known."""
    fields = stat_fields(pid)
    try:
        return (int(fields[_USER_TIME]) + int(fields[_SYSTEM_TIME])) / os.sysconf("SC_CLK_TCK")
    except (IndexError, ValueError):
        return 0.0


def cpu_seconds_below(pid: int) -> float:
    """Processor time that its children have used, and theirs, as far as they have ended and were waited for."""
    try:
        return sum(map(int, stat_fields(pid)[_BELOW_TIMES])) / os.sysconf("SC_CLK_TCK")
    except ValueError:
        return 0.0


def open_paths(pid: int) -> list[str]:
    """Where the descriptors of a process lead: paths, or words such as ``socket:[17]``."""
    found: list[str] = []
    for name in names(f"{pid}/fd"):
        try:
            found.append(os.readlink(f"{ROOT}/{pid}/fd/{name}"))
        except OSError:  # closed just now
            continue
    return found


def owner(pid: int) -> int | None:
    """The user id that a process acts as."""
    try:
        return os.stat(f"{ROOT}/{pid}").st_uid
    except OSError:
        return None


def namespace(kind: str) -> int:
    """The number of this process's namespace of a kind (``pid``, ``mnt``, ...); 0 when it is not known."""
    try:
        return os.stat(f"{ROOT}/self/ns/{kind}").st_ino
    except OSError:
        return 0


# -- who descends from whom -------------------------------------------------------------------------------------


def children(pid: int) -> list[int]:
    """The direct children of a process, zombies among them."""
    return _find_children()(pid)


def _listed(pid: int) -> list[int]:
    """As the kernel lists them, thread by thread."""
    found: list[int] = []
    for thread in names(f"{pid}/task"):
        found += map(int, read(f"{pid}/task/{thread}/{CHILDREN}").split())
    return found


def _searched(pid: int) -> list[int]:
    """Where the kernel keeps no such lists: by asking all processes for their parents."""
    found = [int(name) for name in names("") if name.isdigit()]
    return [one for one in found if _parent(one) == pid]


def _parent(pid: int) -> int | None:
    fields = stat_fields(pid)
    try:
        return int(fields[_PARENT])
    except (IndexError, ValueError):
        return None


def _nobody(pid: int) -> list[int]:
    return []


def _find_children() -> Callable[[int], list[int]]:
    """The way to find children; looked for anew in each process, since a child may be in another pid namespace."""
    global _way, _way_of
    if _way_of != os.getpid():
        _way, _way_of = _best_way(), os.getpid()
    return _way


def _best_way() -> Callable[[int], list[int]]:
    if sys.platform != "linux" or not is_ours():
        return _nobody
    return _listed if os.path.exists(f"{ROOT}/self/task/{os.getpid()}/{CHILDREN}") else _searched


_way: Callable[[int], list[int]] = _nobody
_way_of = 0

"""The memory of processes: what they hold, what they held at most, and whom the kernel has killed for want of it."""

from __future__ import annotations

import os
import resource
import sys

from bossworker.system import descendants, proc

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MIB = 1 << 20
_PAGE = resource.getpagesize()
_RSS_UNIT = 1 if sys.platform == "darwin" else 1024  # bytes in a unit of ru_maxrss
_KILLED = 9  # SIGKILL
_KILLED_BELOW = 128 + _KILLED  # what a shell ends with whose own child was killed


def resident(pid: int) -> int:
    """Bytes that a process has in memory, of which it may share some; 0 when it is gone or nothing is told."""
    try:
        return int(proc.read(f"{pid}/statm").split()[1]) * _PAGE
    except (IndexError, ValueError):
        return 0


def proportional(pid: int) -> int:
    """The same, with its part of what it shares. Takes the kernel a while: it goes through all pages."""
    return _kibibytes(proc.read(f"{pid}/smaps_rollup"), b"Pss:") or resident(pid)


def peak(pid: int) -> int:
    """Bytes that a process, which has not ended, had in memory at most since it executed its program."""
    return _kibibytes(proc.read(f"{pid}/status"), b"VmHWM:")


def _kibibytes(text: bytes, name: bytes) -> int:
    try:
        return int(text.partition(name)[2].split(maxsplit=1)[0]) * 1024
    except (IndexError, ValueError):
        return 0


def excess(pids: Iterable[int], limit: int, besides: int = 0, share: Callable[[int], int] = proportional) -> int:
    """What these processes hold together, if it is more than the limit; else 0.

    Processes that forked share most of their pages. Each is counted as if it shared none first, which is quick; and
    only when that is too much, with its `share`. `besides` counts as well.
    """
    pids = list(pids)
    if besides + sum(map(resident, pids)) <= limit:
        return 0
    held = besides + sum(map(share, pids))
    return held if held > limit else 0


def below(pid: int, own: int) -> int:
    """What the processes below one hold that is not its own; `own`: bytes that it itself holds, or held.

    A copy that it has forked shares with it, and with others outside, what it had: that is no more than it was.
    """
    return sum(_share(one, pid, own) for one in descendants.descendants(pid))


def growth(pid: int, own: int, beneath: int, limit: int) -> int:
    """How much more a process and those below it hold than it, and they, did; 0 if it is not more than the limit."""
    more = resident(pid) - own - beneath
    return excess(descendants.descendants(pid), limit, more, lambda one: _share(one, pid, own))


def _share(one: int, above: int, own: int) -> int:
    share = proportional(one)
    return min(share, max(0, resident(one) - own)) if proc.is_copy(one, above) else share


def describe_excess(held: int, limit: int) -> str:
    """As in ``memory limit exceeded (612 MiB of 512)``."""
    if limit % MIB:
        return f"memory limit exceeded ({held / MIB:.1f} MiB of {limit / MIB:.1f})"
    return f"memory limit exceeded ({-(-held // MIB)} MiB of {limit // MIB})"


class ChildPeak:
    """The most memory that a child had.

    What the kernel tells of a child that ended is never less than what its parent had, since both share their memory
    until the child executes its program (vfork). So of a child smaller than us, it is what we see while it runs that
    counts. Of one that ends before we look, the kernel tells how many pages it has touched.
    """

    def __init__(self) -> None:
        """To be made just before the child is started."""
        self._ours = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        self._seen = 0

    def look(self, pid: int) -> None:
        """See what it had until now."""
        self._seen = max(self._seen, peak(pid))

    def of(self, usage: resource.struct_rusage) -> int:
        """Bytes, once it has ended. Of one smaller than us, as it was last seen, or as estimated by its page faults."""
        if usage.ru_maxrss > self._ours:
            return usage.ru_maxrss * _RSS_UNIT
        return self._seen or min(usage.ru_minflt * _PAGE, usage.ru_maxrss * _RSS_UNIT)


# -- out of memory ----------------------------------------------------------------------------------------------


def oom_kills() -> int:
    """How many processes the kernel has killed for want of memory, in this machine and in our control group."""
    count = _counter(proc.read("vmstat"))
    for line in proc.read("self/cgroup").decode("utf-8", "surrogateescape").splitlines():
        number, controllers, path = (*line.split(":", 2), "", "")[:3]
        if number == "0":
            count += _counter_of(f"/sys/fs/cgroup{path}/memory.events")
        elif "memory" in controllers.split(","):
            count += _counter_of(f"/sys/fs/cgroup/memory{path}/memory.oom_control")
    return count


def _counter_of(path: str) -> int:
    try:
        with open(path, "rb", buffering=0) as file:
            return _counter(file.read(65536))
    except OSError:
        return 0


def _counter(text: bytes) -> int:
    _, found, value = (b"\n" + text).partition(b"\noom_kill ")  # of a hundred lines and more
    return int(value.split(b"\n", 1)[0]) if found else 0


class OomWatch:
    """Whether a child was likely killed for want of memory: it was killed, and the kernel's counts have grown."""

    def __init__(self) -> None:
        self._before = oom_kills()

    def likely(self, wait_status: int) -> bool:
        """Of a child that has ended by itself, as far as we know."""
        code = os.waitstatus_to_exitcode(wait_status)
        return code in (-_KILLED, _KILLED_BELOW) and oom_kills() > self._before

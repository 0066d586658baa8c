"""All that a process has started, and its end: TERM, grace, KILL.

A process that adopts orphans finds everything below itself: what left the process group or the session, too, and what
forked twice, since each whose parent ends becomes a child of the next adopter above it.

What was detached stands apart: the supervisor of a detached job, or of a task that is a daemon, ends with nobody,
though it is below a process that ends. It is known by its name, which the kernel keeps (Linux), and which the command
that it starts does not inherit.
"""

from __future__ import annotations

import errno
import os
import sys
import time

from bossworker.system import proc
from bossworker.system.cpython import signal

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE = 0.0005  # seconds until the first look whether all are gone, doubled up to
LONGEST_PAUSE = 0.02
HOPELESS_PAUSE = 0.5  # the longest of those who go on though somebody cannot be ended
PATIENCE = 2.0  # seconds after KILL; the kernel may take long to give back much memory
REFUSED_PATIENCE = 0.2  # the same where KILL was refused: it may still end by what has become of the others
_NOBODY = (1 << 31) - 1  # a process group that there is not

JOB, TASK = b"bossworker-job", b"bossworker-task"  # the names of supervisors that stand apart; 15 bytes at most
_APART = (JOB + b"\n", TASK + b"\n")

children = proc.children

_prctl: Callable[[int, int | bytes | bytearray], int] | None = None
_adopter = 0  # the process that was made to adopt orphans: this one, or one that it was forked from
_DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG
_ADOPT_ORPHANS = 36  # PR_SET_CHILD_SUBREAPER
_ADOPTS_ORPHANS = 37  # PR_GET_CHILD_SUBREAPER
_SET_NAME = 15  # PR_SET_NAME
_INT = 4  # bytes


def die_with_parent() -> Callable[[], object] | None:
    """What a child has to call to be killed as soon as this process ends; None where there is no such thing."""
    if sys.platform != "linux":
        return None
    prctl, parent = load_prctl(), os.getpid()

    def ask() -> None:
        # The parent may have ended before this request: then nothing would come of it, and whoever adopted us is asked
        # for instead.
        prctl(_DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the request was in place
            os._exit(1)

    return ask


def adopt_orphans(adopt: bool = True) -> None:
    """Become the parent of every descendant whose own parent ends, or leave that to others (Linux)."""
    global _adopter
    if sys.platform == "linux":
        load_prctl()(_ADOPT_ORPHANS, int(adopt))
        _adopter = os.getpid() if adopt else 0


def adopts_orphans() -> bool:
    """Whether we do (elsewhere: no)."""
    if _adopter == os.getpid():
        return True
    if sys.platform != "linux":
        return False
    answer = bytearray(_INT)
    load_prctl()(_ADOPTS_ORPHANS, answer)
    return any(answer)


def load_prctl() -> Callable[[int, int | bytes | bytearray], int]:
    """The system call, with an option and its argument: a number, or bytes that the kernel reads or fills.

    Found once, if possible before a fork, so that the pages for it are shared.
    """
    global _prctl
    if _prctl is None:
        from bossworker.system.compiled import core

        _prctl = _prctl_of_libc() if core is None else core.prctl
    return _prctl


def _prctl_of_libc() -> Callable[[int, int | bytes | bytearray], int]:
    import ctypes

    call = ctypes.CDLL(None).prctl

    def prctl(option: int, argument: int | bytes | bytearray) -> int:
        if isinstance(argument, bytearray):
            argument = (ctypes.c_char * len(argument)).from_buffer(argument)  # type: ignore[assignment]
        answer: int = call(option, argument, 0, 0, 0)
        return answer

    return prctl


def has_children() -> bool:
    """Whether this process has any, living or dead. Costs one system call, where `children` needs many."""
    if not hasattr(os, "waitid"):
        return True
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def mark_detached(name: bytes) -> None:
    """Be a supervisor that ends with nobody, in a session of its own."""
    os.setsid()
    if sys.platform == "linux":
        load_prctl()(_SET_NAME, name)


def is_detached(pid: int) -> bool:
    """Whether a process is such a supervisor."""
    return proc.read(f"{pid}/comm") in _APART


def descendants(pid: int) -> list[int]:
    """Children, grandchildren and so on; without those that stand apart, and what is below them.

    Parents first, since they are signalled in this order: a shell whose child ended first would go on to its next
    command.
    """
    found: list[int] = []
    waiting = _below(pid)
    while waiting:  # a chain may be longer than calls may be nested
        # While this goes on, processes fork and end. One that was missed is found at the next step: whoever ends a tree
        # looks until nobody is left.
        found.append(waiting.pop())
        waiting += _below(found[-1])
    return found


def _below(pid: int) -> list[int]:
    """The last first."""
    return [child for child in children(pid)[::-1] if not is_detached(child)]


class Ending:
    """The end of all descendants of this process, or of some, step by step: TERM, grace, KILL.

    TERM is sent once, to those that are there when the ending begins. What they start in order to tidy up (by a trap
    that calls ``docker rm``, for instance) has the grace for it. KILL goes to all, whenever they were born.

    The owner reaps before each step; so when nothing is found any more, nothing is left, not even a zombie.
    """

    def __init__(
        self,
        grace: float,
        leader: int = 0,
        members: Callable[[], list[int]] | None = None,
        patience: float = PATIENCE,
    ) -> None:
        """
        Args:
            grace: Seconds between TERM and KILL.
            leader: A child that leads a process group, all we can find where descendants cannot be listed.
            members: What is to end, parents first, asked for again at each step; all descendants by default.
            patience: Seconds after KILL until `hopeless` says that somebody cannot be ended.
        """
        self.leader = leader
        self.members = members
        self.patience = patience
        self.kill_at = time.monotonic() + grace
        self.pause = FIRST_PAUSE
        self.hopeless = ""
        """Which processes do not end, and why, once KILL was sent in vain for a while. The steps may go on."""
        self._asked = False
        self._killed_at = 0.0

    def step(self) -> float | None:
        """Signal whom it is time to; seconds until the next step, or None when all are gone."""
        found = self._find()
        if not found:
            return None
        if time.monotonic() >= self.kill_at:
            self._kill(found)
        elif not self._asked:
            send(signal.SIGTERM, found)
            send(signal.SIGCONT, found)  # or one that is stopped would not hear it
        self._asked = True
        self.pause = min(2 * self.pause, HOPELESS_PAUSE if self.hopeless else LONGEST_PAUSE)
        return self.pause

    def hurry(self, grace: float, patience: float = PATIENCE) -> None:
        """No more grace from now on than this."""
        self.kill_at = min(self.kill_at, time.monotonic() + grace)
        self.patience = min(self.patience, patience)

    def _kill(self, found: list[int]) -> None:
        refused = send(signal.SIGKILL, found)
        now = time.monotonic()
        self._killed_at = self._killed_at or now
        patience = min(REFUSED_PATIENCE, self.patience) if refused == found else self.patience
        if now >= self._killed_at + patience:
            self.hopeless = _describe(found, refused)

    def _find(self) -> list[int]:
        if proc.is_ours():
            return descendants(os.getpid()) if self.members is None else self.members()
        try:
            os.killpg(self.leader or _NOBODY, 0)
        except PermissionError:
            pass
        except OSError:
            return []
        return [-self.leader]


def _describe(found: list[int], refused: list[int]) -> str:
    one = refused[0] if refused else found[0]
    why = os.strerror(errno.EPERM) if refused else "it does not answer to SIGKILL"
    more = f", and {len(found) - 1} more" if len(found) > 1 else ""
    return f"process {abs(one)} cannot be ended: {why}{more}"


def send(number: int, pids: list[int]) -> list[int]:
    """Send a signal to all of these, as far as they are there; those to whom we may not send any.

    They must be descendants that were listed just now.
    """
    refused = []
    for pid in pids:
        try:
            # A process that was listed may have ended since, and its own parent have reaped it. The kernel gives its
            # number again only when it has gone through all others: an instant is too short for that.
            os.kill(pid, number)
        except PermissionError:
            refused.append(pid)
        except OSError:
            pass
    return refused

"""What the operating system can do and tell about processes: parents, orphans, trees, exits, memory.

Each call has a fallback where a platform lacks it, as cheap as the guarantee allows.
"""

from __future__ import annotations

import errno
import os
import resource
import select
import signal
import sys
import time
from collections.abc import Container
from contextlib import suppress
from typing import NoReturn

from bossworker.system import proc
from bossworker.system.descendants import adopt_orphans, children, descendants, is_detached, load_prctl
from bossworker.system.memory import oom_kills, resident

__all__ = ["adopt_orphans", "children", "descendants", "oom_kills"]

LONGEST_POLL = 3600.0  # seconds; poll takes milliseconds in 31 bits
DESCRIPTORS = 1 << 16  # as many as a process of ours ever asks for

_PR_SET_PDEATHSIG = 1


_prctl = load_prctl() if sys.platform == "linux" else lambda *_: None  # here, before any fork


def die_with(parent: int) -> None:
    """Have the kernel kill this process when `parent`, which forked it, ends. Linux only; elsewhere sockets tell."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it ended before the request was in place
        os._exit(1)


def exit_at_once(status: int) -> NoReturn:
    """End this process with nothing more done, whatever a signal handler raises in between.

    The frames below, which a forked child has inherited, must never run on in it.
    """
    try:
        os._exit(status & 0xFF)
    finally:
        os._exit(status & 0xFF)


def release_descriptors(keep: Container[int]) -> None:
    """Let go of whatever descriptors above 2 refer to, but these.

    Their numbers stay taken, by something that can be neither read nor written (EBADF): a number that an object of the
    program's still holds must not come to mean a file that is opened later. (Linux; elsewhere they are closed.)
    """
    place = "/proc/self/fd" if sys.platform == "linux" else "/dev/fd"
    doomed = [fd for fd in map(int, os.listdir(place)) if fd > 2 and fd not in keep]
    nowhere = os.open("/", os.O_PATH) if hasattr(os, "O_PATH") else -1
    for fd in doomed:
        with suppress(OSError):  # the one that the listing itself used
            os.fstat(fd)
            os.close(fd) if nowhere < 0 else os.dup2(nowhere, fd, inheritable=False)
    if nowhere >= 0:
        os.close(nowhere)


def describe_shortage(number: int, text: str | None = None) -> str:
    """An errno in words (`text`, if somebody has more to say of it), and which limit it may be that was reached."""
    text = text or os.strerror(number)
    limit = {errno.EAGAIN: "RLIMIT_NPROC", errno.EMFILE: "RLIMIT_NOFILE"}.get(number)
    if limit is None or not hasattr(resource, limit):
        return text
    soft, _ = resource.getrlimit(getattr(resource, limit))
    told = "unlimited" if soft == resource.RLIM_INFINITY else soft
    also = ", or pids.max of a control group is reached" if number == errno.EAGAIN else ""
    return f"{text} ({limit} is {told}{also})"


def pidfd(pid: int) -> int | None:
    """A descriptor that becomes readable when the process ends; None where there is no such thing."""
    if not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def dead_children() -> int:
    """How many of our children have ended and were not waited for (Linux; elsewhere 0)."""
    return sum(proc.stat_fields(pid)[:1] == [b"Z"] for pid in children(os.getpid()))


def kill_group(pid: int) -> None:
    """SIGKILL the process group that `pid` leads. The leader must not be reaped yet, so that the number is its own."""
    with suppress(OSError):
        os.killpg(pid, signal.SIGKILL)


def kill_tree(pid: int) -> None:
    """SIGKILL a child of ours, its process group and every descendant, also what has left the group."""
    doomed = descendants(pid)
    kill_group(pid)
    for one in (pid, *doomed):
        with suppress(OSError):
            os.kill(one, signal.SIGKILL)


def await_fd(fd: int, event: int, seconds: float | None = None) -> bool:
    """Wait for an event on a descriptor, of whatever number (select knows none above 1023); whether it came."""
    poll = select.poll()
    poll.register(fd, event)
    deadline = None if seconds is None else time.monotonic() + seconds
    while True:
        left = LONGEST_POLL if deadline is None else min(max(0.0, deadline - time.monotonic()), LONGEST_POLL)
        found = poll.poll(left * 1000)
        if found or left < LONGEST_POLL:
            return bool(found and found[0][1] & event)


def output_is_full() -> bool:
    """Whether whoever reads our standard output or error has stopped doing so: a writer waits then."""
    poll = select.poll()
    poll.register(1, select.POLLOUT)
    poll.register(2, select.POLLOUT)
    return len(poll.poll(0)) < 2  # one that is closed or broken is told of, too


def is_alive(pid: int) -> bool:
    """Whether a child of ours has not ended. (Where it cannot be asked otherwise, it is reaped in the asking.)"""
    try:
        if hasattr(os, "waitid"):
            return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None
        return os.waitpid(pid, os.WNOHANG)[0] == 0
    except ChildProcessError:
        return False


def wait_for(pid: int, seconds: float) -> bool:
    """Wait for a child to end and reap it; False when it has not ended after `seconds`."""
    deadline = time.monotonic() + seconds
    ended = pidfd(pid)
    pause = 0.0005
    try:
        while True:
            try:
                # Asked before each sleep: the descriptor is readable once the child has ended, so one that ends in
                # between ends the sleep at once.
                if os.waitpid(pid, os.WNOHANG)[0]:
                    return True
            except ChildProcessError:  # somebody else reaped it
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            if ended is None:
                time.sleep(pause)
            else:
                await_fd(ended, select.POLLIN, left)
    finally:
        if ended is not None:
            os.close(ended)


def end_children(seconds: float) -> None:
    """SIGKILL and reap every child of this process and all that they leave to us, but what stands apart, for at most
    `seconds`.

    As a subreaper we inherit the children of each child that dies, so the loop ends with the whole tree gone.
    """
    deadline = time.monotonic() + seconds
    pause = 0.0005
    while time.monotonic() < deadline:
        ours = children(os.getpid())
        doomed = [child for child in ours if not is_detached(child)]
        # A child that dies leaves us its own: so we list, kill and reap until nobody is left.
        for child in doomed:
            kill_tree(child)
        if not reap_all() or (ours and not doomed):
            return
        time.sleep(pause)
        pause = min(pause * 2, 0.02)


def reap_one(leaders: Container[int]) -> tuple[int, int] | None:
    """Reap a child that has ended: its pid and wait status; None when there is none.

    What is left of the process group of one of `leaders` is ended first: until its leader is reaped, the group's number
    cannot belong to anybody else.
    """
    try:
        if not hasattr(os, "waitid"):
            pid, status = os.waitpid(-1, os.WNOHANG)
            return (pid, status) if pid else None
        found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if found is None:
            return None
        # Not reaped yet: until it is, nobody else can have its number, and so its group's.
        if found.si_pid in leaders:
            kill_group(found.si_pid)
        return os.waitpid(found.si_pid, 0)
    except ChildProcessError:
        return None


def reap_all() -> bool:
    """Reap the children that have ended; whether any child is left."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def describe_exit(status: int) -> str:
    """A wait status in words: ``signal 9, SIGKILL`` or ``exit code 3``."""
    return describe_code(os.waitstatus_to_exitcode(status))


def describe_code(code: int) -> str:
    """The same for an exit code, or minus the signal."""
    if code >= 0:
        return f"exit code {code}"
    try:
        return f"signal {-code}, {signal.Signals(-code).name}"
    except ValueError:
        return f"signal {-code}"


def wait_or_kill(pid: int, seconds: float) -> None:
    """Wait for a child to end and reap it. One that has not ended after `seconds` is killed."""
    if not wait_for(pid, seconds):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_for(pid, seconds)


def exit_code_of(pid: int) -> int | None:
    """How a child ended that is still to be reaped: its exit code, or minus the signal; None if that is not known."""
    try:
        how = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except OSError:  # somebody else reaped it
        return None
    if how is None:
        return None
    return how.si_status if how.si_code == os.CLD_EXITED else -how.si_status


def killed(status: int) -> bool:
    """Whether a wait status says SIGKILL, as the kernel's out-of-memory killer sends."""
    return os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL


def resident_bytes(pid: int) -> int:
    """Resident memory of a process in bytes; 0 when it is gone or the platform does not tell."""
    return resident(pid)


def own_resident_bytes() -> int:
    """Resident memory of this process in bytes; where only the peak is known, the peak."""
    now = resident_bytes(os.getpid())
    if now:
        return now
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def descriptor_ceiling() -> int:
    """How many descriptors this process could have open, if it raised its limit as high as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, DESCRIPTORS)


def most_descriptors() -> int:
    """How many descriptors this process may have open, once its limit is as high as it may raise it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = descriptor_ceiling()
    if soft == resource.RLIM_INFINITY or soft >= most:
        return most
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        return most
    return soft

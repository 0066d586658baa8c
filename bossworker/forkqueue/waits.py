"""The ways to wait for a child: any process's own, as the ``os.wait`` family has them, and those of one queue."""

from __future__ import annotations

import errno
import operator
import os
import resource
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from bossworker.forkqueue.children import Children, Kept, KernelWait, Report
from bossworker.forkqueue.sleeper import TICK_SECONDS
from bossworker.system.originals import native

T = TypeVar("T")
Status = TypeVar("Status", tuple[int, int], tuple[int, int, Any])

_NO_REPORT = Report(0, 0, resource.struct_rusage((0,) * 16))
_CORE_DUMPED = 0x80  # in a wait status


class Waits:
    """Waits for the children of a table and, where ``os`` would, for any other child of this process."""

    def __init__(self, children: Children) -> None:
        self._children = children

    # -- as in os: they wait in the kernel, so that errors, signals and flags are the kernel's --------------------

    def wait(self) -> tuple[int, int]:
        """``os.wait()``."""
        found: tuple[int, int] = self._any(-1, native("wait"), lambda kept: kept.pair)
        return found

    def waitpid(self, pid: int, options: int) -> tuple[int, int]:
        """``os.waitpid()``."""
        found: tuple[int, int] = self._any(
            operator.index(pid), lambda: native("waitpid")(pid, options), lambda kept: kept.pair
        )
        return found

    def wait3(self, options: int) -> tuple[int, int, Any]:
        """``os.wait3()``."""
        found: tuple[int, int, Any] = self._any(-1, lambda: native("wait3")(options), lambda kept: kept.triple)
        return found

    def wait4(self, pid: int, options: int) -> tuple[int, int, Any]:
        """``os.wait4()``."""
        found: tuple[int, int, Any] = self._any(
            operator.index(pid), lambda: native("wait4")(pid, options), lambda kept: kept.triple
        )
        return found

    def _any(self, target: int, call: Callable[[], Status], of_kept: Callable[[Kept], Status]) -> Status:
        def handed_out(found: Status) -> bool:
            return self._is_handed_out(found[0], found[1])

        return self._hand_out(target, call, handed_out, lambda: self._children.take_kept(target), of_kept)

    def _is_handed_out(self, pid: int, status: int) -> bool:
        """Note what the kernel said; whether the program is to hear of it."""
        ended = pid != 0 and (os.WIFEXITED(status) or os.WIFSIGNALED(status))
        return not (ended and self._children.settle(pid, status) and self._children.ignored)

    def waitid(self, idtype: int, number: int, options: int) -> Any:
        """``os.waitid()``."""

        def handed_out(info: Any) -> bool:
            status = _status(info) if info is not None else None
            if status is None or (options & os.WNOWAIT and not self._children.ignored):
                return True
            if options & os.WNOWAIT:
                return not self._children.drop(info.si_pid)
            return self._is_handed_out(info.si_pid, status)

        def kept() -> Kept | None:
            if not options & os.WEXITED or target is None:
                return None
            return self._children.take_kept(target, consume=not options & os.WNOWAIT)

        target = _target(idtype, number)
        return self._hand_out(
            -1 if target is None else target,
            lambda: native("waitid")(idtype, number, options),
            handed_out,
            kept,
            operator.attrgetter("info"),
        )

    def _hand_out(
        self,
        target: int,
        call: Callable[[], T],
        handed_out: Callable[[T], bool],
        kept: Callable[[], Kept | None],
        of_kept: Callable[[Kept], T],
    ) -> T:
        """A kept status, if there is one; otherwise what the kernel says, as often as that is to be ignored."""
        children = self._children
        while True:
            wait = KernelWait(target)
            try:
                with children.lock:
                    # Before the look, under one lock: a queue that reaps has kept the status by now, where we look for
                    # it, or sees us here and does not reap.
                    children.enter_kernel(wait)
                    found = kept()
                if found is not None:
                    return of_kept(found)
                # Without the lock, for as long as it takes. The child that ends this may be counted, or looked at, by
                # others until we hold the lock again: to them it is lost, not gone (`Children._lose`).
                answer = call()
                with children.lock:
                    if handed_out(answer):
                        return answer
            finally:
                with children.lock:
                    children.leave_kernel(wait)

    # -- of the queue's own children ----------------------------------------------------------------------------

    def wait_own(self, options: int = 0) -> tuple[int, int]:
        """As ``os.waitpid(-1, options)``, but for the queue's own children alone.

        A status of somebody else's child, such as subprocess has them, stays for whoever started that.
        """
        beyond_ends = options & (os.WUNTRACED | getattr(os, "WCONTINUED", 0))

        def ready() -> Report | None:
            return self._own_report(options) or (_NO_REPORT if options & os.WNOHANG else None)

        found = self._children.until(ready, lambda: TICK_SECONDS if beyond_ends else None)
        return found.pid, found.status

    def _own_report(self, options: int) -> Report | None:
        kept = self._children.take_kept(-1)
        if kept is not None:
            return kept.report
        for pid in self._children.unreaped():
            try:
                # One by one, and never -1: that could take the status of a child that is not the queue's.
                report = Report(*native("wait4")(pid, options | os.WNOHANG))
            except ChildProcessError:
                self._children.settle(pid, None)
                continue
            if report.pid and self._is_handed_out(report.pid, report.status):
                return report
        self._children.found_none()
        if not self._children.unreaped():
            raise ChildProcessError(errno.ECHILD, _no_children())
        return None

    def until_ended(self, pids: Sequence[int], deadline: float | None) -> None:
        """Wait until all of them have ended, without taking a status. TimeoutError at the deadline (monotonic)."""

        left = list(pids)

        def ready() -> bool | None:
            # Only the last one is watched: those before it may end meanwhile, and are looked at in their turn.
            while left and self._children.has_ended(left[-1]):
                left.pop()
            if left and deadline is not None and time.monotonic() >= deadline:
                running = [str(pid) for pid in left if not self._children.has_ended(pid)]
                raise TimeoutError(f"still running: process {', '.join(running)}")
            return None if left else True

        def seconds() -> float | None:
            return None if deadline is None else deadline - time.monotonic()

        self._children.until(ready, seconds, watched=lambda: left[-1:])

    def status_of(self, pid: int) -> int | None:
        """The status of a child that has ended; None when there is none to be had (any more)."""
        try:
            return self.waitpid(pid, 0)[1]
        except ChildProcessError:
            return None


def sigchld_ignored() -> bool:
    """Whether the kernel has been told to reap this process's children itself, and to keep no status."""
    return signal.getsignal(signal.SIGCHLD) is signal.SIG_IGN


def _no_children() -> str:
    text = os.strerror(errno.ECHILD)
    return f"{text} (SIGCHLD is ignored, so no exit status is kept)" if sigchld_ignored() else text


def _status(info: Any) -> int | None:
    """The wait status that goes with an ``os.waitid_result``; None when the child has not ended."""
    if info.si_code == os.CLD_EXITED:
        return int(info.si_status) << 8
    if info.si_code in (os.CLD_KILLED, os.CLD_DUMPED):
        return int(info.si_status) | (_CORE_DUMPED if info.si_code == os.CLD_DUMPED else 0)
    return None


def _target(idtype: int, number: int) -> int | None:
    """What ``os.waitpid`` would take for it; None for a pidfd, which it cannot say."""
    if idtype == os.P_ALL:
        return -1
    if idtype == os.P_PID:
        return operator.index(number)
    return -operator.index(number) if idtype == os.P_PGID else None

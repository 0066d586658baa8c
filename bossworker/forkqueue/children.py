"""Which children a queue has, and which of them have ended.

The queue looks at its children without reaping them: an ended child stays a zombie until the program asks for its
status. So every call of the ``os.wait`` family gives what it gives without a queue, the real resource usage included;
a program that still means to signal a child cannot hit another process that got its number; and code that holds a
reference to the real ``os.waitpid`` works as ever. Only when a program lets more than MOST_ZOMBIES pile up, or where
the platform cannot look without reaping (macOS before Python 3.13), does the queue reap; it then keeps the status and
hands it out once. (Never to reap would save a hundred lines, and leave a program that waits for none of its children
without pids: with 800 of them, fork fails after 798.)
"""

from __future__ import annotations

import os
import resource
import signal
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar
from weakref import WeakSet

from bossworker.forkqueue.sleeper import Sleeper
from bossworker.system import processes
from bossworker.system.originals import native

T = TypeVar("T")

Started = tuple[int, int]
"""A pid, 0 in the child, below that when nothing was started; and the descriptor that comes with it, if one does."""

MOST_ZOMBIES = 256  # a pid and a place in the process table each; limits on both are counted in thousands at least


class Note(Protocol):
    """Says what happens, in debug mode."""

    def __call__(self, message: str, *args: object) -> None: ...


@dataclass(slots=True, eq=False)
class Child:
    """A child of the queue. `status` is known once anybody has taken it through the queue."""

    pid: int
    weight: int
    status: int | None = None


class Report(NamedTuple):
    """What ``os.wait4`` gives."""

    pid: int
    status: int
    usage: resource.struct_rusage


class Kept(NamedTuple):
    """The status of a child that the queue has reaped and nobody has asked for yet."""

    child: Child
    report: Report
    group: int
    info: Any  # os.waitid_result; None where there is no os.waitid

    @property
    def pair(self) -> tuple[int, int]:
        """As from ``os.waitpid``."""
        return self.report[:2]

    @property
    def triple(self) -> tuple[int, int, resource.struct_rusage]:
        """As from ``os.wait4``."""
        return self.report[:3]


@dataclass(slots=True, eq=False)
class KernelWait:
    """One call of a thread that waits inside the kernel for `target`: a pid, or what ``os.waitpid`` takes for one."""

    target: int


class Children:
    """The children of one queue. All but `until` and `wake` are for holders of the lock.

    A signal handler may come between any two steps, holds the lock with the thread that it interrupted, and may reap or
    fork. So loops go over copies, and what was found may be gone when it is taken.
    """

    def __init__(self, note: Note) -> None:
        self.ignored = False
        """Whether statuses are dropped instead of handed out."""
        self._note = note
        self._reset()

    def _reset(self) -> None:
        self.lock = threading.RLock()
        self._running: dict[int, Child] = {}
        self._zombies: dict[int, Child] = {}
        self._kept: dict[int, list[Kept]] = {}  # a pid may come back before its first status is asked for
        self._targets: list[KernelWait] = []  # what other threads are waiting for inside the kernel
        self._lost: dict[int, Child] = {}  # gone without a status, while such a thread may be about to tell it
        self._sleepers: WeakSet[Sleeper] = WeakSet()  # so that one which an interrupt keeps from `_dismiss` goes, too
        self._starting = self._missed = False

    def forget_in_child(self) -> None:
        """In a forked child, which has no children yet; the threads that slept here are not there any more."""
        sleepers = list(self._sleepers)
        self._reset()  # first: whatever is closed must be woken no more
        for sleeper in sleepers:
            sleeper.close()

    # -- what there is --------------------------------------------------------------------------------------

    def start(self, weight: int, start: Callable[[], Started]) -> tuple[Child, int]:
        """`start` a child and note it.

        Between the two, the program's SIGCHLD handler may look for just this child and not find it. It is then called
        again: for a child that has ended by now, no other signal would come.
        """
        # A SIGCHLD handler that runs between the fork and `add` looks for a child that is not counted yet. It leaves
        # word of that (`found_none`), and is called once more.
        self._starting, self._missed = True, False
        try:
            pid, fd = start()
            child = Child(pid, weight)
            if pid > 0:
                self.add(child)
        finally:
            self._starting = False
        if self._missed:
            signal.raise_signal(signal.SIGCHLD)
        return child, fd

    def found_none(self) -> None:
        """Somebody looked for an ended child and found none."""
        self._missed = self._starting

    def add(self, child: Child) -> None:
        """A child has been forked. What was known under its pid is over."""
        self._zombies.pop(child.pid, None)
        self._lost.pop(child.pid, None)
        self._running[child.pid] = child
        self._note("process %d started (weight %d)", child.pid, child.weight)
        self.wake()

    def running(self) -> list[int]:
        """The pids of those that had not ended at the last look."""
        return list(self._running)

    def weight(self) -> int:
        """Of those together."""
        return sum(child.weight for child in list(self._running.values()))

    def unreaped(self) -> list[int]:
        """The pids of those whose status is still with the kernel, the ended ones first."""
        return [*self._zombies, *self._running]

    def is_running(self, child: Child) -> bool:
        """Whether it had not ended at the last look."""
        return self._running.get(child.pid) is child

    # -- looking ----------------------------------------------------------------------------------------------

    def look(self) -> None:
        """See which children have ended."""
        for child in list(self._running.values()):
            self._look_at(child)
        surplus = len(self._zombies) - (0 if self.ignored else MOST_ZOMBIES)
        if surplus > 0:
            for child in list(self._zombies.values())[:surplus]:
                self.reap(child)

    def _look_at(self, child: Child) -> None:
        if not hasattr(os, "waitid"):
            self.reap(child)
            return
        try:
            # Looked at without reaping: the program may ask for the status, or signal the pid, at any moment.
            ended = _peek(os.P_PID, child.pid) is not None
        except ChildProcessError:
            self._lose(child.pid)
        else:
            # A signal handler may have reaped it since that look, and even have forked another that has its pid now.
            if ended and self.is_running(child):
                self._zombies[child.pid] = child
                self._running.pop(child.pid, None)
                self._note("process %d ended", child.pid)

    def has_ended(self, pid: int) -> bool:
        """Whether a child of this process has ended, the queue's own or not. What is not a child counts as ended."""
        if pid in self._kept:
            return True
        child = self._running.get(pid) or self._zombies.get(pid) or Child(pid, 0)
        try:
            if hasattr(os, "waitid"):
                return _peek(os.P_PID, pid) is not None
            return self.reap(child)
        except ChildProcessError:
            self._lose(pid)
            return True

    # -- reaping ----------------------------------------------------------------------------------------------

    def reap(self, child: Child) -> bool:
        """Reap a child if it has ended, and keep its status unless statuses are ignored. Whether it is gone.

        Not while another thread waits for it in the kernel: that thread is about to reap it, and if we did, would find
        nothing, or sleep on although a status is there.
        """
        if not self.ignored and self._is_awaited(child.pid):
            return False
        try:
            info = _peek(os.P_PID, child.pid) if hasattr(os, "waitid") else None
            group = _group(child.pid)
            # From here to `_keep` nobody else knows of this status: the lock is held, so no other thread looks for it
            # meanwhile.
            report = Report(*native("wait4")(child.pid, os.WNOHANG))
        except ChildProcessError:
            self._lose(child.pid)
            return True
        if report.pid == 0:
            return False
        self.settle(report.pid, report.status)
        child.status = report.status
        if not self.ignored:
            self._keep(Kept(child, report, group, info))
        return True

    def _keep(self, kept: Kept) -> None:
        """In one step: a signal handler may ask for it at any moment, and must not find a list without a status."""
        fresh = [kept]
        before = self._kept.setdefault(kept.report.pid, fresh)
        if before is not fresh:
            self._kept[kept.report.pid] = [*before, kept]

    def _is_awaited(self, pid: int) -> bool:
        targets = {wait.target for wait in list(self._targets)}
        groups = {-target or os.getpgrp() for target in targets if target <= 0 and target != -1}
        return not targets.isdisjoint((-1, pid)) or bool(groups and _group(pid) in groups)

    def drop(self, pid: int) -> bool:
        """Reap a child of the queue's that has ended, because statuses are ignored. Whether it was one."""
        child = self._running.get(pid) or self._zombies.get(pid)
        return child is not None and self.reap(child)

    def reap_zombies(self) -> None:
        """Reap all that have ended."""
        for child in list(self._zombies.values()):
            self.reap(child)

    def settle(self, pid: int, status: int | None) -> bool:
        """Somebody has reaped this pid; the status is None when it did not pass through here. Whether it was ours."""
        found = [table.pop(pid, None) for table in (self._running, self._zombies, self._lost)]
        child = next(filter(None, found), None)
        if child is None:
            return False
        child.status = status
        end = processes.describe_exit(status) if status is not None else "status not known: somebody else reaped it"
        self._note("process %d reaped (%s)", pid, end)
        self.wake()
        return True

    def _lose(self, pid: int) -> None:
        """Somebody has reaped this pid and did not say so; or not yet, with the status on its way out of the kernel."""
        child = self._running.get(pid) or self._zombies.get(pid)
        self.settle(pid, None)
        # A thread that waits in the kernel has it, and has not come to say so: it finds the child here when it does.
        if child is not None and self._is_awaited(pid):
            self._lost[pid] = child

    def take_kept(self, target: int, consume: bool = True) -> Kept | None:
        """The oldest kept status that a wait for `target` (a pid, or what ``os.waitpid`` takes for one) may have."""
        for kept in self._candidates(target):
            if not consume or self._drop_kept(kept):
                return kept
        return None

    def _candidates(self, target: int) -> list[Kept]:
        if target > 0:
            return self._kept.get(target, [])[:1]
        firsts = [kept[0] for kept in list(self._kept.values())]
        return firsts if target == -1 else [kept for kept in firsts if kept.group == (-target or os.getpgrp())]

    def _drop_kept(self, kept: Kept) -> bool:
        """Whether it was still there: a signal handler may have taken it a moment ago."""
        pid = kept.report.pid
        statuses = self._kept.get(pid, [])
        if kept not in statuses:
            return False
        statuses.remove(kept)
        if not statuses:
            self._kept.pop(pid, None)
        return True

    def drop_all_kept(self) -> None:
        """Forget the statuses that nobody has asked for."""
        self._kept.clear()

    def collect(self, child: Child) -> int | None:
        """Take the status of a child that has ended, so that nobody else gets it; None when it cannot be known."""
        if self._zombies.get(child.pid) is child:
            self.reap(child)
        for kept in self._kept.get(child.pid, ()):
            if kept.child is child:
                self._drop_kept(kept)
                break
        return child.status

    # -- waiting ----------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have every sleeping thread look again."""
        # Under the lock: a sleeper is closed under it as well, so nobody writes to a descriptor that means something
        # else by now.
        with self.lock:
            for sleeper in list(self._sleepers):
                sleeper.wake()

    def until(
        self,
        ready: Callable[[], T | None],
        seconds: Callable[[], float | None],
        watched: Callable[[], Sequence[int]] | None = None,
    ) -> T:
        """What `ready` returns, as soon as that is not None; all three are called under the lock.

        `seconds`: the longest sleep until `ready` is to be asked again. `watched`: the pids whose end is worth a look,
        by default those of the running children.
        """
        while True:
            sleeper = None
            try:
                with self.lock:
                    value = ready()
                    if value is not None:
                        return value
                    longest, pids = seconds(), (watched or self.running)()
                    sleeper = Sleeper()
                    # Added with the lock still held since `ready` said no: whoever changes something after that finds
                    # it here. It may be woken before it sleeps; then it does not.
                    self._sleepers.add(sleeper)
                sleeper.sleep(pids, longest)
            finally:
                if sleeper is not None:
                    self._dismiss(sleeper)

    def _dismiss(self, sleeper: Sleeper) -> None:
        with self.lock:
            self._sleepers.discard(sleeper)
            sleeper.close()

    def enter_kernel(self, wait: KernelWait) -> None:
        """This thread is about to wait in a call of its own."""
        self._targets.append(wait)

    def leave_kernel(self, wait: KernelWait) -> None:
        """That is over, well or not."""
        # It may not be there: Ctrl-C came before it was, or we are in a child that a signal handler has forked in the
        # middle of it. Another thread's wait for the same must stay; so it is this very one that is taken out.
        with suppress(ValueError):
            self._targets.remove(wait)
        if not self._targets:
            self._lost.clear()


def _peek(idtype: int, number: int) -> Any:
    """Whether a child has ended, without taking its status: an ``os.waitid_result`` or None."""
    return native("waitid")(idtype, number, os.WEXITED | os.WNOHANG | os.WNOWAIT)


def _group(pid: int) -> int:
    """The process group of a child that has not been reaped; 0 where it cannot be told."""
    try:
        return os.getpgid(pid)
    except OSError:
        return 0

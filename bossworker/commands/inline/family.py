"""Which children of this process are a command's: what may be ended and reaped with it, and nothing else.

In a pool's worker without threads, every child that appears while the command runs is the command's. Anywhere else
another thread may start processes, or run another command, meanwhile: there a child must show whose it is, by having
been seen below the command, by the job's id in its environment, or by being in the session of one that shows it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from collections.abc import Iterable

from bossworker.commands.request import JOB_VARIABLE
from bossworker.system import descendants, identity, proc

EXEC_SECONDS = 1.0  # what exec may take at most from where its caller goes on: microseconds, if it gets a core
_PAUSE = 0.0005  # seconds between looks whether it has taken place
MOST_JOBS = 1000  # that have left something running, and whose late orphans we know


class Family:
    """A command and all that it has started."""

    def __init__(self, jobid: str, in_pool: bool, pid: int = 0, others: Iterable[int] = ()) -> None:
        """
        Args:
            pid: The command's, if it runs already. Otherwise this is made before it is started: what there is by then
                is not the command's.
            others: The pids of other commands of this process, if it runs already.
        """
        self.pid = pid
        self._mark = f"\0{JOB_VARIABLE}={jobid}\0".encode()
        self._in_pool = in_pool
        self._known: dict[int, object] = {}  # start times
        self._sessions: set[int] = set()  # that only the command's processes are in
        self._before = frozenset(others)
        if not pid and descendants.has_children():
            _leavings.reap(in_pool)
            self._before = frozenset(descendants.children(os.getpid()))
        self._gone = False  # nobody is left, and nobody can come any more

    def members(self) -> list[int]:
        """All of it, zombies among them, parents first."""
        found: list[int] = []
        for child in self._children():
            if self._was_seen(child) or not _leavings.has(child):
                found += [child, *descendants.descendants(child)]
        for pid in found:
            self._known.setdefault(pid, _started(pid))
        return found

    def reap(self) -> None:
        """Reap what has come to us by it and has ended, but the command itself."""
        for child in self._children():
            if child != self.pid:
                _reap(child)
        if not (self._in_pool or adoption.was_there):
            for child in self._unseen():
                _reap(child)

    def reap_group(self) -> None:
        """Reap what is left of the command's process group, once the command itself is reaped. Needs no /proc."""
        try:
            while os.waitpid(-self.pid, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            pass

    def _unseen(self) -> list[int]:
        """Children that ended before it was seen whose they were, but can be nobody's but a command's.

        A child of another thread is in our session, or leads one; so one that does is only taken where there is none.
        """
        ended = [child for child in descendants.children(os.getpid()) if identity.start_time(child) is None]
        alone = threading.active_count() == 1
        new = [child for child in ended if alone and child not in self._before]
        strange = [child for child in ended if _session(child) not in (0, child, os.getsid(0))]
        return [child for child in {*new, *strange} if child != self.pid]

    def leave(self) -> None:
        """The command has ended; what it leaves running is to be reaped some day."""
        if not self._gone:
            _leavings.add(self._children())

    def _children(self) -> list[int]:
        if not descendants.has_children():
            self._gone = True
            return []
        # A child may end, and be adopted, while this is listed: so whoever ends a family asks until nobody is found.
        ours = [child for child in descendants.children(os.getpid()) if not descendants.is_detached(child)]
        if self._in_pool and threading.active_count() == 1:
            return [child for child in ours if child not in self._before]
        found = [child for child in ours if child == self.pid or child not in self._before]
        self._sessions |= {self.pid, *(_session(child) for child in found if self._shows(child))} - {0, os.getsid(0)}
        return [child for child in found if _session(child) in self._sessions or self._shows(child)]

    def _shows(self, child: int) -> bool:
        """Whether it is seen of this child itself."""
        return child == self.pid or self._was_seen(child) or self._mark in _environment(child)

    def _was_seen(self, child: int) -> bool:
        # By its start time, too: its number may be another child's by now, of another thread's perhaps.
        return child in self._known and self._known[child] == _started(child)


class _Leavings:
    """What commands that have ended left running, as children of ours."""

    def __init__(self) -> None:
        self._lock = threading.RLock()  # a signal handler may run a command while the program does
        self._left: dict[int, object] = {}  # start times
        self._jobs: deque[bytes] = deque(maxlen=MOST_JOBS)

    def has(self, child: int) -> bool:
        """Whether a child is one of them; it may come while a later command runs, if it had a parent until then."""
        return (child in self._left and self._left[child] == _started(child)) or _job(child) in self._jobs

    def add(self, children: list[int]) -> None:
        """They were adopted."""
        if children:
            with self._lock:
                self._left.update((child, _started(child)) for child in children)
                self._jobs.extend({_job(child) for child in children} - {b"", *self._jobs})

    def reap(self, in_pool: bool) -> None:
        """Reap those that have ended, and in a pool's worker what they in turn have left us."""
        if not (in_pool or self._left):
            return
        with self._lock:
            self._reap(in_pool, os.getsid(0))

    def _reap(self, in_pool: bool, ours: int) -> None:
        for child in descendants.children(os.getpid()):
            known = child in self._left and self._left[child] == _started(child)
            if (known or (in_pool and _session(child) not in (ours, child, 0))) and _reap(child):
                self._left.pop(child, None)

    def forget(self) -> None:
        """In a forked child: they are the parent's."""
        self.__init__()  # type: ignore[misc]


class _Adoption:
    """Whether orphans come to this process: while any command runs, and for good where it was so before (Linux)."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._commands = 0
        self._was = False

    @property
    def was_there(self) -> bool:
        """Before the commands."""
        return self._was

    def __enter__(self) -> None:
        with self._lock:
            if not self._commands:
                was = descendants.adopts_orphans()
                if not was:
                    descendants.adopt_orphans()
                # A signal handler that has run a command since we looked found them adopted already, and left it so.
                self._was = was
            self._commands += 1

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._commands -= 1
            if not self._commands and not self._was:
                descendants.adopt_orphans(False)

    def forget(self) -> None:
        """In a forked child: no command of ours runs."""
        self.__init__()  # type: ignore[misc]


_leavings = _Leavings()
adoption = _Adoption()
for _one in (_leavings, adoption):
    os.register_at_fork(after_in_child=_one.forget)


def _reap(child: int) -> bool:
    """Whether it is gone."""
    try:
        return os.waitpid(child, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True


def _started(pid: int) -> object:
    found = identity.of(pid)
    return found and found[1]


def _session(pid: int) -> int:
    """The session's number: the pid of the process that began it. A child of ours begins only its own. 0: unknown."""
    try:
        return os.getsid(pid)
    except OSError:
        return 0


def _job(pid: int) -> bytes:
    """The id of the job that it says to be of; empty of one that says nothing."""
    return _environment(pid).partition(f"\0{JOB_VARIABLE}=".encode())[2].partition(b"\0")[0]


def _environment(pid: int) -> bytes:
    """As it was at exec, each variable between two NULs; empty of a zombie, and of one that is not for us to see.

    Whoever starts a program goes on before exec has taken place: until then it has none, and we wait.
    """
    give_up_at = time.monotonic() + EXEC_SECONDS
    try:
        while True:
            with open(f"/proc/{pid}/environ", "rb", buffering=0) as file:
                variables = file.readall()
            # An empty environment may mean that exec is taking place just now. Whether it does is asked after the
            # reading, so a program that has none is not waited for.
            if variables or not proc.amid_exec(pid) or time.monotonic() >= give_up_at:
                return b"\0" + variables
            time.sleep(_PAUSE)
    except OSError:
        return b""

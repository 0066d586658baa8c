"""What a job has started and left running when its time was up. It ends with the job; nothing else does.

A handler that is in ``subprocess.run("… | …", shell=True)`` when JobTimeout is raised leaves programs behind, which
would live as long as the worker: some at each timeout. To be spared are what an init_handler has started (a server
that all jobs use), what earlier jobs have left on purpose, all in the process groups of those, and the processes that
`multiprocessing` keeps for itself. Known are the children that
were there when the batch began; those that earlier jobs of the same batch have started are told by their age.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress

from bossworker.system import descendants, multiprocess, proc, processes

END_SECONDS = 0.2  # for all of it to be gone; what is not then goes with the worker
_PAUSE = 0.001  # seconds between looks
_NONE: frozenset[int] = frozenset()


class Offspring:
    """See the module."""

    def __init__(self) -> None:
        self._before: frozenset[int] = frozenset()

    def note(self) -> None:
        """A batch begins: what is there now was not started by its jobs."""
        self._before = frozenset(proc.children(os.getpid())) if descendants.has_children() else _NONE

    def end_since(self, started: float) -> None:
        """End what the job has started that began then (monotonic seconds), with all that is below it."""
        first_tick = _boot_ticks(started)
        deadline = time.monotonic() + END_SECONDS
        killed: set[int] = set()
        while (doomed := self._since(first_tick)) and time.monotonic() < deadline:
            for child in doomed:
                if child not in killed:
                    killed.add(child)
                    processes.kill_tree(child)
                with suppress(ChildProcessError):  # the handler's own object for it finds it gone
                    os.waitpid(child, os.WNOHANG)
            time.sleep(_PAUSE)

    def _since(self, first_tick: int) -> list[int]:
        """Our children that began then or later. Orphans below them become ours as their parents end."""
        if not descendants.has_children():
            return []
        spared = self._groups()
        kept = self._before | multiprocess.server_pids()
        return [
            child
            for child in proc.children(os.getpid())
            if child not in kept
            and (proc.state_and_start(child)[1] or 0) >= first_tick
            and _group(child) not in spared
            and not descendants.is_detached(child)
        ]

    def _groups(self) -> set[int]:
        """The process groups of what was there before, but for our own, in which anything may be."""
        return {_group(pid) for pid in self._before} - {os.getpgrp(), 0}


def _group(pid: int) -> int:
    with suppress(ProcessLookupError):
        return os.getpgid(pid)
    return 0


def _boot_ticks(monotonic: float) -> int:
    """A monotonic time as /proc tells when a process was started: in clock ticks since the machine was."""
    now = time.clock_gettime(time.CLOCK_BOOTTIME) if hasattr(time, "CLOCK_BOOTTIME") else time.monotonic()
    return int((now - (time.monotonic() - monotonic)) * os.sysconf("SC_CLK_TCK"))

"""What commands that have ended have left running, in the process that was their parent."""

from __future__ import annotations

import os
from collections.abc import Container, Sized
from typing import Protocol

from bossworker.system import identity

_LISTED, _EACH = 1 << 12, 16  # bytes of a list of children, and those of one in it


class Pids(Container[int], Sized, Protocol):
    """Such as a dict's keys."""


class Remainder:
    """Looks for it."""

    def __init__(self) -> None:
        """For a process with one thread."""
        try:
            self._children = os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # there is no such list; then what has left its command's group is not seen
            self._children = -1

    def is_left_by(self, pid: int, running: Pids) -> bool:
        """Whether anything of a command that is reaped, or of one before it, may still write; what has ended is reaped.

        Args:
            running: The pids of those that run, which are our children as well.
        """
        # The list may lack one if another child ends while it is read. What is in the command's group is seen anyhow.
        if identity.exists(-pid):
            return True
        if self._children < 0:
            return False
        children = os.pread(self._children, _LISTED + _EACH * len(running), 0).split()
        if len(children) == len(running):
            return False
        left = [child for child in map(int, children) if child not in running and not _reap(child)]
        return bool(left)


def reap_all() -> None:
    """All children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def _reap(pid: int) -> bool:
    """Whether it is gone."""
    try:
        return os.waitpid(pid, os.WNOHANG)[0] != 0
    except ChildProcessError:
        return True

"""What commands that have ended have left running, in the process that was their parent."""

from __future__ import annotations

import os
from collections.abc import Container

from bossworker.system import identity

_LISTED, _WHOLE = 1 << 12, 3000  # bytes of a list of children that are given at most; those of one that is whole


class Remainder:
    """Looks for it."""

    def __init__(self) -> None:
        """For a process whose main thread alone uses it."""
        self._children = open_children()  # without it, what has left its command's group is not seen

    def is_left_by(self, pid: int, running: Container[int]) -> bool:
        """Whether anything of a command that is reaped, or of one before it, may still write; what has ended is reaped.

        Args:
            running: The pids of those that run, which are our children as well.
        """
        while True:
            listed = os.pread(self._children, _LISTED, 0) if self._children >= 0 else None
            whole = listed is not None and len(listed) < _WHOLE
            if not whole and identity.exists(-pid):
                return True
            # Nobody leaves that list but whom we reap. Whatever the command has left came there before it could be
            # reaped; and so, once one of these has ended, did whatever that has left.
            strange = [child for child in map(int, (listed or b"").split()) if child not in running]
            if not strange:
                return False
            if [child for child in strange if not _reap(child)]:
                return True


def open_children() -> int:
    """A list of those whom our main thread has started, or who came to us as orphans; -1: there is none."""
    try:
        return os.open(f"/proc/self/task/{os.getpid()}/children", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return -1


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

"""Supervisors that belong to nobody: a task that was spawned as a daemon by a task does not end with that one.

They are below that one's supervisor all the same, since it adopts orphans; so they are known by a name of their own,
which the kernel keeps (Linux), and which their commands do not inherit.
"""

from __future__ import annotations

import os

from bossworker.commands import tree

NAME = b"bossworker-task"  # as long as the kernel allows
_SET_NAME = 15  # PR_SET_NAME


def become() -> None:
    """Be such a supervisor, in a session of its own."""
    os.setsid()
    if os.path.isdir("/proc/self"):
        tree.load_prctl()(_SET_NAME, NAME, 0, 0, 0)


def is_one(pid: int) -> bool:
    """Whether a process is such a supervisor."""
    try:
        with open(f"/proc/{pid}/comm", "rb", buffering=0) as file:
            return file.readall() == NAME + b"\n"
    except OSError:
        return False

"""``os.fork`` in the name of the program that called us.

From Python 3.12 on, a fork in a process with threads has a DeprecationWarning: the child may find a lock taken by a
thread that it does not have. Python shows such warnings for a program's own lines, not for a library's; and the line
that can do something about it (start no thread before, or take ``start_method="spawn"``) is the program's.
"""

from __future__ import annotations

import sys

from bossworker.system.callers_line import call_for_caller
from bossworker.system.originals import native

_WARNS = sys.version_info >= (3, 12)


def fork() -> int:
    """``os.fork()``; its warning, if there is one, names the last line before this package."""
    pid: int = call_for_caller(native("fork")) if _WARNS else native("fork")()
    return pid

"""``os.fork`` in the name of the program that called us.

From Python 3.12 on, a fork in a process with threads has a DeprecationWarning: the child may find a lock taken by a
thread that it does not have. Python shows such warnings for a program's own lines, not for a library's; and the line
that can do something about it (start no thread before, or take ``start_method="spawn"``) is the program's.
"""

from __future__ import annotations

import inspect
import sys
from types import FrameType

from bossworker.system.originals import native

_WARNS = sys.version_info >= (3, 12)
_PACKAGE = __name__.partition(".")[0]


def fork() -> int:
    """``os.fork()``; its warning, if there is one, points at the last line before this package."""
    caller = _outside(inspect.currentframe()) if _WARNS else None
    if caller is None:
        return native("fork")()  # type: ignore[no-any-return]
    # The warning names the file and line of the code that calls fork: this code says that it is the caller's.
    code = compile("\n" * (caller.f_lineno - 1) + "fork()", caller.f_code.co_filename, "eval")
    return eval(code, caller.f_globals, {"fork": native("fork")})  # type: ignore[no-any-return]


def _outside(frame: FrameType | None) -> FrameType | None:
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame

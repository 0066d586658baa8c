"""``os.fork`` in the name of the program that called us.

From Python 3.12 on, a fork in a process with threads has a DeprecationWarning: the child may find a lock taken by a
thread that it does not have. Python shows such warnings for a program's own lines, not for a library's; and the line
that can do something about it (start no thread before, or take ``start_method="spawn"``) is the program's.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FunctionType

from bossworker.system.callers_line import callers_frame
from bossworker.system.originals import native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_WARNS = sys.version_info >= (3, 12)
_CALL = (lambda function: function()).__code__


def fork() -> int:
    """``os.fork()``; its warning, if there is one, names the last line before this package."""
    pid: int = call_for_caller(native("fork")) if _WARNS else native("fork")()
    return pid


def call_for_caller(function: Callable[[], Any]) -> Any:
    """Call a function that may warn as if the line outside this package that led here called it."""
    caller = callers_frame() if _WARNS else None
    if caller is None:
        return function()
    # The frame that calls has the name, line and globals (with their register of warnings shown) of the caller's.
    code = _CALL.replace(co_filename=caller.f_code.co_filename, co_firstlineno=caller.f_lineno)
    return FunctionType(code, caller.f_globals)(function)


def patched_by_gevent() -> bool:
    """Whether gevent has put its own for what blocks. Its loop, which that needs, does not outlive a fork."""
    monkey: Any = sys.modules.get("gevent.monkey")
    return monkey is not None and any(map(monkey.is_module_patched, ("os", "select", "socket", "threading", "time")))

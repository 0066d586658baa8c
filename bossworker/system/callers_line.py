"""The line of the program that called into this package: there a warning points, and there a fork is seen to happen."""

from __future__ import annotations

import sys
import warnings
from types import FrameType

from bossworker.system.originals import native

_PACKAGE = __name__.partition(".")[0]


def callers_frame() -> FrameType:
    """The innermost frame that is not of this package."""
    frame = sys._getframe(1)
    while frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE and frame.f_back is not None:
        frame = frame.f_back
    return frame


def warn_caller(text: str, category: type[Warning]) -> None:
    """A warning that points to the caller's line, and is shown once for it."""
    frame = callers_frame()
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__")
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, name, registry)


def fork_at_callers_line() -> int:
    """``os.fork``, as if the caller's line had called it.

    From 3.12 on Python warns of a fork in a program with threads, for the line that forks: attributed to one of ours,
    the warning would be hidden, and nobody would know which line to change. So the call is compiled for that line.
    """
    fork = native("fork")
    if sys.version_info < (3, 12):
        return int(fork())
    frame = callers_frame()
    line = compile("pid = fork()", frame.f_code.co_filename, "exec").replace(co_firstlineno=frame.f_lineno)
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    names = {"fork": fork, "__name__": frame.f_globals.get("__name__"), "__warningregistry__": registry}
    exec(line, names)
    return int(names["pid"])

"""The line of the program that called into this package: where a warning is seen, and something done about it."""

from __future__ import annotations

import warnings
from types import FrameType

from bossworker.system.cpython import current_frame

_PACKAGE = __name__.partition(".")[0]


def callers_frame() -> FrameType | None:
    """The innermost frame that is not of this package; None where there is none, in a thread of ours for example."""
    frame: FrameType | None = current_frame()
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame


def warn_caller(text: str, category: type[Warning]) -> None:
    """A warning that points to that line, and is shown once for it."""
    frame = callers_frame()
    if frame is None:
        warnings.warn(text, category, stacklevel=2)
        return
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__")
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, name, registry)

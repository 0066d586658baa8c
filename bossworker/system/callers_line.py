"""The line of the program that called into this package: there its warnings point, and there its forks are seen."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable
from types import FrameType, FunctionType
from typing import Any

_PACKAGE = __name__.partition(".")[0]


def callers_frame() -> FrameType:
    """The innermost frame that is not of this package."""
    frame = inspect.currentframe()
    assert frame is not None  # CPython has frames
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame = frame.f_back
    return frame


def warn_caller(text: str, category: type[Warning]) -> None:
    """A warning that points to that line, and is shown once for it."""
    frame = callers_frame()
    registry = frame.f_globals.setdefault("__warningregistry__", {})
    name = frame.f_globals.get("__name__")
    warnings.warn_explicit(text, category, frame.f_code.co_filename, frame.f_lineno, name, registry)


def call_for_caller(function: Callable[[], Any]) -> Any:
    """Call a function as if the line outside this package that led here called it.

    From Python 3.12 on, ``os.fork`` warns when other threads run. Python shows a DeprecationWarning only if the line
    that it names is the program's own; a line of this package would hide it. So the frame that calls has the name, the
    line and the globals (with their register of warnings shown) of the caller's frame.
    """
    frame = callers_frame()
    code = _CALL.replace(co_filename=frame.f_code.co_filename, co_firstlineno=frame.f_lineno)
    return FunctionType(code, frame.f_globals)(function)


_CALL = (lambda function: function()).__code__

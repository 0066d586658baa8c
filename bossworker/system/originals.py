"""The system's own calls, also while the fork queue stands in their place.

For the queue itself, and for the pool's processes, which live as long as the pool and must not wait in a queue.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from types import FunctionType
from typing import Any

replaced: dict[str, Callable[..., Any]] = {}
"""What ``install`` found in ``os``, by name. Empty when nothing is installed; ``forkqueue/installed.py`` owns it."""


def native(name: str) -> Any:
    """``os.<name>`` as it is without ours; looked up at each call, so that what others put there is honoured."""
    return replaced.get(name) or getattr(os, name)


def call_for_caller(function: Callable[[], Any]) -> Any:
    """Call a function as if the line outside this package that led here called it.

    From Python 3.12 on, ``os.fork`` warns when other threads run. Python shows a DeprecationWarning only if the line
    that it names is the program's own; a line of this package would hide it. So the frame that calls has the name, the
    line and the globals (with their register of warnings shown) of the caller's frame.
    """
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("bossworker."):
        frame = frame.f_back
    code = _CALL.replace(co_filename=frame.f_code.co_filename, co_firstlineno=frame.f_lineno)
    return FunctionType(code, frame.f_globals)(function)


_CALL = (lambda function: function()).__code__

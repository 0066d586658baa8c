"""Exit functions that every process registers for itself."""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable

_registered: dict[Callable[[], object], int] = {}  # and the process that has done so


def run_at_exit(act: Callable[[], object]) -> None:
    """Have it called as this process ends, once. A forked child has to ask anew: it may have dropped its parent's."""
    if _registered.get(act) != os.getpid():
        _registered[act] = os.getpid()
        atexit.register(act)

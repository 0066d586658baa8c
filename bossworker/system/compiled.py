"""The compiled core, where there is one: ``native/*.c``, built as ``bossworker._core`` by the installation.

It does what a tiny job costs most of, and says the same to the byte as the Python that stands in for it, here and in
processes at the other end. There is none where no C compiler was found, and on systems other than Linux.
"""

from __future__ import annotations

import os
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INTERFACE = 6  # of the one that goes with this Python; another, left over from an older version, is not used
PURE = "BOSSWORKER_PURE"  # in the environment, other than empty or 0: do without


def unwanted() -> bool:
    """Whether the environment says that it is not to be used."""
    return os.environ.get(PURE, "0") not in ("", "0")


def _load() -> ModuleType | None:
    if unwanted():
        return None
    try:
        from bossworker import _core
    except ImportError:
        return None
    return _core if getattr(_core, "INTERFACE", 0) == INTERFACE else None


core: Any = _load()
"""The module, or None; ``_core.pyi`` says what is in it."""


def explain() -> str:
    """Whether it is used, and why not."""
    if core is not None:
        return "used for tiny jobs, and to start the commands of a run"
    why = f"{PURE} is set" if unwanted() else "it was not built: that needs Linux, a C compiler and Python's headers"
    return f"not used ({why}); tiny jobs take about twice the time"

"""The system's own calls, also while the fork queue stands in their place.

For the queue itself, and for the pool's processes, which live as long as the pool and must not wait in a queue.
"""

from __future__ import annotations

import os
from collections.abc import Callable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

replaced: dict[str, Callable[..., Any]] = {}
"""What ``install`` found in ``os``, by name. Empty when nothing is installed; ``forkqueue/installed.py`` owns it."""


def native(name: str) -> Any:
    """``os.<name>`` as it is without ours; looked up at each call, so that what others put there is honoured."""
    return replaced.get(name) or getattr(os, name)

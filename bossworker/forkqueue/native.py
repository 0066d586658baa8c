"""The system's own calls, whoever stands in their place."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

replaced: dict[str, Callable[..., Any]] = {}
"""What ``install`` found in ``os``, by name. Empty when nothing is installed; `installed.py` owns it."""


def native(name: str) -> Any:
    """``os.<name>`` as it is without ours; looked up at each call, so that what others put there is honoured."""
    return replaced.get(name) or getattr(os, name)

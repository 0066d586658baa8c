"""JSON that any browser reads, whatever jobs tell of."""

from __future__ import annotations

import json
import math
from typing import Any


def to_json(value: Any) -> str:
    """As JSON of ASCII letters alone: a job may tell of any text. A number that JSON does not have becomes null."""
    try:
        return json.dumps(value, separators=(",", ":"), allow_nan=False)
    except ValueError:
        return json.dumps(_finite(value), separators=(",", ":"), allow_nan=False)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _finite(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value

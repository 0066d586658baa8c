"""What jobs and results are, as text; what is more than plain data in them is text already (wire/opaque.py)."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from bossworker.display import shorten
from bossworker.function_calls import ARGUMENTS, FUNCTION, KEYWORDS

TEXT_LENGTH = 300  # characters of a job in a list


def text_of(value: Any) -> str:
    """A job on one line."""
    if not isinstance(value, Mapping):
        return shorten(value, TEXT_LENGTH)
    if "cmd" in value:
        command = value["cmd"]
        return shlex.join(map(str, command)) if isinstance(command, list | tuple) else str(command)
    if FUNCTION in value and ARGUMENTS in value:
        return shorten_call(value)
    return ", ".join(f"{name}={shorten(part, 80)}" for name, part in value.items())[:TEXT_LENGTH]


def shorten_call(job: Mapping[str, Any]) -> str:
    """A function and its arguments."""
    function = job[FUNCTION].removeprefix(":") if isinstance(job[FUNCTION], str) else "function"
    arguments = [shorten(one, 60) for one in job[ARGUMENTS]]
    arguments += [f"{name}={shorten(one, 60)}" for name, one in job.get(KEYWORDS, {}).items()]
    return f"{function}({', '.join(arguments)})"[:TEXT_LENGTH]


def fields_of(value: Any) -> list[list[str]]:
    """A job, or a result, by its keys."""
    if not isinstance(value, Mapping):
        return [["", shorten(value, 4000)]]
    return [[str(name), shorten(part, 4000)] for name, part in value.items()]

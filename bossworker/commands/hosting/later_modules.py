"""What a host needs only when a command fails, or is made to end, is loaded while all is well.

A run may go on for days, and the package be replaced or deleted meanwhile. What is not loaded by then is gone, or is of
another version, which does not go with what is. Short runs do without.
"""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module

OF_HOST = (
    "bossworker.commands.hosting.kept",
    "bossworker.commands.inline.family",
    "bossworker.commands.job_status",
    "bossworker.system.folders",
    "bossworker.system.memory",
    "bossworker.system.titles",
    "bossworker.display",  # by which an error shortens what it tells
)
"""Of each: its module, which loads what it needs itself."""

OF_RUN = (
    "bossworker.commands.hosting.lost_records",
    "bossworker.commands.hosting.host",
    "bossworker.commands.hosting.preparing",
    *OF_HOST,
)
"""The same of a run: its host may be killed. The next one is forked from it, and inherits what is loaded there."""


def load(modules: tuple[str, ...]) -> None:
    """Whatever of it is not loaded yet, and can be."""
    for one in modules:
        with suppress(Exception):  # it is being replaced just now: whoever needs it will fail, and nobody else
            import_module(one)

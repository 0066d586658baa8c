"""What others may hang on a pool: told of each call that adds jobs, and of each result, whoever takes it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from bossworker.result import Result


class Tap:
    """Does nothing; to be filled in. What it raises goes to whoever adds jobs, or takes results."""

    def on_call(self, first_id: int, unfinished: Iterable[int]) -> None:
        """Jobs are about to be added, from this id on; the ids of those that have no result yet, in order."""

    def prepare(self, job: Mapping[Any, Any], command: bool) -> Mapping[Any, Any]:
        """A job as it is to travel; `command`: it is one of a `CommandHandler`."""
        return job

    def on_result(self, result: Result) -> None:
        """A result has been taken in. (If Ctrl-C comes just then, once more.)"""

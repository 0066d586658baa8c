"""Jobs that an event loop waits for, from when they are asked for."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import Any

from bossworker.pool.wire.batch import JobOptions
from bossworker.result import Result


class Ticket:
    """A job that has been asked for, and the future of its result."""

    __slots__ = ("future", "job", "job_id", "job_options", "resume", "withdrawn")

    def __init__(
        self, job: Mapping[Any, Any], job_options: JobOptions, future: asyncio.Future[Result], resume: bool = False
    ) -> None:
        self.job = job  # or what is none: to encode it raises what is wrong with it
        self.withdrawn = False  # it is not to be sent any more
        self.job_options = job_options
        self.resume = resume  # its result may be in the journal already
        self.future = future
        self.job_id = 0  # once it was sent


def fail(tickets: Iterable[Ticket], error: Exception) -> None:
    for ticket in tickets:
        if not ticket.future.done():
            ticket.future.set_exception(error)

"""``current_job()``: what a handler may know of the job that it works on, and where it says how far it is."""

from __future__ import annotations

import math
import numbers
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from bossworker.display import shorten
from bossworker.pool.wire.progress import Progress

Tell = Callable[[int, Progress], None]
"""Keeps what the job with this id says of itself."""


@dataclass(frozen=True, slots=True)
class CurrentJob:
    """The job that a handler works on."""

    id: int
    """As ``add_work`` returned it; 0 in an ``init_handler`` and an ``exit_handler``, which have no job."""
    attempt: int
    """1 at first, more after a crash of its worker with ``retries``; 0 where there is no job."""
    worker_index: int
    """The worker's number, from 0 to ``worker_count`` - 1. A worker that replaces another has the same.

    So a handler may have a device, a port or a folder of its own, by this number. (After ``resize`` to fewer workers,
    those that stay keep theirs.)
    """
    deadline: float | None
    """When its time is up, as ``time.monotonic()`` counts; None without a timeout."""
    _tell: Tell = field(repr=False, compare=False)

    def progress(self, done: float, total: float | None = None, text: str = "") -> None:
        """Say how far the job is: so much is done, of so much in all, with a word on it.

        Takes some microseconds and sends nothing, so it may be called often: ``stats()`` looks at what was said last.
        Only of the job that runs; what is said later, without a job, or in an inline pool (``worker_count=0``), is
        dropped. A text above 1,500 bytes is cut.

        Raises:
            TypeError, ValueError: `done` or `total` is no finite number; or `text` no str.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be a str, not {shorten(text)}")
        said = Progress(_finite("done", done), None if total is None else _finite("total", total), text)
        if self.id:
            self._tell(self.id, said)


def _finite(name: str, value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real):
        raise TypeError(f"{name} must be a number, not {shorten(value)}")
    try:
        number = float(value)
    except OverflowError:  # an int beyond all floats
        number = math.inf
    if not math.isfinite(number):
        raise ValueError(f"{name} must be a finite number, not {shorten(value)}")
    return number


_in_worker: Callable[[], CurrentJob | None] | None = None
_here = threading.local()


def current_job() -> CurrentJob | None:
    """The job that this code works on, in any thread of its worker; None outside of a pool's handlers.

    An ``init_handler`` and an ``exit_handler`` get one with the ``worker_index`` alone. A process that a handler has
    forked gets None.
    """
    job: CurrentJob | None = getattr(_here, "job", None)
    if job is not None or _in_worker is None:
        return job
    return _in_worker()


def answer_by(find: Callable[[], CurrentJob | None]) -> None:
    """In a worker: what knows which job runs."""
    global _in_worker
    _in_worker = find


@contextmanager
def working_on(job: CurrentJob) -> Iterator[None]:
    """In this thread, while the block runs: where jobs run in the caller itself."""
    before = getattr(_here, "job", None)
    _here.job = job
    try:
        yield
    finally:
        _here.job = before

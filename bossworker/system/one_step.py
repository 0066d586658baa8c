"""Several changes as one, which neither Ctrl-C nor another thread can come between."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from itertools import starmap
from operator import call
from typing import Any

Step = tuple[Any, ...]
"""A function that is not written in Python, and its arguments."""


def steps_of(steps: Iterable[Step]) -> Iterable[Any]:
    """An iterable that takes the steps as it is run through; see `take_steps`."""
    return starmap(call, steps)


take_steps: Callable[[Iterable[Any]], object] = deque(maxlen=0).extend
"""Takes the steps of `steps_of`, all in one call into C: signal handlers run before it or after it.

Each step must be of C as well, and must not drop the last reference to an object of the program's.
"""


def taken_at_once(lock: Any, held: list[bool], seconds: float = 0.0) -> bool:
    """Take a lock if it is free, or gets free in this time (negative: without limit); then `held` is not empty.

    Ctrl-C may come as soon as it is taken: so `held` is looked at by whoever has to release it, not what this returns.
    """
    # All in C: between the taking of the lock and the note of it no signal handler runs.
    held.extend(filter(None, map(lock.acquire, (seconds != 0,), (seconds or -1,))))
    return bool(held)

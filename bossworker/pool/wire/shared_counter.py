"""Counts in shared memory that processes raise and lower as one indivisible step: unnamed POSIX semaphores."""

from __future__ import annotations

import ctypes
import mmap
from functools import cache
from typing import Any, Protocol

from bossworker.system.cpython import semaphore_at


class Counter(Protocol):
    """A count in shared memory that processes raise and lower as one indivisible step."""

    def acquire(self, block: bool = True, timeout: float | None = None, /) -> bool:
        """Lower it by one; False when it is 0."""

    def release(self) -> None:
        """Raise it by one."""

    def _get_value(self) -> int: ...


class _PlainCounter:
    """Where the platform has no unnamed semaphore: batches are then one job long, and are never taken back."""

    def __init__(self, area: memoryview) -> None:
        self.word = area.cast("Q")

    def acquire(self, block: bool = True, timeout: float | None = None, /) -> bool:
        if not self.word[0]:
            return False
        self.word[0] -= 1
        return True

    def release(self) -> None:
        self.word[0] += 1

    def _get_value(self) -> int:
        return self.word[0]


@cache
def exclusive() -> bool:
    """Whether this platform has the semaphore that lets a batch hold more than one job."""
    probe = mmap.mmap(-1, mmap.PAGESIZE)
    semaphore = _semaphore(probe, 0)
    return semaphore is not None and _set_semaphore(semaphore, 0)


@cache
def fence() -> Counter:
    """A counter of this process's own: to post and to take it orders what is read and written before and after.

    It must not lie in memory that others can write to.
    """
    global _own_page
    _own_page = mmap.mmap(-1, mmap.PAGESIZE, flags=mmap.MAP_PRIVATE | mmap.MAP_ANON)
    return shared_counter(memoryview(_own_page), 0, fresh=True)


_own_page: mmap.mmap | None = None
"""Keeps the fence's memory: its counter knows the address alone."""


def shared_counter(area: memoryview, at: int, fresh: bool) -> Counter:
    """The counter that lives at this place; `fresh`: made anew, with the value 0."""
    counter: Counter = _semaphore(area, at) if exclusive() else _PlainCounter(area[at : at + 8])
    if fresh:
        set_counter(counter, 0)
    return counter


def set_counter(counter: Counter, value: int) -> None:
    """Give it a value, while nobody else uses it."""
    if isinstance(counter, _PlainCounter):
        counter.word[0] = value
    else:
        # No single step, as acquire and release are: it is for times at which no other process claims or counts.
        _sem_init()(counter.handle, 1, value)  # type: ignore[attr-defined]


def _semaphore(area: mmap.mmap | memoryview, at: int) -> Any:
    """What uses the memory at this place as a semaphore; None where there is no such thing.

    Named semaphores would need /dev/shm.
    """
    address = ctypes.addressof(ctypes.c_char.from_buffer(area, at))
    if address not in _wrappers:
        wrapper = semaphore_at(address)
        if wrapper is None:
            return None
        _wrappers[address] = wrapper
    return _wrappers[address]


_wrappers: dict[int, object] = {}
"""By address, as long as the process lives: see `semaphore_at`."""


def _set_semaphore(semaphore: Any, value: int) -> bool:
    """Make it one with this value; False where semaphores must have names."""
    return bool(_sem_init()(semaphore.handle, 1, value) == 0)


@cache
def _sem_init() -> Any:
    function = ctypes.CDLL(None, use_errno=True).sem_init
    function.argtypes = (ctypes.c_void_p, ctypes.c_int, ctypes.c_uint)
    return function

"""Closing what a child must not keep is quick, however many descriptors a limit allows."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

from bossworker.system import descriptors


def in_child(check: Callable[[], bool]) -> bool:
    pid = os.fork()
    if pid == 0:
        try:
            os._exit(0 if check() else 1)
        finally:
            os._exit(2)
    return os.waitpid(pid, 0)[1] == 0


def open_now() -> set[int]:
    return {fd for fd in range(3, 300) if _is_open(fd)}


def _is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


def only_what_was_kept_is_left() -> bool:
    low, high = os.dup(0), os.dup2(0, 100)  # there may be 128 at most
    os.dup2(0, 101)
    descriptors.close_all_but(high, low)
    return open_now() == {low, high} and all(map(_is_open, (0, 1, 2)))


def test_all_but_these_are_closed() -> None:
    assert in_child(only_what_was_kept_is_left)


def test_where_they_cannot_be_listed_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptors, "_open_descriptors", lambda: None)
    assert in_child(only_what_was_kept_is_left)


def test_a_limit_of_a_billion_is_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """As Docker has it, with a libc or a kernel that can close no range at once."""
    monkeypatch.setattr(os, "sysconf", lambda name: 1 << 30)
    started = time.process_time()
    assert in_child(only_what_was_kept_is_left)
    monkeypatch.setattr(descriptors, "_open_descriptors", lambda: None)
    tried: list[int] = []
    monkeypatch.setattr(os, "closerange", lambda low, high: tried.append(high - low))
    descriptors.close_all_but()
    assert sum(tried) <= descriptors.MOST_TRIED
    assert time.process_time() - started < 5

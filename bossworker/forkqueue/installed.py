"""``os.fork`` and its kin under a queue, for programs that know nothing of it."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Unpack

from bossworker.forkqueue import child
from bossworker.forkqueue.queue import ForkQueue
from bossworker.forkqueue.settings import SettingValues
from bossworker.system.forking import call_for_caller
from bossworker.system.originals import native, replaced

default_queue = ForkQueue()
"""The queue behind the functions of this module's package, and behind ``os`` while it is installed."""

_settings_before: dict[str, Any] = {}


def install(**settings: Unpack[SettingValues]) -> ForkQueue:
    """Put ``os.fork`` and its kin under the default queue, with these of its settings changed; the queue.

    From then on ``os.fork`` and ``os.forkpty`` wait for room, ``os.wait``, ``os.waitpid``, ``os.waitid``,
    ``os.wait3`` and ``os.wait4`` hand out what the queue may have kept, and with them whatever looks these
    functions up in ``os`` when it calls them: ``multiprocessing`` with the fork method, ``concurrent.futures`` on top
    of it, ``os.spawnv`` and its kin, ``pty.fork``, ``socketserver.ForkingMixIn``. Waiting is otherwise unchanged: also
    for children that are not the queue's.

    Not limited: ``subprocess`` (so ``os.popen`` and asyncio's subprocesses) and ``os.posix_spawn``, which do not call
    ``os.fork``; code that did ``from os import fork`` before; and this package's own pools, whose size is their own
    business.

    A process pool keeps its workers: give the queue a size of at least that many, or the pool waits for ever for the
    worker that has no room. (After a while a warning says so.)

    Children inherit all of it, with a queue of their own of size 1. RuntimeError when it is installed already.
    """
    global _settings_before
    if replaced:
        raise RuntimeError("the fork queue is installed already; uninstall() it first")
    before = default_queue._as_dict()
    default_queue._configure(dict(settings))
    _settings_before = before
    for name, function in _STANDING_IN.items():
        if hasattr(os, name):
            replaced[name] = getattr(os, name)
            setattr(os, name, functools.wraps(replaced[name])(function))
    return default_queue


def uninstall() -> None:
    """Put back what `install` found in ``os``, and the default queue's settings as they were before it.

    Children that are left are then as any others. (Should hundreds of them have ended without being asked for, the
    queue holds the statuses of the first; ``default_queue.waitpid`` gives them.) RuntimeError when it is not installed.
    """
    if not replaced:
        raise RuntimeError("the fork queue is not installed")
    for name, function in replaced.items():
        setattr(os, name, function)
    replaced.clear()
    default_queue._configure(_settings_before)


@contextmanager
def installed(**settings: Unpack[SettingValues]) -> Iterator[ForkQueue]:
    """``with installed(size=4):`` as between `install` and `uninstall`, which happens in any case."""
    queue = install(**settings)
    try:
        yield queue
    finally:
        if replaced:
            uninstall()


# -- what stands in -----------------------------------------------------------------------------------------------


def _fork() -> int:
    return default_queue.fork()


def _forkpty() -> tuple[int, int]:
    default_queue._trace_call("forkpty()")
    started, fd = default_queue._enter(
        None, functools.partial(child.forked, lambda: call_for_caller(native("forkpty")))
    )
    return started.pid, fd


def _wait() -> tuple[int, int]:
    default_queue._trace_call("wait()")
    return default_queue._waits.wait()


def _waitpid(pid: int, options: int, /) -> tuple[int, int]:
    default_queue._trace_call("waitpid(%s, %s)", pid, options)
    return default_queue._waits.waitpid(pid, options)


def _waitid(idtype: int, id: int, options: int, /) -> Any:
    default_queue._trace_call("waitid(%s, %s, %s)", idtype, id, options)
    return default_queue._waits.waitid(idtype, id, options)


def _wait3(options: int) -> tuple[int, int, Any]:
    default_queue._trace_call("wait3(%s)", options)
    return default_queue._waits.wait3(options)


def _wait4(pid: int, options: int) -> tuple[int, int, Any]:
    default_queue._trace_call("wait4(%s, %s)", pid, options)
    return default_queue._waits.wait4(pid, options)


_STANDING_IN: dict[str, Callable[..., Any]] = {
    "fork": _fork,
    "forkpty": _forkpty,
    "wait": _wait,
    "waitpid": _waitpid,
    "waitid": _waitid,
    "wait3": _wait3,
    "wait4": _wait4,
}

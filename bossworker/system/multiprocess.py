"""All that we use of `multiprocessing` beyond its documented interface; nothing private to it is used anywhere else.

A worker is no `multiprocessing.Process`, which would fork by itself, keep a pipe a process and be reaped by its parent;
but it has to be taken for one, by queues, locks, proxies and all that asks for the name of a process. So it does what
``BaseProcess._bootstrap`` does, and what `spawn` sends to a fresh interpreter is sent. The public interface has no word
for either. `tests/unit/test_multiprocess.py` says of each part what we rely on.

Nothing here loads `multiprocessing`, which takes 20 ms: a program that has not loaded it has nothing to be carried on.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from typing import Any

from bossworker.system import processes


def _part(name: str) -> Any:
    """One of its modules, if it is loaded; None, if not."""
    return sys.modules.get(f"multiprocessing.{name}")


# -- in a worker -----------------------------------------------------------------------------------------------------


class WorkerIdentity:
    """Which worker this is, for ``multiprocessing.current_process()``, and so for ``%(processName)s`` of `logging`."""

    def __init__(self, name: str, index: int, caller: int) -> None:
        """
        Args:
            name: What comes before the number in the process's name.
            index: The worker's number, from 0; its successor's, too.
            caller: Process id of the program.
        """
        self.name = name
        self.index = index
        self.caller = caller
        self._taken = False
        self._program: object = None

    def take(self) -> None:
        """Be that process, as soon as `multiprocessing` is loaded: a handler may load it."""
        if self._taken or "multiprocessing.process" not in sys.modules:
            return
        process = _part("process")
        if not hasattr(process, "_children"):  # not loaded, or half
            return
        self._taken = True
        self._program = parent = process.current_process()  # its end must not come before its children's copies of it
        ours = process.BaseProcess()
        ours._identity = (*parent._identity, self.index + 1)
        ours._name = f"{self.name}-{':'.join(map(str, ours._identity))}"
        ours._parent_pid = self.caller
        process._process_counter = count(1)
        process._children = set()
        process._current_process = ours
        process._parent_process = process._ParentProcess(parent.name, self.caller, _end_of(self.caller))


def _end_of(pid: int) -> int:
    """A descriptor that is readable once the process has ended; never, where that cannot be had: we end with it."""
    fd = processes.pidfd(pid)
    return os.pipe()[0] if fd is None else fd


def run_after_fork() -> None:
    """Drop the program's finalizers; give proxies, queues and locks what they need in a process of their own."""
    util = _part("util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)  # as when it is loaded


def run_at_exit() -> None:
    """Finalizers, children, and the threads of queues. Does nothing the second time."""
    util = _part("util")
    if util is not None:
        util._exit_function()


def tracker_fd() -> int | None:
    """The descriptor by which we speak to the tracker of shared memory and semaphores, if we do."""
    tracker = _part("resource_tracker")
    fd: int | None = tracker and tracker._resource_tracker._fd
    return fd


def server_pids() -> set[int]:
    """The processes that `multiprocessing` has started for itself: that tracker, and the fork server."""
    tracker, server = _part("resource_tracker"), _part("forkserver")
    found = (
        tracker and getattr(tracker._resource_tracker, "_pid", None),
        server and getattr(server._forkserver, "_forkserver_pid", None),
    )
    return {pid for pid in found if pid is not None}


# -- to a fresh interpreter ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Heritage:
    """What of `multiprocessing` is the same in a fresh interpreter as in the program."""

    start_method: str | None
    name: str
    identity: tuple[int, ...]
    authkey: bytes
    tracker_fd: int | None

    @classmethod
    def of_this_process(cls) -> Heritage | None:
        """None where it is not loaded.

        A tracker is started, if the module for it is loaded: a worker that started its own would have removed, at its
        end, the shared memory that it had only used.
        """
        process, tracker = _part("process"), _part("resource_tracker")
        if process is None:
            return None
        current = process.current_process()
        return cls(
            sys.modules["multiprocessing"].get_start_method(allow_none=True),
            current.name,
            current._identity,
            bytes(current.authkey),
            tracker and tracker.getfd(),
        )

    def take_over(self) -> None:
        """Have it here."""
        import multiprocessing

        current: Any = multiprocessing.current_process()
        current.name, current._identity, current.authkey = self.name, self.identity, self.authkey
        if self.start_method is not None:
            with suppress(ValueError):  # one of a library that is not loaded here, such as loky's
                multiprocessing.set_start_method(self.start_method, force=True)
        if self.tracker_fd is not None:
            from multiprocessing import resource_tracker

            resource_tracker._resource_tracker._fd = self.tracker_fd  # type: ignore[attr-defined]


class _Start:
    """What `multiprocessing` takes for the start of a process: lists the descriptors that it must be given."""

    class DupFd(int):
        """A descriptor that has the same number in the process that is started."""

        def detach(self) -> int:
            return int(self)

    def __init__(self) -> None:
        self.descriptors: list[int] = []

    def duplicate_for_child(self, fd: int) -> int:
        self.descriptors.append(fd)
        return fd


@contextmanager
def passing_on() -> Iterator[list[int]]:
    """Have queues, locks and events let themselves be pickled, for a process that is being started.

    Gives the descriptors of what is pickled; they must be open in that process under the same numbers.
    """
    start, context = _Start(), _part("context")
    if context is None:
        yield start.descriptors
        return
    before = context.get_spawning_popen()
    context.set_spawning_popen(start)
    try:
        yield start.descriptors
    finally:
        context.set_spawning_popen(before)


def with_reducers(table: Mapping[type, Callable[[Any], Any]]) -> Mapping[type, Callable[[Any], Any]]:
    """A pickler's dispatch table, and behind it how connections and sockets are passed on."""
    reduction = _part("reduction")
    return table if reduction is None else ChainMap(table, reduction.ForkingPickler._extra_reducers)  # type: ignore[arg-type]

"""What a worker does before it runs anything of the program's: it becomes a process of its own.

A fork copies what belongs to the program. For `multiprocessing` that is what its own children undo at their start:
proxies and queues that would share the program's sockets and threads, finalizers, the list of its children, its name.
For others: exit functions, executors whose threads are not here, the state of NumPy's random numbers.
"""

from __future__ import annotations

import atexit
import os
import sys
import weakref
from contextlib import suppress
from itertools import count
from typing import Any

from bossworker.system import processes

NAME = "BossWorker"


class Identity:
    """Which worker this is, for `multiprocessing` and all that asks it (`logging`: ``processName``)."""

    def __init__(self, index: int, caller: int) -> None:
        """
        Args:
            index: The worker's number, from 0; its successor's, too.
            caller: Process id of the program.
        """
        self.index = index
        self.caller = caller
        self._taken = False
        self._program: object = None

    def take(self) -> None:
        """Have ``multiprocessing.current_process()`` tell it, as soon as that module is loaded: ``BossWorker-3``."""
        if self._taken:
            return
        process: Any = sys.modules.get("multiprocessing.process")
        if not hasattr(process, "_children"):  # not loaded, or half: the next time
            return
        self._taken = True
        self._program = parent = process.current_process()  # its end must not come before its children's copies of it
        ours = process.BaseProcess()
        ours._identity = (*parent._identity, self.index + 1)
        ours._name = f"{NAME}-{':'.join(map(str, ours._identity))}"
        ours._parent_pid = self.caller
        process._process_counter = count(1)
        process._children = set()
        process._current_process = ours
        process._parent_process = process._ParentProcess(parent.name, self.caller, _end_of(self.caller))


def _end_of(pid: int) -> int:
    """A descriptor that is readable once the process has ended; never, where that cannot be had: we end with it."""
    fd = processes.pidfd(pid)
    return os.pipe()[0] if fd is None else fd


def separate_from_program(identity: Identity) -> None:
    """After the fork of a copy of the program."""
    _forget_exit_functions()
    _forget_executors()
    identity.take()
    util: Any = sys.modules.get("multiprocessing.util")
    if util is not None:
        util._finalizer_registry.clear()
        util._run_after_forkers()
        atexit.register(util._exit_function)
    vary_random_numbers()


def _forget_exit_functions() -> None:
    """Those of the program are for the program to run; and whatever is registered from here on, for us."""
    atexit._clear()
    finalize: Any = weakref.finalize
    for info in list(finalize._registry.values()):
        info.atexit = False
    finalize._registered_with_atexit = False


def _forget_executors() -> None:
    """At our end we would tell their threads to stop: through locks that may be taken, and pipes that they share."""
    for module, name in (("thread", "_threads_queues"), ("process", "_threads_wakeups")):
        getattr(sys.modules.get(f"concurrent.futures.{module}"), name, {}).clear()


def vary_random_numbers() -> None:
    """NumPy's global generator is seeded anew, or all workers draw the same. (Python's own sees to it at each fork.)"""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        with suppress(Exception):  # a generator of the program's choice that cannot be seeded so
            numpy.seed()

"""What a forked child does to be a process of its own, as those of `multiprocessing` are: at its start, and at its end.

A fork copies what belongs to the program: the exit functions that it has registered, executors whose threads are not
here, the state of its random numbers, and all that `multiprocessing` undoes in its own children.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from bossworker.system import multiprocess
from bossworker.system.cpython import forget_executors, forget_exit_functions, join_threads, run_exit_functions
from bossworker.system.multiprocess import WorkerIdentity


def separate_from_program(identity: WorkerIdentity) -> None:
    """After the fork of a copy of the program."""
    forget_exit_functions()
    forget_executors()
    identity.take()
    multiprocess.run_after_fork()
    _vary_random_numbers()


def finish() -> None:
    """Before its end: wait for the threads that are no daemons, and run the exit functions.

    Those of `multiprocessing` above all, by which queues send what is still in them.
    """
    attempt(join_threads)
    attempt(run_exit_functions)
    attempt(multiprocess.run_at_exit)  # it may have been loaded where exit functions were forgotten


def attempt(step: Callable[[], object]) -> None:
    """The next step is made, whatever this one raises."""
    try:
        step()
    except BaseException:
        with suppress(BaseException):
            traceback.print_exc()


def _vary_random_numbers() -> None:
    """NumPy's global generator is seeded anew, or all draw the same. (Python's own sees to it at each fork.)"""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        with suppress(Exception):  # the program has put a generator there that cannot be seeded so
            numpy.seed()

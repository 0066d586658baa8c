"""What a worker does before it runs anything of the program's: it becomes a process of its own.

A fork copies what belongs to the program: the exit functions that it has registered, executors whose threads are not
here, the state of its random numbers, and all that `multiprocessing` undoes in its own children.
"""

from __future__ import annotations

import sys
from contextlib import suppress
from typing import Any

from bossworker.system import multiprocess
from bossworker.system.cpython import forget_executors, forget_exit_functions
from bossworker.system.multiprocess import WorkerIdentity


def separate_from_program(identity: WorkerIdentity) -> None:
    """After the fork of a copy of the program."""
    forget_exit_functions()
    forget_executors()
    identity.take()
    multiprocess.run_after_fork()
    _vary_random_numbers()


def _vary_random_numbers() -> None:
    """NumPy's global generator is seeded anew, or all workers draw the same. (Python's own sees to it at each fork.)"""
    numpy: Any = sys.modules.get("numpy.random")
    if numpy is not None:
        with suppress(Exception):  # the program has put a generator there that cannot be seeded so
            numpy.seed()

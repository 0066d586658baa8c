"""CPython's own tests of process pools, with ``bossworker.Executor`` in ``ProcessPoolExecutor``'s place.

    python tests/faces/cpython_suite.py [--methods fork,spawn] [PATTERN ...]

Runs ``test.test_concurrent_futures`` (3.12 and later) or ``test.test_concurrent_futures.py`` (3.11) of the Python that
runs it, with each start method; prints what failed, what was left out and why; exits with the number of failures, up to
100. Nothing of those tests is copied here. A PATTERN is a part of a test's name.
"""

from __future__ import annotations

import argparse
import fnmatch
import importlib
import logging
import os
import sys
import tempfile
import unittest
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bossworker

PACKAGE = "test.test_concurrent_futures"
PARTS = ("test_as_completed", "test_deadlock", "test_init", "test_process_pool", "test_shutdown", "test_wait")

PROCESSES = "reads _processes, a private attribute: these processes are a boss's"
MANAGER = "reads _executor_manager_thread, a private attribute: there is no such thread"
LEFT_OUT = {  # a test's name, or the end of its id, with wildcards: why it is left out
    "test_killed_child": f"{PROCESSES}; and wants the pool to break where ours goes on",
    "test_saturation": PROCESSES,
    "test_idle_process_reuse_one": PROCESSES,
    "test_idle_process_reuse_multiple": PROCESSES,
    "*Spawn*.test_max_tasks_per_child": PROCESSES,
    "*Fork*.test_max_tasks_per_child": "wants a ValueError for it with fork, where ours works",
    "test_max_tasks_per_child_defaults_to_spawn_context": "reads _mp_context, a private attribute; ours forks",
    "test_python_finalization_error": "has threads of ProcessPoolExecutor's own fail to start",
    "test_processes_terminate": PROCESSES,
    "ProcessPool*.test_context_manager_shutdown": PROCESSES,
    "ProcessPool*.test_del_shutdown": f"{PROCESSES}; ours is in test_executor.py",
    "ProcessPool*.test_shutdown_no_wait": f"{PROCESSES}; ours is in test_executor.py",
    "test_shutdown_deadlock_pickle": MANAGER,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": "replaces parts of ProcessPoolExecutor by slower ones",
    "test_traceback": "wants the private class _RemoteTraceback; ours is in test_executor.py",
    "*FailingInitializer*.test_initializer": "polls _broken, a private attribute; ours is in test_executor.py",
    "FailingInitializerResources*": "the same, by running the test above",
}

IN_CHILDREN = """
import builtins, concurrent.futures, logging, multiprocessing
import bossworker

class ProcessPoolExecutor(bossworker.Executor):
    pass

logging.getLogger("bossworker").setLevel("ERROR")  # where there is no pyzmq, pools tell that they do without
concurrent.futures.ProcessPoolExecutor = ProcessPoolExecutor
builtins.multiprocessing = multiprocessing  # used without an import by one test, which CPython skips for its own pool
"""


class ProcessPoolExecutor(bossworker.Executor):
    """By that name, which some tests put into programs."""


def why_left_out(test: unittest.TestCase) -> str | None:
    name = test.id().removeprefix(PACKAGE).lstrip(".")
    for pattern, reason in LEFT_OUT.items():
        if fnmatch.fnmatchcase(name, f"*{pattern}" if "." in pattern else f"*.{pattern}"):
            return reason
    return None


def modules() -> list[Any]:
    try:
        return [importlib.import_module(f"{PACKAGE}.{part}") for part in PARTS]
    except ModuleNotFoundError:  # before 3.12 it is one module
        return [importlib.import_module(PACKAGE)]


def flat(suite: unittest.TestSuite) -> Iterator[unittest.TestCase]:
    for test in suite:
        if isinstance(test, unittest.TestSuite):
            yield from flat(test)
        else:
            yield test


def of_process_pools(found: list[Any], methods: list[str]) -> Iterator[unittest.TestCase]:
    kinds = [f"ProcessPool{method.capitalize()}" for method in methods]
    for module in found:
        for test in flat(unittest.defaultTestLoader.loadTestsFromModule(module)):
            name = type(test).__name__
            if any(name.startswith(kind) for kind in kinds) and "Forkserver" not in name:
                yield test


def put_ours(found: list[Any]) -> None:
    """In the place of theirs: here in the tests' classes, and in the programs that they start."""
    for module in found:
        for value in list(vars(module).values()):
            if isinstance(value, type) and value.__name__.startswith("ProcessPool"):
                for kind in value.__mro__:
                    if "executor_type" in vars(kind) and kind.__name__.startswith("ProcessPool"):
                        kind.executor_type = ProcessPoolExecutor  # type: ignore[attr-defined]


def prepare_programs(folder: str) -> None:
    from test.support import script_helper  # type: ignore[import-not-found]

    Path(folder, "sitecustomize.py").write_text(IN_CHILDREN)
    home = str(Path(bossworker.__file__).parent.parent)
    os.environ["PYTHONPATH"] = os.pathsep.join([folder, home, os.environ.get("PYTHONPATH", "")])
    script_helper.interpreter_requires_environment = lambda: True  # so that they are started without -I


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", metavar="PATTERN")
    parser.add_argument("--methods", default="fork,spawn", help="start methods (default: %(default)s)")
    args = parser.parse_args()
    logging.getLogger("bossworker").setLevel("ERROR")
    found = modules()
    put_ours(found)
    suite, left_out = unittest.TestSuite(), dict[str, str]()
    for test in of_process_pools(found, args.methods.split(",")):
        if args.patterns and not any(pattern in test.id() for pattern in args.patterns):
            continue
        reason = why_left_out(test)
        if reason is None:
            suite.addTest(test)
        else:
            left_out[test.id()] = reason
    with tempfile.TemporaryDirectory() as folder:
        prepare_programs(folder)
        result = unittest.TextTestRunner(verbosity=2).run(suite)
    for name, reason in sorted(left_out.items()):
        print(f"left out: {name.removeprefix(PACKAGE).lstrip('.')}: {reason}")
    bad = len(result.failures) + len(result.errors)
    good = result.testsRun - bad - len(result.skipped)
    print(f"{good} passed, {bad} failed, {len(result.skipped)} skipped by CPython, {len(left_out)} left out")
    return min(bad, 100)


if __name__ == "__main__":
    sys.exit(main())

"""Programs that fork, limited: Python's own modules, read by a child each.

    python examples/fork_queue.py [DIR] [--size N]

Three ways to use a queue: `plain` only knows `os.fork` and `os.wait`, and not that it is limited. `functions` runs a
function a child, heavy ones counting double, and looks at exit codes alone. `values` gets something back from each
child, or its exception. The limits change from one to the next.
"""

from __future__ import annotations

import argparse
import ast
import os
import sys
import sysconfig
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from arguments import MAX_WORKERS, whole

from bossworker.forkqueue import ForkQueue, installed

SMALLEST_BYTES = 40_000  # of a module that is worth a child
HEAVY_BYTES = 100_000  # of one that counts double


# -- in a child -----------------------------------------------------------------------------------------


def check(module: Path) -> None:
    """Leave with 1 (and a traceback) if a module is no valid Python."""
    compile(module.read_bytes(), module, "exec")


def count_nodes(module: Path) -> Counter[str]:
    """How often each kind of thing occurs in a module."""
    return Counter(type(node).__name__ for node in ast.walk(ast.parse(module.read_bytes())))


# -- in the parent --------------------------------------------------------------------------------------


def plain(modules: Iterable[Path]) -> int:
    """The old way, without a thought of how many run at once; how many modules are in order."""
    good = 0
    for module in modules:
        if os.fork() == 0:
            code = 1
            try:
                check(module)
                code = 0
            finally:
                os._exit(code)
    while True:
        try:
            _, status = os.wait()
        except ChildProcessError:
            return good
        good += os.waitstatus_to_exitcode(status) == 0


def functions(queue: ForkQueue, modules: Iterable[Path]) -> bool:
    """Whether all modules are in order."""
    pids = []
    for module in modules:
        weight = 2 if module.stat().st_size >= HEAVY_BYTES else 1
        pids.append(queue.run_back(lambda module=module: check(module), weight=weight))  # type: ignore[misc]
    return queue.all_exit_ok(*pids)


def values(queue: ForkQueue, modules: Iterable[Path]) -> Counter[str]:
    """What all modules together are made of."""
    calls = [queue.call(count_nodes, module) for module in modules]
    return sum((call.result() for call in calls), Counter[str]())


@contextmanager
def timed(what: str) -> Iterator[None]:
    """Tell how long it took."""
    started = time.monotonic()
    yield
    print(f"  {what} in {time.monotonic() - started:.2f} s")


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description="Read Python modules, each in a child, not too many at once.")
    parser.add_argument("dir", nargs="?", metavar="DIR", help="default: the folder of Python's standard library")
    parser.add_argument(
        "--size", type=whole(1, MAX_WORKERS), default=4, metavar="N", help="how many children at once (default: 4)"
    )
    options = parser.parse_args()
    root = Path(options.dir or sysconfig.get_path("stdlib"))
    if not root.is_dir():
        parser.error(f"no such folder: {root}")
    modules = sorted(one for one in root.glob("*.py") if one.is_file() and one.stat().st_size >= SMALLEST_BYTES)
    run(modules, ForkQueue(options.size, allow_excess=False))
    return 0


def run(modules: list[Path], queue: ForkQueue) -> None:
    """All three ways."""
    with installed(size=queue.size), timed("plain"):
        print(f"{plain(modules)} of {len(modules)} modules are in order; at most {queue.size} children at once")

    with timed("functions"):
        print(f"all in order: {functions(queue, modules)}; heavy ones counted double")

    queue.size *= 2
    queue.delay = 0.005
    with timed("values"):
        found = values(queue, modules)
        print(f"{found['FunctionDef']:,} functions, {found['ClassDef']:,} classes, {found['Call']:,} calls")


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

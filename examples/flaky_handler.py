"""What becomes of handlers that go wrong: each job gets its result, and the pool works on.

    python examples/flaky_handler.py

One job raises, one hangs, one ignores its timeout, one crashes the interpreter, one exits, one runs out of memory, one
returns nonsense. In the end a good job runs in the same pool.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from arguments import seconds

from bossworker import BossWorker, JobTimeout, Result

LIMIT_BYTES = 4 << 30  # of address space, while a handler asks for
HUGE_BYTES = 8 << 30  # so much
TIMEOUT = 0.3  # seconds, by default


def fail() -> None:
    """Raise, with a cause."""
    try:
        int("rattle")
    except ValueError as error:
        raise RuntimeError("not my day") from error


def hang() -> None:
    """Wait for what never comes; the timeout ends it."""
    time.sleep(3600)


def ignore_timeout() -> None:
    """Swallow the timeout; the worker is killed after the pool's `kill_grace`."""
    while True:
        try:
            time.sleep(3600)
        except JobTimeout:
            pass


def crash() -> None:
    """Read address 0: SIGSEGV."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would only be in the way
    ctypes.string_at(0)


def leave() -> None:
    """End the process behind Python's back."""
    os._exit(3)


def exhaust_memory() -> dict[str, int]:
    """Ask for more memory than the limit that is set meanwhile; nothing is really used."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    low = LIMIT_BYTES if hard == resource.RLIM_INFINITY else min(LIMIT_BYTES, hard)
    resource.setrlimit(resource.RLIMIT_AS, (low, hard))
    try:
        return {"bytes": len(bytearray(HUGE_BYTES))}
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def return_nonsense() -> int:
    """Return what is no mapping."""
    return 42


def work_well() -> dict[str, int]:
    """Do as asked."""
    return {"answer": 42}


FAULTS: dict[str, Callable[[], Any]] = {
    "fail": fail,
    "hang": hang,
    "ignore_timeout": ignore_timeout,
    "crash": crash,
    "leave": leave,
    "exhaust_memory": exhaust_memory,
    "return_nonsense": return_nonsense,
}
DEEDS = {**FAULTS, "work_well": work_well}


def handle(job: dict[str, str]) -> Any:
    """The work handler."""
    return DEEDS[job["do"]]()


def show(result: Result) -> None:
    """One line a result."""
    outcome = "ok" if result.ok else result.error_kind
    text = dict(result) if result.ok else result["ERROR"]
    print(f"{result.job['do']:<16} {outcome:<11} attempts: {result.attempts}  {text}", flush=True)


def add_faults(pool: BossWorker, limit: float) -> None:
    """A job for each way to go wrong; those that would not end have so much time."""
    for name in FAULTS:
        timeout = limit if name in ("hang", "ignore_timeout") else 0
        retries = 1 if name == "crash" else 0  # it is tried again, in vain
        pool.add_work({"do": name}, timeout=timeout, retries=retries)


def main() -> int:
    """Run the program; its exit code."""
    parser = argparse.ArgumentParser(description="What becomes of handlers that go wrong.")
    parser.add_argument("--timeout", type=seconds, default=TIMEOUT, help="of jobs that hang (default: %(default)s s)")
    timeout: float = parser.parse_args().timeout
    with BossWorker(handle, worker_count=2, kill_grace=0.2) as pool:
        print(f"{len(FAULTS)} jobs, each with a fault of its own:", flush=True)
        add_faults(pool, timeout)
        results = sorted(pool.results(), key=lambda result: result.job_id)
        for result in results:
            show(result)
        print(f"\nthe first one's traceback, as the worker saw it:\n{results[0].traceback}\n")
        pool.add_work({"do": "work_well"})
        good = pool.get_result()
        assert good is not None
        show(good)
        stats = pool.stats()
        print(f"{stats.done} done, {stats.failed} failed, {stats.restarts} workers replaced, {len(stats.workers)} now")
    return 0 if good.ok else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

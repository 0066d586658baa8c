"""How many processors this process may use: as Python was told, as it may be scheduled, as its control groups allow."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress

OWN_GROUPS = "/proc/self/cgroup"
GROUPS = "/sys/fs/cgroup"


def usable_cpus() -> int:
    """At least 1. ``PYTHON_CPU_COUNT``, and ``-X cpu_count`` from Python 3.13 on, go before all else.

    What control groups allow, as ``docker run --cpus=1.5`` sets it, is rounded up.
    """
    count = schedulable_cpus()
    told = _told_to_python(count)
    if told is not None:
        return told
    return max(1, min([count, *map(math.ceil, _quotas())]))


def schedulable_cpus() -> int:
    """On how many this process may be scheduled, whatever share of their time it may have."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _told_to_python(schedulable: int) -> int | None:
    if sys.version_info >= (3, 13):
        count = os.process_cpu_count()
        return count if count != schedulable else None
    with suppress(ValueError):
        if not sys.flags.ignore_environment and (count := int(os.environ.get("PYTHON_CPU_COUNT", ""))) > 0:
            return count
    return None


def _quotas() -> Iterator[float]:
    """How many processors' worth of time each control group allows that we are in, as far as it sets a limit."""
    try:
        lines = _read(OWN_GROUPS).splitlines()
    except OSError:
        return
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if not controllers:
            yield from _walk(GROUPS, path, _unified)
        elif "cpu" in controllers.split(","):
            for name in {controllers, "cpu"}:
                yield from _walk(f"{GROUPS}/{name}", path, _legacy)


def _walk(root: str, path: str, quota: Callable[[str], float]) -> Iterator[float]:
    """In a group and all above it. In a container its path may be that of the host, and only the root be there."""
    names = [name for name in path.split("/") if name]
    for depth in range(len(names), -1, -1):
        with suppress(OSError, ValueError, ZeroDivisionError):
            yield quota("/".join((root, *names[:depth])))


def _read(path: str) -> str:
    """(The module pathlib, which a program may not have loaded, takes as long to load as ten of ours.)"""
    with open(path) as file:
        return file.read()


def _unified(group: str) -> float:
    quota, period = _read(f"{group}/cpu.max").split()
    return int(quota) / int(period)  # "max" is no number


def _legacy(group: str) -> float:
    quota = int(_read(f"{group}/cpu.cfs_quota_us"))
    if quota <= 0:
        raise ValueError("no limit")
    return quota / int(_read(f"{group}/cpu.cfs_period_us"))

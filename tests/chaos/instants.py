"""A signal handler that raises at each instant at which one may run, one after the other; and at random ones."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.machinery import ExtensionFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

SOURCE = Path(__file__).with_name("tripwire.c")
NUMBER = signal.SIGUSR1


class Interrupted(BaseException):
    """Raised from a signal handler, anywhere."""


@cache
def tripwire() -> Any:
    """The module that `tripwire.c` makes."""
    compiler, headers = shutil.which("cc"), sysconfig.get_path("include")
    if compiler is None or not Path(headers, "Python.h").exists():
        pytest.skip("there is no C compiler, or Python's headers are not here")
    flags = ["-dynamiclib", "-undefined", "dynamic_lookup"] if sys.platform == "darwin" else ["-shared", "-fPIC"]
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder, "tripwire.so")
        subprocess.run([compiler, *flags, "-O1", f"-I{headers}", "-o", made, SOURCE], check=True)
        spec = spec_from_file_location("tripwire", made, loader=ExtensionFileLoader("tripwire", str(made)))
        assert spec is not None
        assert spec.loader is not None
        module = module_from_spec(spec)
        spec.loader.exec_module(module)
    return module


def interrupted(act: Callable[[], object], n: int, part: str) -> tuple[bool, int]:
    """Interrupt a call once, as soon as can be after the n-th instruction of some functions (see `tripwire.c`).

    Whether it was, and how many instructions there were.
    """
    wire, hit = tripwire(), False
    try:
        try:
            wire.arm(NUMBER, n, part)
            act()
        finally:
            wire.disarm()
    except Interrupted:
        hit = True
    return hit, wire.count()


def each(act: Callable[[], object], check: Callable[[int], object], part: str, most: int | None = None) -> int:
    """Interrupt a call at each of its instants, and call `check` after each; how many times it was interrupted.

    `most`: at about so many of them.
    """
    for _ in range(2):  # what is done once, in the first call, does not count
        _, instructions = interrupted(act, 0, part)
        check(0)
    step = 1 if most is None else max(1, instructions // most)
    n, hits, left = 1, 0, True
    while left:
        hit, instructions = interrupted(act, n, part)
        left = instructions >= n
        hits += hit
        check(n)
        n += step
    return hits


@contextmanager
def raising() -> Iterator[None]:
    """A handler that raises, for the signal that is tripped."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    before = signal.signal(NUMBER, interrupt)
    try:
        yield
    finally:
        signal.signal(NUMBER, before)

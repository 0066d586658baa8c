"""Who holds how much memory, and what of it is counted twice."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from bossworker.system import memory, proc
from tests.conftest import wait_for

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells")


@contextmanager
def forked() -> Iterator[int]:
    """A child that waits for us."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(write)
        os.read(read, 1)
        os._exit(0)
    os.close(read)
    try:
        yield pid
    finally:
        os.close(write)
        os.waitpid(pid, 0)


def test_a_fork_is_a_copy_and_a_program_is_none() -> None:
    with forked() as child, subprocess.Popen(["sleep", "60"]) as program:
        wait_for(lambda: b"sleep" in proc.read(f"{program.pid}/cmdline"))
        assert proc.is_copy(child, os.getpid())
        assert not proc.is_copy(program.pid, os.getpid())
        assert not proc.is_copy(1 << 22, os.getpid())
        program.kill()


def test_an_idle_copy_adds_next_to_nothing() -> None:
    own = memory.resident(os.getpid())
    with forked() as child:
        assert memory.resident(child) > 1 << 20
        assert memory.below(os.getpid(), own) < 1 << 20
        assert memory.growth(os.getpid(), own, 0, 20 << 20) == 0
        assert memory.growth(os.getpid(), 0, 0, 1 << 20) > 1 << 20

"""What every test gets: a pool that is shut down, and a check that nothing is left behind."""

from __future__ import annotations

import gc
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.system import processes

LEAVE_SECONDS = 5.0  # for what was told to end to be gone


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="run the storms at full length")


@pytest.fixture(scope="session", autouse=True)
def own_folder() -> Iterator[None]:
    """Temporary files go where no other program's are."""
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory() as folder:
        tempfile.tempdir = os.environ["TMPDIR"] = folder
        yield
        tempfile.tempdir = before
        del os.environ["TMPDIR"]


@pytest.fixture(scope="session", autouse=True)
def collect_quickly() -> None:
    """What is here already is not looked through again after each test, which would take longer than most tests."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def hear_ctrl_c() -> None:
    """What a shell starts in the background ignores SIGINT, and so would every program under test."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session", autouse=True)
def inherit_orphans() -> None:
    """Processes that lose their parents become ours, so that none escapes the check below."""
    processes.adopt_orphans()


@pytest.fixture(autouse=True)
def nothing_left() -> Iterator[None]:
    """Fail a test that leaves a process, a descriptor, a shared-memory segment or a temporary file behind."""
    before = _traces()
    yield
    gc.collect()
    deadline = time.monotonic() + LEAVE_SECONDS
    while (left := _traces() - before) and time.monotonic() < deadline:
        processes.reap_all()
        time.sleep(0.01)
        gc.collect()
    for pid in processes.children(os.getpid()):  # also what stands apart
        processes.kill_tree(pid)
    processes.end_children(1.0)
    assert not left, f"left behind: {sorted(left)}"


def _traces() -> set[str]:
    traces = {f"process {pid} {_command(pid)}" for pid in processes.children(os.getpid())}
    traces |= {f"descriptor {fd.name} {_target(fd)}" for fd in os.scandir("/proc/self/fd") if _target(fd)}
    for folder in ("/dev/shm", tempfile.gettempdir()):
        if os.path.isdir(folder):
            names = os.listdir(folder)
            traces |= {f"file {folder}/{name}" for name in names if "bossworker" in name}
    return traces


def _target(entry: os.DirEntry[str]) -> str:
    try:
        target = os.readlink(entry.path)
    except OSError:
        return ""
    return "" if target.startswith("/proc/") else target


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").strip()
    except OSError:
        return ""


@pytest.fixture
def pool() -> Iterator[Callable[..., BossWorker]]:
    """Makes pools, which end with the test."""
    made: list[BossWorker] = []

    def make(*args: Any, **settings: Any) -> BossWorker:
        made.append(BossWorker(*args, **settings))
        return made[-1]

    yield make
    for one in made:
        one.shut_down(force=True)


def wait_for(condition: Callable[[], Any], seconds: float = 20.0, what: str = "") -> Any:
    """Wait until the condition is true; fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            pytest.fail(f"waited {seconds} s in vain{' for ' + what if what else ''}")
        time.sleep(0.002)
    return value


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False

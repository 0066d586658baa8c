"""Children that stay until they are let go, a count of how many ran at once, and the platforms we do not have here."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from bossworker.forkqueue import ForkQueue, children
from bossworker.forkqueue.sleeper import Sleeper
from tests.conftest import wait_for


class Gate:
    """Children that pass it wait until they are let through."""

    def __init__(self) -> None:
        self.reader, self.writer = os.pipe()

    def open(self, passages: int = 1) -> None:
        os.write(self.writer, b"." * passages)

    def __call__(self) -> None:
        os.read(self.reader, 1)

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


class Log:
    """Where children note that they start and end, in the order in which it happens."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.touch()

    def note(self, mark: str) -> None:
        with open(self.path, "ab", buffering=0) as file:
            file.write(mark.encode())

    def run(self, work: Callable[[], object] = lambda: None) -> None:
        self.note("+")
        work()
        self.note("-")

    def most(self) -> int:
        """How many ran at once."""
        depth = most = 0
        for mark in self.path.read_text():
            depth += 1 if mark == "+" else -1
            most = max(most, depth)
        return most

    def count(self) -> int:
        return self.path.read_text().count("+")


@pytest.fixture
def log(tmp_path: Path) -> Log:
    return Log(tmp_path / "log")


BETWEEN = pytest.mark.thorough("what is there with all of it, and with none, is there with some of it")


@pytest.fixture(
    params=[
        "zombies",
        pytest.param("kept", marks=BETWEEN),
        pytest.param("no pidfd", marks=BETWEEN),
        "no waitid, no pidfd",
    ]
)
def platform(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Every way in which the queue learns of its children's ends: on this platform, and as on others."""
    how: str = request.param
    if how == "kept":
        monkeypatch.setattr(children, "MOST_ZOMBIES", 0)
    if "no waitid" in how:
        monkeypatch.delattr(os, "waitid")
    if "no pidfd" in how:
        monkeypatch.setattr(Sleeper, "_watch", lambda *_: False)
    return how


def in_line(queue: ForkQueue, threads: int = 1) -> bool:
    """Whether this many threads wait for room, and sleep."""
    return len(queue._line) == threads and len(queue._children._sleepers) >= threads


@contextmanager
def interrupted(queue: ForkQueue, error: BaseException) -> Iterator[None]:
    """The main thread is interrupted as by Ctrl-C, by an exception out of a signal handler, once it waits.

    More than one signal may be needed: the first can come just before the system call that is to be interrupted.
    """
    raised = threading.Event()
    main = os.getpid()

    def interrupt(*_: object) -> None:
        if not raised.is_set():
            raised.set()
            raise error

    def tell() -> None:
        wait_for(lambda: queue._children._sleepers or queue._children._targets)
        while not raised.wait(0.005):
            os.kill(main, signal.SIGUSR2)

    before = signal.signal(signal.SIGUSR2, interrupt)
    thread = in_thread(tell)
    try:
        with pytest.raises(type(error)):
            yield
    finally:
        thread.join()
        signal.signal(signal.SIGUSR2, before)


def in_thread(fn: Callable[..., Any], *args: Any, **settings: Any) -> threading.Thread:
    thread = threading.Thread(target=fn, args=args, kwargs=settings, daemon=True)
    thread.start()
    return thread


def ended(pid: int) -> bool:
    """Whether a child is a zombie or gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except OSError:
        return True


def until_ended(*pids: int) -> None:
    for pid in pids:
        wait_for(partial(ended, pid), what=f"process {pid} to end")


def leaving(code: int) -> Callable[[], None]:
    def leave() -> None:
        raise SystemExit(code)

    return leave

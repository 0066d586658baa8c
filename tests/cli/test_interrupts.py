"""A signal ends a wait also where it does not interrupt the system call: when it comes just before that."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Iterator

import pytest

from bossworker.cli.interrupts import Interrupts
from bossworker.cli.runner import await_either
from bossworker.system.signal_pipe import SignalPipe


@pytest.fixture
def handlers() -> Iterator[None]:
    """As they were: a run that was interrupted leaves its signals ignored, and so has all that it starts."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = list(map(signal.getsignal, numbers))
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


@pytest.fixture
def signal_elsewhere(handlers: None) -> Iterator[threading.Thread]:
    """A thread that gets a SIGHUP for us, once it is started."""

    def send() -> None:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})
        os.kill(os.getpid(), signal.SIGHUP)

    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    thread = threading.Thread(target=send)
    yield thread
    thread.join()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGHUP})


def test_the_wait_of_a_run(signal_elsewhere: threading.Thread) -> None:
    began = time.monotonic()
    with Interrupts() as interrupts:
        alarm = threading.Timer(0.05, signal_elsewhere.start)
        alarm.start()
        interrupts.wait(lambda: await_either(-1, -1, 60, None, interrupts.pipe))
        alarm.join()
        assert (interrupts.count, interrupts.number) == (1, signal.SIGHUP)
        assert time.monotonic() - began < 30
        interrupts.known = True
        interrupts.wait(lambda: await_either(-1, -1, 0.05, None, interrupts.pipe))  # which is not cut short again
        assert interrupts.count == 1


def test_a_pipe_tells_once(signal_elsewhere: threading.Thread) -> None:
    heard: list[int] = []
    signal.signal(signal.SIGHUP, lambda number, frame: heard.append(number))
    with SignalPipe() as outer:
        with SignalPipe() as pipe:
            signal_elsewhere.start()
            assert select.select([pipe], [], [], 60)[0] == [pipe]
            pipe.drain()
            assert select.select([outer, pipe], [], [], 0)[0] == []
        assert heard == [signal.SIGHUP]
        signal.raise_signal(signal.SIGHUP)  # it is blocked here, and comes once nobody listens
    assert signal.set_wakeup_fd(-1) == -1

"""When the pool's interruption may come through while a command runs, and when it waits."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest

from bossworker.commands.inline.interruption import Interruption
from bossworker.system import signals


class TimeIsUp(BaseException):
    pass


def interrupt() -> None:
    signal.pthread_kill(threading.get_ident(), signals.INTERRUPT)


@pytest.fixture(autouse=True)
def handled() -> Iterator[object]:
    """As in a pool's worker, which raises in the job."""

    def stop(number: int, frame: object) -> None:
        raise TimeIsUp

    before = signal.signal(signals.INTERRUPT, stop)
    yield stop
    signal.signal(signals.INTERRUPT, before)


def test_one_that_comes_too_early_waits_until_it_is_let_through() -> None:
    interruption = Interruption()
    interrupt()
    with pytest.raises(TimeIsUp):
        interruption.let_through()
    interruption.restore()


def test_one_that_comes_while_we_wait_comes_through() -> None:
    interruption = Interruption()
    interruption.let_through()
    with pytest.raises(TimeIsUp):
        interrupt()
    interruption.restore()


def test_one_that_comes_too_late_is_dropped(handled: object) -> None:
    interruption = Interruption()
    interruption.let_through()
    interruption.hold_back()
    interrupt()
    interruption.restore()
    assert signal.getsignal(signals.INTERRUPT) is handled


def test_outside_a_pool_nothing_is_touched() -> None:
    signal.signal(signals.INTERRUPT, signal.SIG_DFL)
    interruption = Interruption()
    assert not interruption.in_pool
    assert signal.getsignal(signals.INTERRUPT) == signal.SIG_DFL
    interruption.let_through()
    os.kill(os.getpid(), signals.INTERRUPT)  # ignored by default
    interruption.restore()
    assert signal.getsignal(signals.INTERRUPT) == signal.SIG_DFL


def test_another_thread_than_the_main_one_leaves_it_alone(handled: object) -> None:
    found = []

    def look() -> None:
        interruption = Interruption()
        found.append((interruption.in_pool, signal.getsignal(signals.INTERRUPT) is handled))
        interruption.restore()

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [(False, True)]

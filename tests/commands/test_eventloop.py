"""The loop calls what is due."""

from __future__ import annotations

import os
import signal
import time
from types import SimpleNamespace

import pytest

from bossworker.system import eventloop
from bossworker.system.eventloop import READ, Loop


def test_the_loop_calls_in_time_and_not_after_cancelling() -> None:
    loop, said = Loop(), []
    loop.after(0.02, lambda: said.append("second"))
    loop.after(0.01, lambda: said.append("first"))
    never = loop.after(0.0, lambda: said.append("never"))
    loop.cancel(never)
    loop.after(0.03, loop.stop)
    begin = time.monotonic()
    loop.run()
    loop.close()
    assert said == ["first", "second"]
    assert time.monotonic() - begin >= 0.03


def test_the_loop_calls_what_is_late_in_its_order() -> None:
    loop, said = Loop(), []
    loop.after(0.01, lambda: said.append("second"))
    loop.after(0.001, lambda: said.append("first"))
    time.sleep(0.02)
    loop.turn()
    loop.close()
    assert said == ["first", "second"]


def test_the_loop_watches_descriptors_until_it_forgets_them() -> None:
    loop, said = Loop(), []
    mine, theirs = os.pipe()

    def read(events: int) -> None:
        said.append(os.read(mine, 10))
        loop.forget(mine)
        loop.forget(mine)
        loop.after(0.01, loop.stop)
        os.write(theirs, b"unheard")

    loop.watch(mine, READ, read)
    os.write(theirs, b"heard")
    loop.run()
    loop.close()
    os.close(mine)
    os.close(theirs)
    assert said == [b"heard"]


def test_the_loop_hears_of_children() -> None:
    loop, said = Loop(), []

    def reap() -> None:
        said.append(os.waitpid(-1, os.WNOHANG)[0])
        loop.stop()

    before = signal.getsignal(signal.SIGCHLD)
    loop.on_child(reap)
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    loop.run()
    loop.close()
    signal.signal(signal.SIGCHLD, before)
    assert said == [pid]


def test_a_signal_handler_has_its_call_made_whatever_it_interrupts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Here it comes whenever the loop asks what time it is: as a timer is set, and amid looks at all of them."""
    loop, said = Loop(), list[str]()

    def interrupted() -> float:
        signal.raise_signal(signal.SIGUSR1)
        return time.monotonic()

    before = signal.signal(signal.SIGUSR1, lambda number, frame: loop.soon(lambda: said.append("handler")))
    monkeypatch.setattr(eventloop, "time", SimpleNamespace(monotonic=interrupted))
    loop.after(0.0, lambda: said.append("timer"))
    loop.turn()
    loop.turn()
    loop.close()
    signal.signal(signal.SIGUSR1, before)
    assert said.count("timer") == 1
    assert said.count("handler") >= 2

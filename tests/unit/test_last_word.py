"""The boss's last word: it goes only once the program has been told that all went in order."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from bossworker.pool.boss.boss import Boss
from bossworker.pool.boss.delivery import CallerGone
from bossworker.pool.wire.link import Link, link_pair
from bossworker.pool.wire.messages import Kind
from tests.conftest import wait_for


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    ours, theirs = map(Link, link_pair())
    yield ours, theirs
    ours.close()
    theirs.close()


def fill(sock: socket.socket) -> int:
    """Send what it takes, as results and events may have been sent before; how much that is."""
    filled = 0
    for size in (1 << 16, 1):
        while True:
            try:
                filled += sock.send(bytes(size))
            except BlockingIOError:
                break
    return filled


class Tried(Link):
    """Tells how often it has sent all that there was, or not."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(sock)
        self.sent_all: list[bool] = []

    def flush(self) -> bool:
        self.sent_all.append(super().flush())
        return self.sent_all[-1]


def test_it_waits_for_room() -> None:
    """Or a reader of events takes an orderly end for a death, if the program had not read all that came before."""
    ours, theirs = link_pair()
    link, caller = Tried(ours), Link(theirs)
    before = fill(ours)
    boss: Any = SimpleNamespace(caller=link)
    word = threading.Thread(target=Boss.say_last_word, args=(boss,))
    word.start()
    wait_for(lambda: link.sent_all)
    assert not link.sent_all[0]
    theirs.setblocking(True)
    while before:
        before -= len(theirs.recv(before))
    word.join(30)
    theirs.setblocking(False)
    assert [frame.kind for frame in caller.receive()] == [Kind.CLOSED]
    link.close()
    caller.close()


def test_it_does_not_wait_for_a_program_that_is_gone(ends: tuple[Link, Link]) -> None:
    link, caller = ends
    fill(link.sock)
    caller.close()
    boss: Any = SimpleNamespace(caller=link)
    with pytest.raises(CallerGone):
        Boss.say_last_word(boss)

"""Who reads nothing: what is theirs waits, what they ask for in vain does not pile up, and nobody waits for them."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import zmq

from bossworker.pool.door import door_router
from bossworker.pool.door.client_mail import ClientMail
from bossworker.pool.door.door_protocol import FRAMES
from bossworker.pool.door.door_router import DoorRouter
from bossworker.pool.door.door_server import DoorServer
from tests.conftest import wait_for


@pytest.fixture
def router(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[DoorRouter]:
    monkeypatch.setattr(door_router, "MOST_UNTAKEN", 100)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    router = DoorRouter("", listener.detach(), None, in_pieces=True)
    yield router
    router.close()


def test_answers_to_whoever_reads_none_do_not_pile_up(router: DoorRouter, tmp_path: Path) -> None:
    """It counts as being there all the same, and gets what comes once it reads again."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as deaf:
        deaf.linger, deaf.rcvhwm = 0, 1
        deaf.connect(f"ipc://{tmp_path}/s")
        deaf.send(b"here")
        ((route, *_),) = wait_for(lambda: router.take(()))
        assert all(router.send(route, bytes(1000)) for _ in range(20_000))
        found = 0
        while deaf.poll(200):
            deaf.recv()
            found += 1
        assert 100 <= found < 5000  # of these, most in what the kernel holds
        assert router.send(route, b"news")
        assert deaf.recv() == b"news"
    wait_for(lambda: not router.send(route, b"news"))


@pytest.mark.parametrize("reads", [True, False])
def test_a_request_in_vain_is_answered_to_whoever_reads(reads: bool) -> None:
    sent: list[Any] = []
    client: Any = SimpleNamespace(line=object(), holds_up=not reads)
    lines: Any = SimpleNamespace(send=lambda client, parts: bool(sent.append(parts)))  # type: ignore[func-returns-value]
    nobody: Any = None
    mail = ClientMail(nobody, FRAMES, lambda client: None)
    mail.lines = lines
    mail.refuse(client, 7, "that is not for you")
    assert len(sent) == reads


def test_a_door_ends_once_its_clients_lines_have_taken_all_that_was_theirs() -> None:
    """Or when their time is up: what was sent and does not fit into a line's socket goes with the door's process."""
    said: list[str] = []
    slow = SimpleNamespace(outgoing=["a result"], holds_up=True)
    server: Any = SimpleNamespace(
        ends_at=None,
        said_closed=False,
        over=False,
        journal=None,
        clients=SimpleNamespace(by_route={b"": slow}),
        say_to_all=said.append,
    )

    def look() -> tuple[list[str], bool]:
        DoorServer.end_if_due(server)
        return said, server.over

    assert look() == ([], False)
    server.ends_at = time.monotonic() + 600
    assert look() == ([], False)
    slow.outgoing.clear()
    assert look() == (["closed"], False)
    assert look() == (["closed"], False)
    slow.holds_up = False
    assert look() == (["closed"], True)


def test_nobody_is_waited_for_beyond_their_time() -> None:
    said: list[str] = []
    deaf = SimpleNamespace(outgoing=["a result"], holds_up=True)
    clients = SimpleNamespace(by_route={b"": deaf})
    server: Any = SimpleNamespace(
        ends_at=time.monotonic(), said_closed=False, over=False, clients=clients, say_to_all=said.append
    )
    DoorServer.end_if_due(server)
    assert (said, server.over) == (["closed"], True)


@pytest.mark.parametrize("was_through", [True, False])
def test_the_boss_of_a_pool_that_is_through_may_end_before_its_clients_have_taken_all(was_through: bool) -> None:
    said: list[str] = []
    server: Any = SimpleNamespace(
        ends_at=time.monotonic() + 600 if was_through else None,
        over=False,
        journal=None,
        poller=SimpleNamespace(forget=lambda fd: None),
        boss=SimpleNamespace(fileno=lambda: 7),
        say_to_all=lambda op, reason: said.append(op),
    )
    DoorServer.lose_boss(server)
    assert (said, server.over) == (([], False) if was_through else (["goodbye"], True))

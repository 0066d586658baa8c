"""The ZeroMQ wire: workers speak ZMTP to libzmq, and libzmq to them; what is no message harms nobody."""

from __future__ import annotations

import os
import random
import select
import signal
import socket
import stat
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from bossworker.pool.wire import doorway
from bossworker.pool.wire.doorway import Doorway
from bossworker.pool.wire.frames import Frame, prefix_of
from bossworker.pool.wire.link import LinkClosed
from bossworker.pool.wire.messages import PREFIX, VERSION, Kind, ProtocolError
from bossworker.pool.wire.router import LONGEST_MESSAGE, Router
from bossworker.pool.wire.zmtp import _GREETING, DealerLink, EarlyLink, cut_messages, greet, header_of, introduce
from tests.conftest import OPEN, wait_for

ME = b"\0\0\0\0nonce-67"
DONE = prefix_of(Kind.DONE, b"", ())


@pytest.fixture
def door() -> Iterator[Doorway]:
    door = Doorway()
    yield door
    door.listener.close()
    door.close_way()
    door.remove_name()


@pytest.fixture
def router(door: Doorway) -> Iterator[Router]:
    router = Router(door.listener)
    yield router
    router.close()


@pytest.fixture
def enter(door: Doorway) -> Iterator[Callable[[], socket.socket]]:
    """Connects, as often as one likes."""
    made: list[socket.socket] = []

    def enter() -> socket.socket:
        way = door.way
        door.way = None if way is None else os.dup(way)
        made.append(door.connect())
        door.way = way
        return made[-1]

    yield enter
    for sock in made:
        sock.close()


def dealer(sock: socket.socket, identity: bytes = ME) -> DealerLink:
    greet(sock, identity)
    return DealerLink(sock)


def message(kind: Kind, head: bytes = b"", body: bytes = b"") -> bytes:
    return prefix_of(kind, head, [body]) + head + body


def receive(link: DealerLink) -> Frame:
    return receive_all(link, 1)[0]


def receive_all(link: DealerLink, count: int) -> list[Frame]:
    frames: list[Frame] = []

    def enough() -> bool:
        frames.extend(link.receive())
        return len(frames) >= count

    wait_for(enough)
    return frames


# -- both ways -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 230, 256, 70_000, 3_000_000])
def test_an_order_of_any_size_arrives(router: Router, enter: Callable[[], socket.socket], size: int) -> None:
    link = dealer(enter())
    body = os.urandom(size)
    wait_for(lambda: router.send(ME, message(Kind.BATCH, b"head", body)))
    frame = receive(link)
    assert (frame.kind, bytes(frame.head), bytes(frame.body)) == (Kind.BATCH, b"head", body)


def test_a_wake_and_a_large_order_in_one_read_both_arrive(router: Router, enter: Callable[[], socket.socket]) -> None:
    link = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    router.send(ME, message(Kind.BATCH, b"", bytes(100_000)))
    router.send(ME, message(Kind.LEAVE))
    assert [frame.kind for frame in receive_all(link, 3)] == [Kind.WAKE, Kind.BATCH, Kind.LEAVE]


def test_a_bell_reaches_the_boss_and_is_all_that_it_takes(router: Router, enter: Callable[[], socket.socket]) -> None:
    link = dealer(enter())
    for kind in (Kind.UP, Kind.DONE, Kind.DONE):
        link.send(kind)
    assert select.select([router.fileno()], [], [], 30)[0]
    assert router.take() == []
    link.send(Kind.SPILL, b"x" * 20)
    ((sender, _),) = wait_for(router.take)
    assert sender == ME


def test_a_libzmq_dealer_can_take_a_workers_place(tmp_path: Path) -> None:
    """So that it stays ZeroMQ."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(tmp_path / "s"))
    listener.listen()
    router = Router(listener)
    with zmq.Context() as context, context.socket(zmq.DEALER) as peer:
        peer.setsockopt(zmq.IDENTITY, ME)
        peer.setsockopt(zmq.LINGER, 0)
        peer.connect(f"ipc://{tmp_path}/s")
        wait_for(lambda: router.send(ME, message(Kind.BATCH, b"head", b"body")))
        assert peer.recv_multipart() == [message(Kind.BATCH, b"head", b"body")]
        peer.send(DONE)
        peer.send(b"and that is all")
        ((sender, _),) = wait_for(router.take)
        assert sender == ME
    router.close()


# -- traps -----------------------------------------------------------------------------------------------------


def test_a_message_to_nobody_is_told_and_not_dropped(router: Router, enter: Callable[[], socket.socket]) -> None:
    assert not router.send(ME, message(Kind.WAKE))
    link = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    link.close()
    wait_for(lambda: not router.send(ME, message(Kind.WAKE)))


def test_nothing_is_dropped_however_much_is_unread(router: Router, enter: Callable[[], socket.socket]) -> None:
    """Both ways: what a worker does not read waits in the boss, and a worker that sends too much waits itself."""
    link = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    for _ in range(5000):
        assert router.send(ME, message(Kind.BATCH, b"", bytes(100)))
    assert len(receive_all(link, 5001)) == 5001
    taken = 0
    for _ in range(20_000):
        link.send(Kind.SPILL)
    while taken < 20_000:
        link.flush()
        taken += len(router.take())
    assert not link.unsent


def test_the_descriptor_may_be_silent_with_messages_waiting(router: Router, enter: Callable[[], socket.socket]) -> None:
    """So the boss asks before each sleep."""
    link = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    silent = 0
    for _ in range(200):
        link.send(Kind.SPILL)
        select.select([router.fileno()], [], [], 0.05)
        router.send(ME, message(Kind.WAKE))  # eats the signal
        silent += not select.select([router.fileno()], [], [], 0)[0]
        assert len(router.take_rest()) == 1
    assert silent


def test_once_all_was_read_the_descriptor_tells_of_what_comes(
    router: Router, enter: Callable[[], socket.socket]
) -> None:
    """So the boss asks only after it has sent something."""
    link = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    router.take()
    for _ in range(200):
        link.send(Kind.SPILL)
        assert select.select([router.fileno()], [], [], 30)[0]
        assert len(router.take()) == 1
        assert router.take_rest() == []


def test_a_second_peer_of_an_identity_takes_nothing_from_the_first(
    router: Router, enter: Callable[[], socket.socket]
) -> None:
    first = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    liar = dealer(enter())
    for number in range(100):
        router.send(ME, message(Kind.BATCH, b"%d" % number))
    assert len(receive_all(first, 101)) == 101
    try:
        assert liar.receive() == []
    except LinkClosed:
        pass


def test_a_worker_sends_nothing_before_the_boss_is_ready() -> None:
    """libzmq drops who is ahead of it."""
    ours, theirs = socket.socketpair()
    ready = b"\x04\x06\x05READY"

    def work() -> None:
        dealer(theirs).send(Kind.DONE)

    with ours, theirs:
        worker = threading.Thread(target=work, daemon=True)
        worker.start()
        ours.settimeout(20)
        assert ours.recv(1000) == _GREETING
        ours.sendall(_GREETING)
        assert ours.recv(1000)[2:].startswith(b"\x05READY")
        ours.sendall(ready[:3])
        assert not select.select([ours], [], [], 0.05)[0]
        ours.sendall(ready[3:])
        assert ours.recv(1000) == header_of(len(DONE)) + DONE
        worker.join()


def test_what_a_worker_has_sent_arrives_though_it_is_killed_at_once(
    router: Router, enter: Callable[[], socket.socket]
) -> None:
    for number in range(50):
        me, sock = b"\0\0\0\0nonce-%d" % number, enter()
        pid = os.fork()
        if pid == 0:
            dealer(sock, me).send(Kind.SPILL, b"", [bytes(300)])
            os.kill(os.getpid(), signal.SIGKILL)
        os.waitpid(pid, 0)
        sock.close()
        assert [sender for sender, _ in wait_for(router.take)] == [me]


def test_a_worker_that_connects_before_libzmq_is_there_waits_for_it(
    door: Doorway, enter: Callable[[], socket.socket]
) -> None:
    sock = enter()
    pid = os.fork()
    if pid == 0:
        try:
            greet(sock, ME)
            os._exit(receive(DealerLink(sock)).kind)
        finally:
            os._exit(1)
    router = Router(door.listener)
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == Kind.WAKE
    router.close()


def test_after_an_introduction_orders_come_without_waiting(door: Doorway, enter: Callable[[], socket.socket]) -> None:
    """No byte is read before; what libzmq says first comes along with the orders, however it is cut."""
    link = EarlyLink(sock := enter())
    introduce(sock, ME)
    router = Router(door.listener)
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    router.send(ME, message(Kind.BATCH, b"", bytes(100_000)))
    assert [frame.kind for frame in receive_all(link, 2)] == [Kind.WAKE, Kind.BATCH]
    router.close()


def test_the_greeting_of_another_kind_of_server_is_refused() -> None:
    raw, end = socket.socketpair()
    with raw, end:
        raw.sendall(_GREETING[:12] + b"CURVE" + _GREETING[17:])
        with pytest.raises(ProtocolError):
            EarlyLink(end).receive()


def test_the_end_of_the_boss_ends_a_handshake(door: Doorway, enter: Callable[[], socket.socket]) -> None:
    sock = enter()
    door.listener.close()
    with pytest.raises((LinkClosed, ConnectionResetError, BrokenPipeError)):
        greet(sock, ME)


# -- garbage ---------------------------------------------------------------------------------------------------


def test_garbage_costs_the_router_nothing(
    router: Router, enter: Callable[[], socket.socket], request: pytest.FixtureRequest
) -> None:
    """Random and mutated streams, from strangers: a friend is served beside them, and none of them stays open."""
    rng = random.Random(5)
    link = dealer(enter())
    wait_for(lambda: router.send(ME, message(Kind.WAKE)))
    receive(link)
    before = len(os.listdir(OPEN))
    ready = b"\x04\x26\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
    sound = _GREETING + ready + header_of(len(DONE)) + DONE + header_of(3) + b"abc"
    for number in range(100_000 if request.config.getoption("--long") else 2_000):
        sock = enter()
        stream = bytearray(sound)
        for _ in range(rng.choice([0, 1, 1, 3, 20])):
            stream[rng.randrange(len(stream))] = rng.randrange(256)
        if rng.random() < 0.2:
            stream = bytearray(rng.randbytes(rng.randrange(300)))
        try:
            sock.sendall(stream[: rng.randrange(len(stream) + 1)])
        except OSError:
            pass
        sock.close()
        if number % 100 == 0:
            assert router.send(ME, message(Kind.BATCH, b"%d" % number))
            assert bytes(receive(link).head) == b"%d" % number
            assert all(sender != ME for sender, _ in router.take())
    # libzmq aborts (zmtp_engine.cpp:422 of 4.3.5) if its context ends just as one says that it speaks an older ZMTP.
    with enter() as last:
        last.sendall(_GREETING)
        assert last.recv(1)  # those before it have been let in by now
    wait_for(lambda: len(os.listdir(OPEN)) <= before)


def test_a_message_that_is_too_long_ends_its_connection(router: Router, enter: Callable[[], socket.socket]) -> None:
    link = dealer(enter())
    link.send(Kind.SPILL, b"", [bytes(LONGEST_MESSAGE)])
    with pytest.raises(LinkClosed):
        wait_for(link.receive)
    assert router.take() == []


@pytest.mark.parametrize(
    "stream",
    [
        b"\x01" + header_of(len(DONE))[1:] + DONE,  # more to come
        b"\xff\x01x",
        header_of(3) + b"abc",
        header_of(len(DONE) + 1) + DONE + b"x",
        header_of(PREFIX.size) + PREFIX.pack(VERSION, Kind.DONE, 1, 0, 0)[:-1] + b"\xff",
    ],
)
def test_what_is_no_frame_is_refused(stream: bytes) -> None:
    with pytest.raises(ProtocolError):
        cut_messages(memoryview(stream), [])


@pytest.mark.parametrize(("kind_of_link", "before"), [(DealerLink, b""), (EarlyLink, _GREETING)])
def test_messages_cut_at_any_byte_arrive_whole(kind_of_link: type[DealerLink], before: bytes) -> None:
    stream = before + b"".join(
        header_of(len(one)) + one
        for one in (DONE, message(Kind.BATCH, b"head", bytes(300)), message(Kind.BATCH, b"", b"x" * 255))
    )
    ping = b"\x04\x07\x04PING\0\0"
    for cut in range(len(stream) + 1):
        raw, end = socket.socketpair()
        link = kind_of_link(end)
        kinds = []
        for piece in (stream[:cut], stream[cut:] + ping):
            if piece:
                raw.sendall(piece)
                kinds += [frame.kind for frame in link.receive()]
        assert kinds == [Kind.DONE, Kind.BATCH, Kind.BATCH]
        raw.close()
        link.close()


# -- the door --------------------------------------------------------------------------------------------------


def test_nothing_of_the_door_is_left_and_nobody_else_finds_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "x"))
    (tmp_path / "x").mkdir()
    door = Doorway()
    assert list((tmp_path / "x").iterdir()) == []
    with door.connect(), door.listener.accept()[0]:
        assert door.way is None  # a worker keeps no way in
    door.listener.close()


def test_a_long_folder_for_temporary_files_does_not_matter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / ("d" * 100) / ("e" * 100)
    deep.mkdir(parents=True)
    monkeypatch.setenv("TMPDIR", str(deep))
    door = Doorway()
    door.connect().close()
    door.listener.close()
    assert list(deep.iterdir()) == []


def test_without_proc_a_private_name_stays_until_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doorway, "_descriptors_are_ways", lambda: False)
    monkeypatch.setenv("TMPDIR", str(tmp_path / ("d" * 100)))  # too long a name
    door = Doorway()
    assert stat.S_IMODE(os.stat(door.folder).st_mode) == 0o700
    assert len(door.path) < 108
    door.connect().close()
    door.connect().close()
    door.listener.close()
    door.remove_name()
    assert not os.path.exists(door.folder)


def test_a_failure_on_the_way_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(os, "O_PATH", -1)  # what bind is through with cannot be opened
    with pytest.raises(OSError):  # noqa: PT011 - which one is the system's choice
        Doorway()
    assert list(tmp_path.iterdir()) == []

"""Frames over a socket pair: whole, in order, and never lost, however the bytes come and whatever interrupts."""

from __future__ import annotations

import os
import random
import resource
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from bossworker.pool.wire.frames import JOIN_BELOW, MAX_BODY, MAX_FDS, MAX_HEAD, Frame, pack
from bossworker.pool.wire.link import READ_SIZE, Link, LinkClosed, close_fds, link_pair
from bossworker.pool.wire.messages import PREFIX, VERSION, Kind, ProtocolError
from tests.unit.storm import Alarm, Interruption, Storm

STORM_FRAMES = 2500


@pytest.fixture
def ends() -> Iterator[tuple[Link, Link]]:
    here, there = map(Link, link_pair())
    yield here, there
    here.close()
    there.close()


@pytest.fixture
def wire() -> Iterator[tuple[socket.socket, Link]]:
    """A bare socket, and the link at its other end."""
    raw, end = link_pair()
    link = Link(end)
    yield raw, link
    raw.close()
    link.close()


def bytes_of(kind: Kind, head: bytes = b"", body: bytes = b"") -> bytes:
    return b"".join(bytes(part) for part, _ in pack(kind, head, [body]))


def plain(frame: Frame) -> tuple[Kind, bytes, bytes]:
    return frame.kind, bytes(frame.head), bytes(frame.body)


def pump(sender: Link, receiver: Link) -> list[Frame]:
    """Send and receive until all that is queued has arrived."""
    frames: list[Frame] = []
    while not sender.flush():
        frames += receiver.receive()
    while found := receiver.receive():
        frames += found
    return frames


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# -- frames ----------------------------------------------------------------------------------------------------


def test_a_frame_arrives_as_it_was_sent(ends: tuple[Link, Link]) -> None:
    here, there = ends
    assert there.receive() == []
    assert here.send(Kind.SUBMIT, b"head", [b"body ", bytearray(b"in "), memoryview(b"parts")])
    assert not here.unsent
    assert list(map(plain, there.receive())) == [(Kind.SUBMIT, b"head", b"body in parts")]
    assert there.receive() == []


def test_an_empty_frame_is_a_frame(ends: tuple[Link, Link]) -> None:
    here, there = ends
    here.send(Kind.LEAVE)
    assert list(map(plain, there.receive())) == [(Kind.LEAVE, b"", b"")]


@pytest.mark.parametrize("sizes", [[0, 5, 0, 30], [1, 1, 1], [17]])
def test_frames_cut_at_any_byte_arrive_whole(wire: tuple[socket.socket, Link], sizes: list[int]) -> None:
    raw, link = wire
    expected = [(Kind.DONE, bytes([n]) * n, os.urandom(size)) for n, size in enumerate(sizes)]
    stream = b"".join(bytes_of(*frame) for frame in expected)
    for cut in range(len(stream) + 1):
        frames = []
        for piece in (stream[:cut], stream[cut:]):
            if piece:
                raw.sendall(piece)
                frames += link.receive()
        assert list(map(plain, frames)) == expected


def test_frames_that_come_byte_by_byte_arrive_whole(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    expected = [(Kind.UP, b"", b""), (Kind.SPILL, b"head", b"x" * 100), (Kind.DONE, b"1", b"")]
    frames = []
    for byte in b"".join(bytes_of(*frame) for frame in expected):
        raw.sendall(bytes([byte]))
        frames += link.receive()
    assert list(map(plain, frames)) == expected


def test_a_large_frame_that_comes_in_pieces_of_any_size_arrives_whole(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    rng = random.Random(1)
    expected = [(Kind.RESULTS, os.urandom(rng.randint(0, 50)), os.urandom(rng.randint(0, 60_000))) for _ in range(20)]
    stream = memoryview(b"".join(bytes_of(*frame) for frame in expected))
    frames = []
    while stream:
        step = rng.choice([1, PREFIX.size - 1, PREFIX.size, 1000, 30_000])
        raw.sendall(stream[:step])
        stream = stream[step:]
        if rng.random() < 0.7:
            frames += link.receive()
    assert list(map(plain, frames + link.receive())) == expected


def test_many_frames_in_one_read_are_told_apart(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    expected = [(Kind.DONE, b"%d" % n, b"x" * (n % 7)) for n in range(1000)]
    raw.sendall(b"".join(bytes_of(*frame) for frame in expected))
    assert list(map(plain, link.receive(1))) == expected


def test_large_frames_go_both_ways_at_once_without_either_side_waiting(ends: tuple[Link, Link]) -> None:
    here, there = ends
    bodies = {here: os.urandom(5_000_000), there: os.urandom(3_000_000)}
    got: dict[Link, list[Frame]] = {here: [], there: []}
    assert not here.send(Kind.SUBMIT, b"h", [bodies[here][:JOIN_BELOW], bodies[here][JOIN_BELOW:]])
    assert not there.send(Kind.RESULTS, b"t", [bodies[there]])
    while not (got[here] and got[there]):
        for link in ends:
            link.flush()
            got[link] += link.receive(1)
    assert not here.unsent
    assert not there.unsent
    assert list(map(plain, got[there])) == [(Kind.SUBMIT, b"h", bodies[here])]
    assert list(map(plain, got[here])) == [(Kind.RESULTS, b"t", bodies[there])]


def test_a_socket_that_is_full_keeps_the_order(ends: tuple[Link, Link]) -> None:
    here, there = ends
    sent = 0
    while here.send(Kind.SUBMIT, b"%d" % sent, [bytes(1000)]):
        sent += 1
    assert here.unsent
    for n in range(sent + 1, sent + 50):
        assert not here.send(Kind.SUBMIT, b"%d" % n)
    heads = [int(bytes(frame.head)) for frame in pump(here, there)]
    assert heads == list(range(sent + 50))


def test_frames_can_be_left_in_the_link_and_taken_one_by_one(ends: tuple[Link, Link]) -> None:
    here, there = ends
    here.send(Kind.UP)
    there.pull()
    here.send(Kind.LEAVE)
    there.pull()
    assert [frame.kind for frame in there.frames] == [Kind.UP, Kind.LEAVE]
    del there.frames[0]
    assert [frame.kind for frame in there.receive()] == [Kind.LEAVE]


class CountingSocket(socket.socket):
    """Counts the system calls that send and receive."""

    calls = 0

    def send(self, *args: Any) -> int:
        self.calls += 1
        return super().send(*args)

    def sendmsg(self, *args: Any) -> int:
        self.calls += 1
        return super().sendmsg(*args)

    def recvmsg(self, *args: Any) -> Any:
        self.calls += 1
        return super().recvmsg(*args)

    def recv_into(self, *args: Any) -> int:
        self.calls += 1
        return super().recv_into(*args)


def counting_pair() -> tuple[Link, Link]:
    here, there = (CountingSocket(fileno=end.detach()) for end in link_pair())
    return Link(here), Link(there)


def calls(link: Link) -> int:
    assert isinstance(link.sock, CountingSocket)
    return link.sock.calls


def test_a_long_frame_of_many_parts_goes_out_in_one_system_call() -> None:
    here, there = counting_pair()
    columns = [os.urandom(size) for size in (8 * 1000, 8 * 1000, 1000, JOIN_BELOW)]
    assert here.send(Kind.RESULTS, b"head", columns)
    assert calls(here) == 1
    assert list(map(plain, there.receive())) == [(Kind.RESULTS, b"head", b"".join(columns))]
    here.close()
    there.close()


def test_frames_that_piled_up_go_out_together_but_for_those_with_descriptors() -> None:
    here, there = counting_pair()
    fd = a_descriptor()[0]
    for number in range(5):
        here.queue(pack(Kind.SUBMIT, b"%d" % number, (), (fd,) if number == 2 else ()))
    assert here.flush()
    assert calls(here) == 2
    frames = there.receive()
    assert [(bytes(frame.head), len(frame.fds)) for frame in frames] == [(b"%d" % n, n == 2) for n in range(5)]
    close_fds(frames[2].fds)
    here.close()
    there.close()


def test_the_rest_of_a_long_frame_is_received_in_place(ends: tuple[Link, Link]) -> None:
    here, there = ends
    body = os.urandom(1 << 20)
    here.send(Kind.SUBMIT, b"head", [body])
    here.queue(pack(Kind.LEAVE))
    long, short = pump(here, there)
    assert (plain(long), plain(short)) == ((Kind.SUBMIT, b"head", body), (Kind.LEAVE, b"", b""))
    assert isinstance(long.body.obj, bytearray)
    assert len(long.body.obj) == PREFIX.size + len(b"head") + len(body)


def test_a_frame_that_claims_to_be_very_long_gets_memory_only_as_it_comes(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    raw.sendall(PREFIX.pack(VERSION, Kind.SPILL, 0, 0, MAX_BODY) + bytes(100_000))
    assert link.receive() == []
    assert link.receive() == []
    assert link.held == PREFIX.size + 100_000
    assert not link.garbled


@pytest.mark.parametrize(
    "prefix",
    [
        PREFIX.pack(VERSION, Kind.SPILL, 0, 0, MAX_BODY + 1),
        PREFIX.pack(VERSION, Kind.SPILL, 0, MAX_HEAD + 1, 0),
        PREFIX.pack(VERSION, Kind.SPILL, MAX_FDS + 1, 0, 0),
        PREFIX.pack(VERSION, 99, 0, 0, 0),
        PREFIX.pack(VERSION + 1, Kind.SPILL, 0, 0, 0),
    ],
)
def test_what_comes_before_garbage_is_received(wire: tuple[socket.socket, Link], prefix: bytes) -> None:
    raw, link = wire
    raw.sendall(bytes_of(Kind.SPILL, b"head", b"body") * 2 + prefix)
    assert [plain(frame) for frame in link.receive()] == [(Kind.SPILL, b"head", b"body")] * 2
    assert link.garbled
    raw.sendall(b"more")
    for _ in range(2):
        with pytest.raises(ProtocolError, match="not a frame"):
            link.receive()


def test_descriptors_that_no_frame_carries_are_refused_and_closed(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    before = len(os.listdir("/proc/self/fd"))
    socket.send_fds(raw, [bytes_of(Kind.UP, b"", b"")], [1])
    with pytest.raises(ProtocolError, match="descriptors"):
        link.receive()
    link.drop()
    assert len(os.listdir("/proc/self/fd")) == before - 1, "what came is closed, as is the link"


@pytest.mark.parametrize("left_over", [0, 1, READ_SIZE - 1])
def test_a_frame_as_long_as_what_is_received_in_place_is_followed_by_the_next(
    wire: tuple[socket.socket, Link], left_over: int
) -> None:
    """The shortest that are, and the longest that are not."""
    raw, link = wire
    expected = [(Kind.RESULTS, b"", os.urandom(READ_SIZE - PREFIX.size + left_over)), (Kind.DONE, b"1", b"")] * 3
    frames = []
    for frame in expected:
        raw.sendall(bytes_of(*frame))
        frames += link.receive(1)
    while len(frames) < len(expected):
        frames += link.receive()
    assert list(map(plain, frames)) == expected


# -- descriptors -----------------------------------------------------------------------------------------------


def a_descriptor() -> tuple[int, int]:
    """An open file, and its inode."""
    fd = os.memfd_create("bossworker-test") if hasattr(os, "memfd_create") else os.open(os.devnull, os.O_RDONLY)
    return fd, os.fstat(fd).st_ino


def test_descriptors_arrive_with_their_own_frame_and_are_closed_here(ends: tuple[Link, Link]) -> None:
    here, there = ends
    rng = random.Random(1)
    before = descriptors()
    expected: list[tuple[int, list[int]]] = []
    frames = []
    for n in range(100):
        made = [a_descriptor() for _ in range(rng.choice([0, MAX_FDS]))]
        here.send(Kind.SPAWNED, b"%d" % n, [bytes(rng.choice([0, 10, 9000]))], tuple(fd for fd, _ in made))
        expected.append((n, [inode for _, inode in made]))
        if rng.random() < 0.5:
            frames += pump(here, there)
    frames += pump(here, there)
    assert [(int(bytes(f.head)), [os.fstat(fd).st_ino for fd in f.fds]) for f in frames] == expected
    assert descriptors() - before == sum(len(inodes) for _, inodes in expected)
    for frame in frames:
        for fd in frame.fds:
            os.close(fd)
    assert descriptors() == before


def test_descriptors_go_with_the_first_part_of_a_large_frame(ends: tuple[Link, Link]) -> None:
    here, there = ends
    before = descriptors()
    fd, inode = a_descriptor()
    here.send(Kind.SPAWNED, b"large", [bytes(3_000_000)], (fd,))
    here.send(Kind.SPAWNED, b"none")
    large, none = pump(here, there)
    assert (len(large.fds), none.fds) == (1, [])
    assert os.fstat(large.fds[0]).st_ino == inode
    os.close(large.fds[0])
    assert descriptors() == before


def test_descriptors_arrive_through_a_full_socket(ends: tuple[Link, Link]) -> None:
    here, there = ends
    before = descriptors()
    while here.send(Kind.SUBMIT, b"", [bytes(5000)]):
        pass
    inodes = []
    for _ in range(5):
        fd, inode = a_descriptor()
        inodes.append(inode)
        here.send(Kind.SPAWNED, b"", [], (fd,))
    carrying = [frame for frame in pump(here, there) if frame.kind is Kind.SPAWNED]
    assert [os.fstat(frame.fds[0]).st_ino for frame in carrying] == inodes
    for frame in carrying:
        os.close(frame.fds[0])
    assert descriptors() == before


# -- the peer is gone, or is not what it should be -------------------------------------------------------------


def test_what_was_sent_before_the_peer_hung_up_still_arrives(ends: tuple[Link, Link]) -> None:
    here, there = ends
    for n in range(100):
        here.send(Kind.DONE, b"%d" % n)
    here.close()
    frames: list[Frame] = []
    while len(frames) < 100:
        frames += there.receive(1)
    assert [int(bytes(frame.head)) for frame in frames] == list(range(100))
    with pytest.raises(LinkClosed):
        there.receive()


def test_the_end_is_told_only_after_the_frames_that_came_with_it(ends: tuple[Link, Link]) -> None:
    here, there = ends
    here.send(Kind.SUBMIT, b"", [bytes(50_000)])
    here.send(Kind.DONE)
    here.close()
    assert [frame.kind for frame in there.receive()] == [Kind.SUBMIT, Kind.DONE]
    with pytest.raises(LinkClosed):
        there.receive()


def test_a_frame_that_was_cut_off_by_the_end_is_not_returned(wire: tuple[socket.socket, Link]) -> None:
    raw, link = wire
    raw.sendall(bytes_of(Kind.DONE) + bytes_of(Kind.SPILL, b"", b"x" * 100)[:-1])
    raw.close()
    assert [frame.kind for frame in link.receive()] == [Kind.DONE]
    with pytest.raises(LinkClosed):
        link.receive()


def test_sending_to_a_peer_that_is_gone_says_so(ends: tuple[Link, Link]) -> None:
    here, there = ends
    there.close()
    with pytest.raises(LinkClosed):
        here.send(Kind.DONE)


def test_hanging_up_reaches_the_peer_though_a_copy_of_the_descriptor_lives(ends: tuple[Link, Link]) -> None:
    here, there = ends
    copy = here.sock.dup()
    here.close()
    with pytest.raises(LinkClosed):
        there.receive()
    copy.close()


def test_dropping_a_copy_leaves_the_link_as_it_is(ends: tuple[Link, Link]) -> None:
    here, there = ends
    Link(here.sock.dup()).drop()
    here.send(Kind.UP)
    assert [frame.kind for frame in there.receive()] == [Kind.UP]


@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
        PREFIX.pack(VERSION + 1, Kind.DONE, 0, 0, 0),
        PREFIX.pack(VERSION, 255, 0, 0, 0),
        PREFIX.pack(VERSION, Kind.DONE, MAX_FDS + 1, 0, 0),
    ],
)
def test_garbage_is_no_frame(wire: tuple[socket.socket, Link], garbage: bytes) -> None:
    raw, link = wire
    raw.sendall(garbage)
    with pytest.raises(ProtocolError):
        link.receive()


# -- interrupted -----------------------------------------------------------------------------------------------


class Traffic:
    """Numbered frames from one link to another. Each step may be interrupted anywhere, and is then repeated."""

    def __init__(self, sender: Link, receiver: Link, rng: random.Random) -> None:
        self.sender = sender
        self.receiver = receiver
        pool = rng.randbytes(1 << 20)
        sizes = [rng.choice([0, 1, 100, 5000, JOIN_BELOW - 1, 3 * JOIN_BELOW]) for _ in range(STORM_FRAMES)]
        sizes = [size if n % 4 == 0 else size % 5000 for n, size in enumerate(sizes)]
        self.bodies = [pool[size : 2 * size] for size in sizes]
        self.queued = 0
        self.arrived = 0
        self.parts = pack(Kind.SUBMIT, b"0", [self.bodies[0]])

    @property
    def done(self) -> bool:
        return self.arrived == STORM_FRAMES

    def step(self) -> None:
        self._queue()
        self.sender.flush()
        self.receiver.pull(4)
        while self.receiver.frames:
            frame = self.receiver.frames[0]
            assert int(bytes(frame.head)) == self.arrived
            assert frame.body == self.bodies[self.arrived]
            del self.receiver.frames[0]  # no call up to the end of the next line: both happen, or neither
            self.arrived += 1

    def _queue(self) -> None:
        if not self.parts:  # it went out, this time or before an interruption
            number = self.queued + 1
            if number == STORM_FRAMES:
                return
            parts = pack(Kind.SUBMIT, b"%d" % number, [self.bodies[number]])
            self.parts = parts
            self.queued = number
        self.sender.queue(self.parts)


@pytest.mark.parametrize("error", [Interruption, Alarm])
def test_no_byte_is_lost_whenever_a_signal_handler_raises(ends: tuple[Link, Link], error: type[Exception]) -> None:
    here, there = ends
    rng = random.Random(7)
    ways = [Traffic(here, there, rng), Traffic(there, here, rng)]
    with Storm(error, rng) as storm:
        while not all(way.done for way in ways):
            for way in ways:
                try:
                    storm.open = True
                    way.step()
                    storm.open = False
                except error:
                    pass
    assert storm.hits > 100
    assert [way.arrived for way in ways] == [STORM_FRAMES] * 2
    assert not here.unsent
    assert not there.unsent


def test_descriptors_and_their_frames_survive_a_signal_handler_that_raises(ends: tuple[Link, Link]) -> None:
    """The count of what was sent with a descriptor must not be lost either: the stream would be garbled."""
    here, there = ends
    rng = random.Random(3)
    inode = os.fstat(here.fileno()).st_ino
    arrived = number = 0
    parts = pack(Kind.SPAWNED, b"0", [b"x"], (os.dup(here.fileno()),))
    with Storm(Interruption, rng) as storm:
        while arrived < 3000:
            try:
                storm.open = True
                if parts:
                    here.queue(parts)
                here.flush()
                there.pull(4)
                storm.open = False
            except Interruption:
                continue
            for frame in there.frames:
                assert (int(bytes(frame.head)), bytes(frame.body)) == (arrived, b"x")
                assert os.fstat(frame.fds[0]).st_ino == inode
                close_fds(frame.fds)
                arrived += 1
            there.frames = []
            if not parts:
                number += 1
                parts = pack(Kind.SPAWNED, b"%d" % number, [b"x"], (os.dup(here.fileno()),))
    close_fds([fd for _, fds in parts for fd in fds])
    assert storm.hits > 50


def test_a_descriptor_without_room_here_is_missed_by_its_own_frame_alone(ends: tuple[Link, Link]) -> None:
    here, there = ends
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    fds = [a_descriptor()[0] for _ in range(3)]
    inodes = [os.fstat(fd).st_ino for fd in fds]
    full: list[int] = []
    here.send(Kind.SPAWNED, b"0", (), fds[:1])
    here.send(Kind.SPAWNED, b"1", [bytes(90_000)], fds[1:2])
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors() + 50, limits[1]))
        while True:
            full.append(os.dup(here.fileno()))
    except OSError:
        pass
    os.close(full.pop())
    try:
        frames = there.receive(1)  # takes the last descriptor
        frames += there.receive(1)
    finally:
        for fd in full:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    here.send(Kind.SPAWNED, b"2", (), fds[2:])
    frames += pump(here, there)
    found = [frame.fd and os.fstat(frame.fd).st_ino for frame in frames]
    assert found == [inodes[0], None, inodes[2]]
    for frame in frames:
        close_fds(frame.fds)


def test_to_hang_up_under_a_thread_that_sends_is_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is to be sent is dropped between the system call and its bookkeeping."""
    ours, theirs = link_pair()
    link = Link(ours)
    account = Link._account

    def hang_up_first(self: Link) -> None:
        self.drop()
        account(self)

    monkeypatch.setattr(Link, "_account", hang_up_first)
    with pytest.raises(LinkClosed, match="another thread has hung up"):
        link.send(Kind.CLOSE)
    theirs.close()


def test_descriptors_that_are_queued_just_after_another_thread_has_hung_up_are_closed(ends: tuple[Link, Link]) -> None:
    here, _ = ends
    fd = os.dup(here.fileno())
    here.close()
    with pytest.raises(LinkClosed):
        here.send(Kind.SPAWNED, b"", [b"x"], (fd,))
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)

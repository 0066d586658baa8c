"""Lines of their own: what they carry, who gets none, and what becomes of whoever misuses one."""

from __future__ import annotations

import json
import os
import random
import socket
import time
from array import array
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker import BossWorker, Door
from bossworker.pool.door import attachment, direct_lines, door_protocol
from bossworker.pool.door.client_link import ClientLink
from bossworker.pool.door.client_requests import MOST_LENT, _body
from bossworker.pool.door.direct_lines import TOKEN_BYTES
from bossworker.pool.door.door_clients import whole_segment
from bossworker.pool.door.door_poller import DoorPoller
from bossworker.pool.door.door_protocol import FRAMES, JSON
from bossworker.pool.wire.batch import Batch, JobOptions, pack_one
from bossworker.pool.wire.link import Link
from bossworker.pool.wire.messages import ProtocolError
from bossworker.pool.wire.parcel import Parcel
from bossworker.pool.wire.segments import single
from tests.conftest import wait_for
from tests.door.test_strangers import answers, greeting, mutated, raw, seeds_of

Make = Callable[..., BossWorker]

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system has no names without a file")


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("wait"):
        while not os.path.exists(job["wait"]):
            time.sleep(0.005)
    return {"n": job["n"], "data": job.get("data", b"")[::-1]}


def link_of(client: BossWorker) -> Link:
    return client._connection.link


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def offered(sock: Any) -> dict[str, str]:
    """What a raw client is told that asks for a line."""
    sock.send(greeting(FRAMES, line=True))
    told = answers(sock)
    assert told["op"] == "welcome"
    return told["line"]  # type: ignore[no-any-return]


def dial(name: str) -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.settimeout(30)
    sock.connect(b"\0bossworker-" + name.encode())
    return sock


def test_clients_of_this_user_have_one_and_the_door_reads_no_large_payload(pool: Make, clients: Make) -> None:
    door = pool(work, worker_count=1).listen()
    client = clients(door)
    assert type(link_of(client)) is Link

    def written() -> int:
        """Bytes that the door has got or written in system calls on files; memory files among them."""
        told = Path(f"/proc/{door.pid}/io").read_text().splitlines()
        return sum(int(line.split()[1]) for line in told[:2])

    client.add_work({"n": 0})
    client.get_result()
    before = written()
    client.add_work({"n": 1, "data": bytes(1 << 24) + b"end"})
    assert client.get_result()["data"][:4] == b"dne\0"
    assert written() - before < 1 << 20


@pytest.mark.parametrize("keep", [False, True])
def test_many_large_jobs_take_few_descriptors(pool: Make, clients: Make, tmp_path: Path, keep: bool) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    client = clients(door, keep=keep)
    gate = tmp_path / "gate"
    processes = (door.pid, bw.boss_pid, os.getpid())
    before = [open_files(pid) for pid in processes]
    data = [random.Random(n).randbytes(300_000) for n in range(150)]
    client.add_work(*({"n": n, "data": part, "wait": str(gate)} for n, part in enumerate(data)))
    wait_for(lambda: client.stats().queued + client.stats().running == len(data))
    assert all(open_files(pid) - at_first < 100 for pid, at_first in zip(processes, before))
    gate.touch()
    assert {result["n"]: result["data"][::-1] for result in client.results()} == dict(enumerate(data))
    wait_for(lambda: open_files(door.pid) <= before[0] + 1)


def test_without_one_all_goes_over_zeromq(
    pool: Make, clients: Make, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """As for another user, whom the door hangs up on; also what was kept comes then."""
    door = pool(work, worker_count=1).listen()
    monkeypatch.setattr(attachment, "take_line", lambda *_: None)
    first = clients(door, keep=True, identity="a")
    assert type(link_of(first)) is ClientLink
    first.add_work({"n": 1, "data": b"x" * 3_000_000})
    first.detach()  # type: ignore[attr-defined]
    again = clients(door, keep=True, identity="a")
    assert again.get_result()["data"] == b"x" * 3_000_000


def test_another_user_gets_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen from the door: the name can be dialled by anybody, but it looks who it is."""
    lines, poll = door_end(monkeypatch)
    monkeypatch.setattr(direct_lines, "_user_of", lambda sock: os.getuid() + 1)
    with dial(lines._name) as sock:
        poll()
        assert sock.recv(1) == b""
    lines._listener.close()  # type: ignore[union-attr]


def door_end(monkeypatch: pytest.MonkeyPatch) -> tuple[direct_lines.DirectLines, Callable[[], None]]:
    poller = DoorPoller()
    lines = direct_lines.DirectLines(poller, lambda client: None, lambda client: None, lambda client: None)
    return lines, lambda: poller.wait(30)


@pytest.mark.parametrize("token", [b"", b"x" * TOKEN_BYTES, b"x"])
def test_who_does_not_know_the_token_is_hung_up_on(pool: Make, clients: Make, token: bytes) -> None:
    door = pool(work, worker_count=1).listen()
    with raw(door) as sock:
        line = offered(sock)
        for _ in range(100):
            with dial(line["name"]) as stranger:
                stranger.sendall(token)
                stranger.shutdown(socket.SHUT_WR)
                assert stranger.recv(1) == b""
    client = clients(door)
    client.add_work({"n": 1})
    assert client.get_result()["n"] == 1


def test_who_says_nothing_takes_no_room_for_ever(pool: Make, clients: Make) -> None:
    door = pool(work, worker_count=1).listen()
    with raw(door) as sock:
        line = offered(sock)
        silent = [dial(line["name"]) for _ in range(direct_lines.MOST_WAITING + 20)]
        client = clients(door)  # without a line, since there is no room; or with one
        client.add_work({"n": 1})
        assert client.get_result()["n"] == 1
        for one in silent:
            one.close()
    wait_for(lambda: open_files(door.pid) < 60)


def test_a_client_that_asks_for_one_and_speaks_without_is_answered(pool: Make) -> None:
    door = pool(work, worker_count=1).listen()
    with raw(door) as sock:
        offered(sock)
        sock.send(seeds_of(FRAMES)[2])  # what are the pool's figures?
        assert b"workers" in sock.recv()


def test_garbage_on_a_line_costs_its_client_alone(pool: Make, clients: Make, request: pytest.FixtureRequest) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    friend = clients(door)
    rng, seeds = random.Random(3), seeds_of(FRAMES)
    for _ in range(200 if request.config.getoption("--long") else 20):
        with raw(door) as sock:
            line = offered(sock)
            with dial(line["name"]) as stranger:
                stranger.sendall(bytes.fromhex(line["token"]))
                assert stranger.recv(1) == direct_lines.WELCOME
                with suppress(OSError):  # it is hung up on, unless it claims to be sending a very long frame
                    for _ in range(500):
                        stranger.sendall(mutated(rng, seeds))
    friend.add_work({"n": 5})
    assert friend.get_result()["n"] == 5
    assert bw.stats().restarts == 0
    wait_for(lambda: len(door.clients) == 1)


@pytest.mark.parametrize("in_file", [True, False])
def test_data_that_is_not_in_its_file_is_a_malformed_message(in_file: bool) -> None:
    """Where the door has to read it; a worker that does, tells the job's result."""
    table = Parcel((b"x" * 300_000,)).table()
    batch = Batch(1, 1, 0, JobOptions(0, 0.0, 0, 1), array("I", [1]), array("Q", [len(table)]), table)
    file = os.memfd_create("short")
    try:
        if in_file:
            _, (copy,) = _body(batch, file, in_file)
            os.close(copy)
        else:
            with pytest.raises(ProtocolError, match="not in its file"):
                _body(batch, file, in_file)
    finally:
        os.close(file)


def test_a_door_lives_on_when_a_client_lends_short_files(pool: Make, clients: Make, tmp_path: Path) -> None:
    """More than it passes on with their files: the others it would have to read itself."""
    bw = pool(work, worker_count=1)
    door = bw.listen()
    bw.add_work({"n": 0, "wait": str(tmp_path / "gate")})
    table, file = Parcel((b"x" * 300_000,)).table(), os.memfd_create("short")
    with raw(door) as sock:
        line = offered(sock)
        with dial(line["name"]) as stranger:
            stranger.sendall(bytes.fromhex(line["token"]))
            assert stranger.recv(1) == direct_lines.WELCOME
            link = Link(stranger)
            for number in range(1, MOST_LENT + 3):
                link.queue(pack_one(number, JobOptions(0, 0.0, 0, 1), table, [os.dup(file)]))
                while not link.flush():
                    time.sleep(0.001)
            wait_for(lambda: door.malformed == 2)
    os.close(file)
    (tmp_path / "gate").touch()
    friend = clients(door)
    friend.add_work({"n": 5})
    assert friend.get_result()["n"] == 5


def test_a_result_whose_data_is_missing_is_the_clients_to_find() -> None:
    table = Parcel((b"x" * 300_000,)).table()
    segment = single(1, 2, 1, 0.0, 1.0, 0, memoryview(table))
    file = os.memfd_create("short")
    try:
        assert bytes(whole_segment(segment, file).payload) == table
    finally:
        os.close(file)


def test_clients_that_do_not_read_are_not_waited_for(pool: Make, clients: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    deaf, friend = clients(door), clients(door)
    deaf.add_work(*({"n": n, "data": b"x" * 200_000} for n in range(100)))
    for n in range(20):
        friend.add_work({"n": n})
        assert friend.get_result(timeout=60)["n"] == n  # type: ignore[index]
    assert sorted(result["n"] for result in deaf.results()) == list(range(100))


def test_the_hello_of_before_lines_is_understood(pool: Make) -> None:
    door: Door = pool(work, worker_count=1).listen()
    told = json.loads(greeting(FRAMES))
    del told["line"]
    with raw(door) as sock:
        sock.send(json.dumps(told).encode())
        assert answers(sock)["line"] is None
    assert door_protocol.DOOR_VERSION == 1
    assert bossworker.__version__


def test_a_door_for_json_offers_none(pool: Make) -> None:
    """Frames go over them, and what is in those is pickles."""
    door = pool(work, worker_count=1).listen(accept="json")
    with raw(door) as sock:
        sock.send(greeting(JSON, line=True))
        assert answers(sock)["line"] is None

"""What strangers and broken clients get: nothing. And what gets in costs nobody else anything."""

from __future__ import annotations

import errno
import json
import logging
import os
import pickle
import random
import re
import resource
import socket
import stat
import struct
import sys
import threading
import time
from array import array
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import zmq

import bossworker
from bossworker import BossWorker, Door, DoorRefused, Keys
from bossworker.failure import Outcome
from bossworker.pool.door import addresses, door_protocol
from bossworker.pool.door.door_protocol import FRAMES, JSON, Identity
from bossworker.pool.wire.batch import Batch, JobOptions, pack_one
from bossworker.pool.wire.client_jobs import MOST_AT_ONCE
from bossworker.pool.wire.frames import frame_of, prefix_of
from bossworker.pool.wire.messages import Kind
from bossworker.pool.wire.segments import read_segments
from tests.conftest import wait_for

Make = Callable[..., BossWorker]


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("wait"):
        while not os.path.exists(job["wait"]):
            time.sleep(0.005)
    return {"n": job["n"]}


@contextmanager
def raw(door: Door) -> Iterator[zmq.Socket[bytes]]:
    """A socket as any program may have one."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as sock:
        sock.linger = 0
        sock.rcvtimeo = 30_000
        sock.connect(door.address)
        yield sock


def greeting(form: str, /, **changes: Any) -> bytes:
    hello = door_protocol.hello(form, Identity(), line=False)
    return json.dumps({**hello, "program": "test", "pid": 0, **changes}).encode()


def answers(sock: zmq.Socket[bytes]) -> dict[str, Any]:
    while (told := json.loads(sock.recv()))["op"] == "ping":
        pass
    return told  # type: ignore[no-any-return]


# -- who is let in -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"version": 99}, "speaks version 1 of the protocol, not 99"),
        ({"wire": 99}, "messages are of version 1, not 99"),
        ({"python": "2.7"}, 'Python 3.*"?2.7.*accept="json"'),
        ({"form": "json"}, 'opened with accept="pickle"'),
        ({"identity": 17}, "identity"),
        ({"identity": "x" * 1000}, "1 to 200 characters"),
        ({"keep": "yes"}, "keep"),
    ],
)
def test_clients_that_do_not_fit_are_told_why(pool: Make, changes: dict[str, Any], reason: str) -> None:
    door = pool(work, worker_count=1).listen()
    with raw(door) as sock:
        sock.send(greeting(FRAMES, **changes))
        told = answers(sock)
    assert told["op"] == "refused"
    assert re.search(reason, told["reason"])
    assert (door.refused, door.clients) == (1, ())


def test_a_client_that_is_refused_leaves_a_line(
    pool: Make, clients: Make, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    caplog.set_level(logging.INFO, "bossworker")
    bw = pool(work, worker_count=1)
    door = bw.listen()
    clients(door, identity="a")
    with pytest.raises(DoorRefused):
        clients(door, identity="a")
    wait_for(lambda: bw.stats() and "client refused: " in caplog.text)
    (line,) = [record for record in caplog.records if "client refused" in record.getMessage()]
    assert line.levelname == "WARNING"
    assert "identity 'a' is in use" in line.getMessage()
    assert f"program={os.path.basename(sys.argv[0])!r}" in line.getMessage()
    assert f"door={door.address!r} refused=1 pool={bw.name!r}" in line.getMessage()


def test_a_key_that_is_refused_leaves_a_line(pool: Make, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bossworker")
    bw, keys = pool(work, worker_count=1), bossworker.keys()
    door = bw.listen("tcp://127.0.0.1:0", keys=keys)
    other = bossworker.keys()
    with pytest.raises(TimeoutError):
        bossworker.connect(door.address, keys=Keys(other.public, other.secret, server=keys.public), timeout=1)
    wait_for(lambda: bw.stats() and "its key is not admitted" in caplog.text)


def test_nobody_there(runtime_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="no pool at"):
        bossworker.connect("nobody", timeout=0.05)
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "silent"))
        silent.listen()
        with pytest.raises(TimeoutError):
            bossworker.connect(f"ipc://{tmp_path}/silent", timeout=0.1)
    with pytest.raises(TimeoutError, match="nobody answers"):
        bossworker.connect("tcp://127.0.0.1:9", keys=bossworker.keys(), timeout=0.5)
    with pytest.raises(TimeoutError, match=r"the host 'bossworker\.invalid' is not known"):
        bossworker.connect("tcp://bossworker.invalid:9", keys=bossworker.keys(), timeout=5)


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:0", "tcp://*:0"])
def test_tcp_takes_keys(pool: Make, address: str) -> None:
    with pytest.raises(ValueError, match="keys must be given for tcp"):
        pool(work, worker_count=1).listen(address)
    with pytest.raises(ValueError, match="keys must be given for tcp"):
        bossworker.connect("tcp://127.0.0.1:1")
    for no_port in ("tcp://127.0.0.1:0", "tcp://127.0.0.1:*"):  # where a door may be opened, but is not to be found
        with pytest.raises(ValueError, match="must have the port of a door"):
            bossworker.connect(no_port, keys=bossworker.keys())


@pytest.mark.parametrize(
    "address",
    [
        "udp://x",
        "ipc://",
        "ipc://relative",
        "ipc://@abstract",
        "ipc:///tmp/a\0b",
        "ipc:///tmp/",
        "tcp://127.0.0.1",
        "tcp://h:99999",
        "",
        "name",
        "inproc://x",
    ],
)
def test_addresses_that_are_none(pool: Make, address: str) -> None:
    with pytest.raises(ValueError, match="address must"):
        pool(work, worker_count=1).listen(address, keys=bossworker.keys() if "tcp" in address else None)
    with pytest.raises(TypeError, match="address must be a str"):
        pool(work, worker_count=1).listen(17)  # type: ignore[arg-type]


def test_a_name_that_is_too_long_for_a_socket(pool: Make, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=f"no door can be opened: AF_UNIX path too long: '{tmp_path}/xxx"):
        pool(work, worker_count=1).listen(f"ipc://{tmp_path}/{'x' * 200}")


def test_an_inline_pool_has_no_door(pool: Make) -> None:
    with pytest.raises(ValueError, match="inline pool"):
        pool(work, worker_count=0).listen()


@pytest.mark.parametrize("accept", ["yaml", 17])
def test_what_may_be_accepted(pool: Make, accept: Any) -> None:
    with pytest.raises((ValueError, TypeError), match="accept must be"):
        pool(work, worker_count=1).listen(accept=accept)


def test_keys(tmp_path: Path) -> None:
    mine = bossworker.keys()
    assert mine != bossworker.keys()
    assert mine.secret not in repr(mine.admit(bossworker.keys().public))
    mine.save(tmp_path / "keys")
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o600
    assert Keys.load(tmp_path / "keys") == mine
    with pytest.raises(FileExistsError):
        mine.save(tmp_path / "keys")
    (tmp_path / "keys").chmod(0o644)
    with pytest.raises(ValueError, match="others may read it"):
        Keys.load(tmp_path / "keys")
    with pytest.raises(ValueError, match="40 characters"):
        mine.admit("short")
    with pytest.raises(TypeError, match="must be a str"):
        mine.trust(17)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="path must be a path"):
        Keys.load(0)  # type: ignore[arg-type]
    told = json.loads((tmp_path / "keys").read_text())
    for text in ("", "[]", "ü", json.dumps({**told, "server": 17}), json.dumps({**told, "clients": 17})):
        (tmp_path / "none").write_text(text)
        (tmp_path / "none").chmod(0o600)
        with pytest.raises(ValueError, match=f"there are no keys in '{tmp_path}/none'"):
            Keys.load(tmp_path / "none")
    with pytest.raises(ValueError, match="'~' is none"):
        mine.trust("~" * 40)


@pytest.mark.parametrize("wrong", [Keys("~" * 40, "x" * 40), Keys("x" * 40, "x"), Keys("x" * 40, "x" * 40, server="?")])
def test_what_are_no_keys_is_told_before_anything_is_started(pool: Make, wrong: Keys) -> None:
    with pytest.raises(ValueError, match="a key must"):
        pool(work, worker_count=1).listen("tcp://127.0.0.1:0", keys=wrong)
    with pytest.raises(ValueError, match="a key must"):
        bossworker.connect("tcp://127.0.0.1:9", keys=wrong)


def test_only_admitted_keys_get_in(pool: Make, clients: Make) -> None:
    server, friend, stranger = (bossworker.keys() for _ in range(3))
    bw = pool(work, worker_count=1)
    door = bw.listen("tcp://127.0.0.1:0", keys=server.admit(friend.public))
    one = clients(door, keys=friend.trust(server.public))
    one.add_work({"n": 1})
    assert one.get_result()["n"] == 1
    with pytest.raises(TimeoutError, match="does not know our key"):
        bossworker.connect(door.address, keys=stranger.trust(server.public), timeout=0.5)
    with pytest.raises(TimeoutError):  # who is not the pool that we trust
        bossworker.connect(door.address, keys=friend.trust(stranger.public), timeout=0.5)
    with raw(door) as plain:  # and without any keys
        plain.send(greeting(FRAMES))
        assert not plain.poll(300)
    assert door.refused >= 1
    assert len(door.clients) == 1


def test_of_two_keys_neither_gets_what_is_kept_for_the_other(pool: Make, clients: Make) -> None:
    server, a, b = (bossworker.keys() for _ in range(3))
    door = pool(work, worker_count=1).listen("tcp://127.0.0.1:0", keys=server.admit(a.public, b.public))
    first = clients(door, keys=a.trust(server.public), identity="shift", keep=True)
    first.add_work({"n": 1})
    second = clients(door, keys=b.trust(server.public), identity="shift", keep=True)
    assert second.pending() == 0
    assert first.get_result()["n"] == 1


def test_the_socket_is_this_users_alone(pool: Make, runtime_folder: Path, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    path = Path(door.address.removeprefix("ipc://"))
    assert path.parent == runtime_folder / "bossworker"
    assert path.name == "work"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(OSError, match="Address already in use"):
        bw.listen()
    door.close()
    assert not path.parent.exists()
    folder = tmp_path / ("long" * 40)
    folder.mkdir()
    with bw.listen(f"ipc://{folder}/door") as other, bossworker.connect(other.address) as one:
        one.add_work({"n": 1})
        assert one.get_result()["n"] == 1
    assert list(folder.iterdir()) == []


def test_a_door_whose_socket_was_removed_leaves_that_of_the_next(pool: Make, clients: Make) -> None:
    first = pool(work, worker_count=1).listen()
    one = clients(first)
    Path(first.address.removeprefix("ipc://")).unlink()
    second = pool(work, worker_count=1).listen()
    assert second.address == first.address
    one.add_work({"n": 1})  # who is there already needs no name
    assert one.get_result()["n"] == 1
    first.close()
    other = clients(second)
    other.add_work({"n": 2})
    assert other.get_result()["n"] == 2


def test_of_two_that_find_a_socket_deserted_one_takes_its_place(
    runtime_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the other does not remove the new one as well."""
    path = str(runtime_folder / "bossworker" / "x")
    addresses.bind_path(path).close()
    both, is_deserted = threading.Barrier(2), addresses.is_deserted

    def look(path: str) -> bool:
        found = is_deserted(path)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.3)  # for the other to have seen the same, if that can be
        return found

    def bind(_: int) -> socket.socket | OSError:
        try:
            return addresses.bind_path(path)
        except OSError as error:
            return error

    monkeypatch.setattr(addresses, "is_deserted", look)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(bind, range(2)))
    (listener,) = [one for one in found if isinstance(one, socket.socket)]
    (error,) = [one for one in found if isinstance(one, OSError)]
    assert error.errno == errno.EADDRINUSE
    addresses.dial(path).close()
    listener.close()
    addresses.remove_path(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user")
def test_another_user_gets_in_only_where_permissions_let_them(pool: Make, tmp_path: Path) -> None:
    door = pool(work, worker_count=1).listen(f"ipc://{tmp_path}/door")
    for parent in (tmp_path, *tmp_path.parents):
        if parent.stat().st_uid == os.getuid() and parent != Path("/"):
            parent.chmod(parent.stat().st_mode | 0o011)

    def try_it() -> int:
        """In a fork: another user may not be able to execute this Python."""
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.setgroups([])
                os.setgid(65534)
                os.setuid(65534)
                socket.socket(socket.AF_UNIX).connect(door.address.removeprefix("ipc://"))
                status = 0
            except PermissionError:
                status = 13
            finally:
                os._exit(status)
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    assert try_it() == 13
    (tmp_path / "door").chmod(0o666)
    assert try_it() == 0


def test_a_runtime_folder_of_others_is_not_trusted(pool: Make, runtime_folder: Path) -> None:
    (runtime_folder / "bossworker").mkdir(mode=0o777)
    (runtime_folder / "bossworker").chmod(0o777)
    with pytest.raises(PermissionError, match="not a folder of this user alone"):
        pool(work, worker_count=1).listen()
    with socket.socket(socket.AF_UNIX) as trap:
        trap.bind(str(runtime_folder / "bossworker" / "work"))
        trap.listen()
        with pytest.raises(PermissionError, match="not a folder of this user alone"):
            bossworker.connect("work")


# -- what is dropped -----------------------------------------------------------------------------------------------


def mutated(rng: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(rng.choice(seeds))
    match rng.randrange(5):
        case 0:
            return rng.randbytes(rng.randrange(60))
        case 1:
            return bytes(data[: rng.randrange(len(data) + 1)])
        case 2:
            return bytes(data) + rng.randbytes(rng.randrange(1, 30))
    for _ in range(rng.randrange(1, 6)):
        data[rng.randrange(len(data))] = rng.randrange(256)
    return bytes(data)


def frame(kind: Kind, head: bytes = b"", body: bytes = b"") -> bytes:
    return prefix_of(kind, head, [body]) + head + body


def seeds_of(form: str) -> list[bytes]:
    """Messages of both kinds that are right, or nearly so."""
    if form == JSON:
        job = {"op": "submit", "jobs": [{"id": 1, "job": {"n": 1}}]}
        more = [
            {"op": "cancel", "request": 1, "ids": [1, 2]},
            {"op": "stats", "request": 2},
            {"op": "credit", "bytes": 9},
        ]
        wrong = [{"op": "submit", "jobs": 3}, {"op": "submit", "jobs": [{"id": -1}]}, {"op": []}, {"op": "cancel"}]
        return [json.dumps(one).encode() for one in (job, *more, *wrong)] + [b"[]", b"17", b"{" * 3000]
    options = JobOptions(0, 0.0, 0, 1)
    submit = b"".join(part for part, _ in pack_one(1, options, pickle.dumps({"n": 1})))
    number = struct.pack("<Q", 7)
    return [
        submit,
        frame(Kind.CANCEL, number, struct.pack("<QQ", 1, 2)),
        frame(Kind.STATS, number),
        frame(Kind.CREDIT, number),
        frame(Kind.TAKEN, b"", number),
        frame(Kind.PIECE, struct.pack("<QQ", len(submit), 0), submit),
        frame(Kind.RESIZE, number, number),
        frame(Kind.RESULTS, b"", b"x"),
        frame(Kind.SPAWN, number),
    ]


@pytest.mark.parametrize("form", [FRAMES, JSON])
@pytest.mark.parametrize("greeted", [True, False])
def test_malformed_messages_cost_nothing(
    pool: Make, clients: Make, form: str, greeted: bool, request: pytest.FixtureRequest
) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen(accept="json" if form == JSON else "pickle")
    rng, seeds = random.Random(f"{form}{greeted}"), seeds_of(form)
    with raw(door) as sock:
        if greeted:
            sock.send(greeting(form))
            assert answers(sock)["op"] == "welcome"
        for n in range(25_000 if request.config.getoption("--long") else 2500):
            sock.send(mutated(rng, seeds))
            if n % 100 == 0:
                sock.send_multipart([b"two", b"parts"])
            while sock.poll(0):  # an answer to what has come through by chance
                sock.recv()
        wait_for(lambda: door.malformed > 1000, 60)
    friend = clients(door)
    friend.add_work({"n": 5})
    assert friend.get_result()["n"] == 5
    bw.add_work({"n": 6})
    assert bw.get_result()["n"] == 6
    assert bw.stats().restarts == 0


def test_a_crowd_that_connects_does_no_harm(pool: Make, clients: Make) -> None:
    """More than this program may have descriptors, by default: libzmq would abort."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip(f"no process may have more than {hard} descriptors here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    try:
        door = pool(work, worker_count=1).listen()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 1024), hard))
    crowd = [socket.socket(socket.AF_UNIX) for _ in range(400)]
    try:
        for one in crowd:
            one.connect(door.address.removeprefix("ipc://"))
        client = clients(door)
        client.add_work({"n": 1})
        assert client.get_result()["n"] == 1
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in crowd:
            one.close()


def test_a_port_that_gets_garbage_goes_on(pool: Make, clients: Make) -> None:
    keys = bossworker.keys()
    door = pool(work, worker_count=1).listen("tcp://127.0.0.1:0", keys=keys)
    host, port = door.address.removeprefix("tcp://").split(":")
    rng = random.Random(5)
    for n in range(100):
        with socket.create_connection((host, int(port))) as sock:
            sock.sendall(b"GET / HTTP/1.1\r\n\r\n" if n % 2 else rng.randbytes(200))
    one = clients(door, keys=keys)
    one.add_work({"n": 1})
    assert one.get_result()["n"] == 1


def test_stacks_of_others_are_not_told_over_json(pool: Make, clients: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=2)
    door = bw.listen(accept="json")
    one, other = clients(door), clients(door)
    gate = str(tmp_path / "gate")
    ids = [client.add_work({"n": n, "wait": gate})[0] for n, client in enumerate((one, other))]
    wait_for(lambda: bw.stats().running == 2)
    for client, job_id in zip((one, other), ids):
        text = client.stack()
        assert re.findall(r"^worker \d+, process \d+: (.*) for ", text, re.MULTILINE) == [f"job {job_id}"]
    assert len(re.findall(r"^worker ", bw.stack(), re.MULTILINE)) == 2
    Path(gate).touch()
    assert [one.get_result()["n"], other.get_result()["n"]] == [0, 1]
    assert one.stack() == ""


def test_events_of_others_are_not_told_over_json(pool: Make, clients: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen(accept="json")
    one, other = clients(door), clients(door)
    for handle in (bw, other, bw):
        handle.add_work({"n": 1}, {"n": 2})
        assert len(list(handle.results())) == 2
    one.add_work({"n": 3})
    one.get_result()
    events = one.events(0)
    seen = [next(events) for _ in range(4)]
    assert [type(event).__name__ for event in seen] == ["WorkerUp", "JobQueued", "JobStarted", "JobEnded"]
    assert [getattr(event, "job_id", 0) for event in seen] == [0, 1, 1, 1]


def test_too_many_jobs_are_answered_and_do_not_run(pool: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    bw.add_work({"n": 0, "wait": str(tmp_path / "gate")})

    def submit(first: int, blocks: int) -> bytes:
        """Jobs in blocks of 64."""
        block = pickle.dumps([{}] * 64)
        counts, sizes = array("I", [64] * blocks), array("Q", [len(block)] * blocks)
        batch = Batch(first, 64 * blocks, 0, JobOptions(0, 0.0, 0, 1), counts, sizes, block * blocks)
        return frame(Kind.SUBMIT, batch.head(), b"".join(batch.body()))

    with raw(door) as sock:
        sock.send(greeting(FRAMES))
        most = answers(sock)["most_jobs"]
        for first in range(0, most, MOST_AT_ONCE):
            sock.send(submit(1 + first, MOST_AT_ONCE // 64))
        sock.send(submit(1 + most, 1))
        while (came := frame_of(memoryview(sock.recv()))).kind is not Kind.RESULTS:
            pass
    (segment,) = read_segments(came.head, came.body)
    assert segment.first_id == 1 + most
    assert segment.outcomes[0] == Outcome.BAD_JOB | Outcome.TEXT
    assert b"it may have" in bytes(segment.payload)


# -- JSON ------------------------------------------------------------------------------------------------------------


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path(os.environ["BOMB"]),)


def test_no_pickle_from_outside_is_loaded(pool: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    bw = pool(work, worker_count=1)
    door = bw.listen(accept="json")
    bomb = pickle.dumps({"n": 1, "bomb": Bomb()})
    options = JobOptions(0, 0.0, 0, 1)
    with raw(door) as sock:
        sock.send(greeting(JSON))
        assert answers(sock)["op"] == "welcome"
        sock.send(b"".join(part for part, _ in pack_one(1, options, bomb)))
        assert answers(sock)["op"] == "error"
        text = bomb.decode("latin-1")
        sock.send(json.dumps({"op": "submit", "jobs": [{"id": 1, "job": {"n": text}}]}).encode())
        assert answers(sock)["results"][0]["result"] == {"n": text}
    with raw(door) as sock:
        sock.send(greeting(FRAMES))
        assert answers(sock)["op"] == "refused"
    assert not (tmp_path / "exploded").exists()
    pickle.loads(bomb)
    assert (tmp_path / "exploded").exists()


def test_results_that_are_no_json_say_so(pool: Make, clients: Make) -> None:
    bw = pool(lambda job: {"n": {1, 2}} if job["n"] else {"n": Bomb}, worker_count=1)
    one = clients(bw.listen(accept="json"))
    one.add_work({"n": 0}, {"n": 1})
    for result in one.results():
        assert result.error_kind == "bad_result"
        assert "no JSON" in result["ERROR"]


def test_what_is_the_owners_alone(pool: Make, clients: Make) -> None:
    one = clients(pool(work, worker_count=1).listen())
    for call in (lambda: one.resize(3), one.listen, one.pause, one.resume, one.reload):
        with pytest.raises(bossworker.BossWorkerError, match="only the program that made the pool"):
            call()
    with pytest.raises(bossworker.BossWorkerError, match="refused"):  # also if our own code asked
        one._ask(Kind.RESIZE, struct.pack("<I", 3))
    assert isinstance(DoorRefused(), bossworker.BossWorkerError)
    assert sys.modules["zmq"]

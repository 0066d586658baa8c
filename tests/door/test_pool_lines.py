"""Lines of clients to the boss itself: what goes over them wakes nobody in between; who misuses one loses it."""

from __future__ import annotations

import gc
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from bossworker import BossDied, BossWorker
from bossworker.pool.boss import door_requests
from bossworker.pool.boss.door_requests import DoorLine
from bossworker.pool.caller.door_connection import PoolLine
from bossworker.pool.door.door_clients import DoorClient
from bossworker.pool.wire.batch import Batch, JobOptions, pack_one
from bossworker.pool.wire.client_jobs import MOST_BYTES, MOST_JOBS, Allowance
from bossworker.pool.wire.frames import frame_of, pack
from bossworker.pool.wire.link import Link, link_pair
from bossworker.pool.wire.messages import Kind
from tests.chaos.test_storms import add_and_take
from tests.conftest import wait_for

Make = Callable[..., BossWorker]

pytestmark = pytest.mark.skipif(not hasattr(socket, "SO_PEERCRED"), reason="the system has no names without a file")


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("wait"):
        while not os.path.exists(job["wait"]):
            time.sleep(0.005)
    return {"n": job["n"], "data": "x" * job.get("size", 0)}


def line_of(client: BossWorker) -> PoolLine:
    """Its line, once it is used."""
    client.add_work({"n": -1})
    client.get_result()
    line = client._connection._pool_line  # type: ignore[attr-defined]
    assert line.ready
    return line  # type: ignore[no-any-return]


def sleeps(pid: int) -> int:
    """How often a process has gone to sleep."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary"))


def test_small_jobs_and_results_do_not_wake_the_door(pool: Make, clients: Make) -> None:
    door = pool(work, worker_count=1).listen()
    client = clients(door)
    line_of(client)
    before = sleeps(door.pid)
    for n in range(300):
        client.add_work({"n": n})
        assert client.get_result()["n"] == n
    assert sleeps(door.pid) - before < 100  # it looks each second who is there
    (told,) = door.clients
    assert (told.unfinished, told.waiting, told.done) == (0, 0, 301)


def test_what_the_door_is_asked_comes_behind_the_jobs_that_were_added_before(
    pool: Make, clients: Make, tmp_path: Path
) -> None:
    bw = pool(work, worker_count=1)
    client = clients(bw.listen())
    line_of(client)
    bw.add_work({"n": 0, "wait": str(tmp_path / "gate")})
    wait_for(lambda: bw.stats().running == 1)
    for queued in range(1, 100):
        ids = client.add_work({"n": 1}, {"n": 2})
        assert client.stats().queued == queued + 1
        assert client.cancel(ids[0]) == 1
    (tmp_path / "gate").touch()
    assert Counter(result.error_kind for result in client.results()) == {None: 99, "cancelled": 99}


@pytest.mark.parametrize("force", [False, True])
def test_who_leaves_has_had_all_that_was_on_its_way(pool: Make, clients: Make, force: bool, tmp_path: Path) -> None:
    """More than the line takes: so some of it waits at the door."""
    bw = pool(work, worker_count=2)
    door = bw.listen()
    client = clients(door)
    line_of(client)
    gate = tmp_path / "all are added"  # until then a client looks at what has come
    client.add_work(*({"n": n, "size": 100_000, "wait": str(gate)} for n in range(400)))
    gate.touch()
    wait_for(lambda: door.clients[0].done == 401)
    assert door.clients[0].waiting > 100
    client.shut_down(force=force)
    assert sorted(result["n"] for result in client.results()) == ([] if force else list(range(400)))
    wait_for(lambda: not door.clients)


def test_a_job_is_not_done_before_its_result_is_with_the_door(pool: Make, clients: Make) -> None:
    """The boss answers a door that has not read for long before it can send it what waits for it."""
    bw = pool(work, worker_count=2)
    door = bw.listen()
    client = clients(door)
    line_of(client)
    os.kill(door.pid, signal.SIGSTOP)
    try:
        client.add_work(*({"n": n, "size": 100_000} for n in range(400)))
        wait_for(lambda: bw.stats().done == 401)
    finally:
        os.kill(door.pid, signal.SIGCONT)

    def all_are_done() -> bool:
        (told,) = door.clients
        assert told.unfinished + told.done == 401
        assert told.waiting > told.done - 300  # less than that is with the client, or on its way there
        return told.done == 401

    wait_for(all_are_done)
    assert sorted(result["n"] for result in client.results()) == list(range(400))


NONSENSE = {
    "no frame": b"GET / HTTP/1.1\r\n\r\n",
    "not for a line": b"".join(bytes(part) for part, _ in pack(Kind.RESIZE, bytes(12))),
    "jobs that do not fit": b"".join(bytes(part) for part, _ in pack(Kind.SUBMIT, bytes(44), [b"x" * 100])),
    "ids of others": b"".join(bytes(part) for part, _ in pack_one(1 << 56, JobOptions(0, 0.0, 0, 1), b"x")),
}


@pytest.mark.parametrize("data", NONSENSE.values(), ids=NONSENSE)
def test_nonsense_costs_its_client_alone(pool: Make, clients: Make, tmp_path: Path, data: bytes) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    friend, foe = clients(door), clients(door)
    line = line_of(foe)
    bw.add_work({"n": 0, "wait": str(tmp_path / "gate")})
    wait_for(lambda: bw.stats().running == 1)
    foe.add_work({"n": 1}, {"n": 2})
    friend.add_work({"n": 3})
    line.link.sock.send(data)
    with pytest.raises(BossDied, match="2 jobs unfinished"):
        foe.get_result(timeout=60)
    wait_for(lambda: bw.stats().queued == 1)
    (tmp_path / "gate").touch()
    assert friend.get_result()["n"] == 3
    assert bw.stats().restarts == 0


def test_random_frames_on_a_line_harm_nobody_else(pool: Make, clients: Make, request: pytest.FixtureRequest) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    friend = clients(door)
    rng = random.Random(5)
    seed = bytearray(b"".join(bytes(part) for part, _ in pack_one(1, JobOptions(0, 0.0, 0, 1), b"x" * 40)))
    for _ in range(300 if request.config.getoption("--long") else 30):
        foe = clients(door)
        line = line_of(foe)
        with suppress(OSError):
            for _ in range(100):
                data = bytearray(seed)
                for _ in range(rng.randint(1, 4)):
                    data[rng.randrange(len(data))] = rng.randrange(256)
                line.link.sock.send(data)
        foe.shut_down(force=True)
    friend.add_work({"n": 5})
    assert friend.get_result()["n"] == 5
    bw.add_work({"n": 6})
    assert bw.get_result()["n"] == 6
    wait_for(lambda: len(door.clients) == 1)


def test_a_flood_over_a_line_holds_up_nobody(pool: Make, clients: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    client, other = clients(door), clients(door)
    line_of(client)
    stop, added = threading.Event(), 0

    def flood() -> None:
        nonlocal added
        while not stop.is_set():
            client.add_work({"n": added})
            added += 1

    thread = threading.Thread(target=flood)
    thread.start()
    try:
        for n in range(30):
            for one in (bw, other):
                one.add_work({"n": n})
                assert one.get_result(timeout=60)["n"] == n  # type: ignore[index]
    finally:
        stop.set()
        thread.join()
    assert sorted(result["n"] for result in client.results()) == list(range(added))


def test_more_clients_than_there_are_lines(pool: Make, clients: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(door_requests, "MOST_LINES", 1)  # before the boss is forked
    door = pool(work, worker_count=1).listen()
    first, second = clients(door), clients(door)
    line_of(first)
    for n in range(20):
        second.add_work({"n": n, "size": 300_000})
        assert second.get_result()["n"] == n
    assert not second._connection._pool_line.ready  # type: ignore[attr-defined]
    assert sorted((told.unfinished, told.done) for told in door.clients) == [(0, 1), (0, 20)]
    second.shut_down()
    wait_for(lambda: len(door.clients) == 1)


class Interrupted(BaseException):
    """Raised from a signal handler, anywhere."""


def test_interrupts_at_any_instant_lose_nothing(pool: Make, clients: Make, request: pytest.FixtureRequest) -> None:
    """As Ctrl-C does, but again and again, in a client."""
    armed = False

    def interrupt(number: int, frame: object) -> None:
        if armed:
            raise Interrupted

    client = clients(pool(work, worker_count=2).listen())
    line_of(client)
    rng, interrupts, asked = random.Random(3), 0, 0
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        while interrupts < (1000 if request.config.getoption("--long") else 150):
            keys = range(asked, asked + rng.choice([1, 3, 200]))
            asked = keys.stop
            try:
                armed = True
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(1e-5, 3e-3))
                add_and_take(client, keys, rng, [])
                armed = False
            except Interrupted:
                armed = False
                interrupts += 1
        rest = list(client.results())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert client.pending() == 0
    assert len({result.job_id for result in rest}) == len(rest)
    assert all(result.ok for result in rest)


def test_a_line_that_has_ended_needs_no_garbage_collector() -> None:
    """There is none in the boss, so each client left a kilobyte behind."""
    nobody: Any = SimpleNamespace(watch=lambda link, on_event: None, forget=lambda link: None)
    pool = SimpleNamespace(delivery=SimpleNamespace(doors={}))
    doors: Any = SimpleNamespace(pool=pool, poller=nobody, count_lines=lambda: 0)
    (ours, theirs), (client, boss) = link_pair(), link_pair()
    door = DoorLine(doors, 1, Link(ours))
    gc.disable()
    try:
        door._open_line(5, boss.detach())
        line = weakref.ref(door.results.lines[5])
        door.results.end_line(5)
        door.results._ending.clear()  # until the next one ends
        assert line() is None
    finally:
        gc.enable()
    door.link.close()
    theirs.close()
    client.close()


def test_a_client_may_have_so_much_and_no_more() -> None:
    ((part, _),) = pack_one(1, JobOptions(0, 0.0, 0, 1), b"x")
    frame = frame_of(part)
    batch = Batch.read(frame.head, frame.body)
    allowance = Allowance()
    assert not allowance.why_full(batch, 1)
    allowance.add(MOST_JOBS, MOST_BYTES)
    assert "unfinished" in allowance.why_full(batch, 1)
    allowance.count(MOST_JOBS // 2)
    assert allowance.job_bytes == MOST_BYTES // 2
    assert "bytes" in allowance.why_full(batch, MOST_BYTES)
    assert allowance.done == MOST_JOBS // 2


def test_who_takes_no_results_has_to_go() -> None:
    client = DoorClient(1, "x", {"form": "frames", "program": "p", "pid": 1, "keep": False})
    client.waiting_bytes = MOST_BYTES + 1
    assert not client.takes_too_little  # its jobs are refused instead
    client.counted_by_boss = True
    assert client.takes_too_little


CLIENT = """
import sys, time
import bossworker
pool = bossworker.connect(sys.argv[1])
pool.add_work({"n": -1})
pool.get_result()
pool.add_work({"n": 0, "wait": sys.argv[2]}, *({"n": n} for n in range(1, 50)))
print("there", flush=True)
time.sleep(600)
"""


def test_what_a_killed_client_has_sent_over_its_line_is_dropped(pool: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    command = [sys.executable, "-c", CLIENT, door.address, str(tmp_path / "gate")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as client:
        assert client.stdout is not None
        assert client.stdout.readline() == "there\n"
        wait_for(lambda: [(one.unfinished, one.done) for one in door.clients] == [(50, 1)])
        client.kill()
    wait_for(lambda: not door.clients)
    wait_for(lambda: not bw.stats().queued)
    bw.add_work({"n": 7})
    assert bw.get_result()["n"] == 7  # the job that ran was stopped

"""Clients, doors, bosses and programs that die, stop or come again: each has its clear end."""

from __future__ import annotations

import gc
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker import BossDied, BossWorker, DoorRefused, PoolClosed
from tests.conftest import alive, wait_for
from tests.door.conftest import Face

Make = Callable[..., BossWorker]

CLIENT = """
import json, os, sys, time
import bossworker
address, *jobs = map(json.loads, sys.argv[1:])
pool = bossworker.connect(address.pop("address"), **address)
for some in jobs:
    pool.add_work(*some)
print("there", flush=True)
time.sleep(600)
"""


def work(job: dict[str, Any]) -> dict[str, Any]:
    if "append" in job:
        with open(job["append"], "a") as file:
            file.write(f"{job['n']}\n")
    if "wait" in job:
        while not os.path.exists(job["wait"]):
            time.sleep(0.005)
    return {"n": job.get("n"), "data": "x" * job.get("size", 0)}


@contextmanager
def client(door: bossworker.Door, *jobs: list[dict[str, Any]], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A program that has connected and added jobs, and does nothing more."""
    told = [json.dumps({"address": door.address, **options}), *map(json.dumps, jobs)]
    process = subprocess.Popen([sys.executable, "-c", CLIENT, *told], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "there\n"
        yield process
    finally:
        process.kill()
        process.communicate()


# -- a client ------------------------------------------------------------------------------------------------------


def test_what_a_dead_client_had_queued_never_runs(pool: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    gate, log = tmp_path / "gate", tmp_path / "log"
    jobs = [{"n": 0, "wait": str(gate)}, *({"n": n, "append": str(log)} for n in range(1, 50))]
    with client(door, jobs) as process:
        wait_for(lambda: bw.stats().running == 1)
        process.kill()
        wait_for(lambda: not door.clients)
        wait_for(lambda: bw.stats().queued == 0)
    bw.add_work({"n": 7})
    assert bw.get_result()["n"] == 7  # the job that ran was stopped
    assert not log.exists()


def test_a_stopped_client_holds_up_nobody(pool: Make, clients: Make) -> None:
    bw = pool(work, worker_count=2)
    door = bw.listen()
    with client(door, [{"n": n, "size": 200_000} for n in range(300)]) as process:
        process.send_signal(signal.SIGSTOP)
        other = clients(door)
        for n in range(50):
            other.add_work({"n": n})
            assert other.get_result()["n"] == n
        told = wait_for(lambda: [one for one in door.clients if one.pid == process.pid and not one.unfinished])
        assert told[0].waiting > 0  # it has not taken them, and the door sends no more than it may
        assert told[0].done == 300


def test_a_deaf_client_gets_all_of_it_once_it_listens(pool: Make, clients: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=2)
    door = bw.listen()
    deaf = clients(door)
    gate = tmp_path / "all are added"  # until then a client looks at what has come
    deaf.add_work(*({"n": n, "size": 100_000, "wait": str(gate)} for n in range(400)))
    gate.touch()
    wait_for(lambda: door.clients[0].done == 400)
    assert door.clients[0].waiting > 100
    assert sorted(result["n"] for result in deaf.results()) == list(range(400))
    assert door.clients[0].waiting == 0


def test_a_client_that_leaves_is_forgotten_at_once(pool: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    with bossworker.connect(door.address) as one:
        one.add_work({"n": 1})
        wait_for(lambda: [client.unfinished + client.done for client in door.clients] == [1])
    wait_for(lambda: not door.clients)


# -- kept for the next one -------------------------------------------------------------------------------------------


def test_a_handle_that_is_dropped_leaves_at_once(pool: Make) -> None:
    """Without the garbage collector, which may come much later: its jobs would run on, and nobody take the results."""
    with pool(work, worker_count=1).listen() as door:
        gc.disable()
        try:
            client = bossworker.connect(door.address)
            client.add_work(*({"n": n} for n in range(3)))
            assert len(door.clients) == 1
            with pytest.warns(ResourceWarning, match="3 of its jobs are unfinished"):
                del client
            wait_for(lambda: not door.clients)
        finally:
            gc.enable()


@pytest.mark.parametrize("accept", ["pickle", "json"])
def test_what_is_kept_goes_to_the_next_client_of_that_identity(
    pool: Make, clients: Make, tmp_path: Path, accept: str
) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen(accept=accept)  # type: ignore[arg-type]
    gate = tmp_path / "gate"
    jobs = [{"n": n, **({"wait": str(gate)} if n == 2 else {})} for n in range(5)]
    with client(door, jobs, keep=True, identity="night shift") as process:
        process.kill()
        wait_for(lambda: not door.clients[0].connected)
    assert door.clients[0].identity == "night shift"
    gate.touch()
    wait_for(lambda: door.clients[0].unfinished == 0)
    heir = clients(door, keep=True, identity="night shift")
    assert heir.pending() == 5
    (mine,) = heir.add_work({"n": 17})
    results = {result.job_id: result for result in heir.results()}
    assert [results[job_id]["n"] for job_id in sorted(results)] == [0, 1, 2, 3, 4, 17]
    assert [results[job_id].job for job_id in sorted(results) if job_id != mine] == jobs
    heir.shut_down()
    assert clients(door, keep=True, identity="night shift").pending() == 0


def test_results_that_the_program_has_got_do_not_come_again(pool: Make, clients: Make) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    first = clients(door, keep=True, identity="a")
    first.add_work(*({"n": n} for n in range(10)))
    got = [first.get_result()["n"] for _ in range(4)]
    first.detach()  # type: ignore[attr-defined]
    second = clients(door, keep=True, identity="a")
    assert sorted(got + [result["n"] for result in second.results()]) == list(range(10))
    second.add_work({"n": 11}, {"n": 12})
    second.shut_down(force=True)  # whoever leaves so wants nothing kept
    assert clients(door, keep=True, identity="a").pending() == 0


def test_kept_by_default_for_the_same_program(pool: Make, clients: Make) -> None:
    door = pool(work, worker_count=1).listen()
    first = clients(door, keep=True)
    first.add_work({"n": 3})
    first.detach()  # type: ignore[attr-defined]
    assert clients(door, keep=True).get_result()["n"] == 3


def test_the_second_of_an_identity_is_refused_or_takes_over(pool: Make, clients: Make, tmp_path: Path) -> None:
    door = pool(work, worker_count=1).listen()
    gate = tmp_path / "gate"
    first = clients(door, identity="a", keep=True)
    first.add_work({"n": 1, "wait": str(gate)})
    with pytest.raises(DoorRefused, match="identity 'a' is in use, by"):
        clients(door, identity="a")
    second = clients(door, identity="a", take_over=True, keep=True)
    gate.touch()
    assert second.get_result()["n"] == 1
    with pytest.raises(BossDied, match="1 jobs unfinished: another client of this identity has taken over"):
        first.get_result(timeout=60)
    second.add_work({"n": 3})
    assert second.get_result()["n"] == 3


# -- the pool --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["ipc", "tcp", "json"])
def test_a_killed_boss_is_told_at_once(face: Face, kind: str, tmp_path: Path, runtime_folder: Path) -> None:
    bw = face(kind, work, worker_count=1)
    ids = bw.add_work({"n": 0, "wait": str(tmp_path / "gate")}, {"n": 1})
    wait_for(lambda: bw.stats().running == 1)
    os.kill(bw.boss_pid, signal.SIGKILL)
    with pytest.raises(BossDied) as caught:
        bw.get_result(timeout=60)
    assert [(job.job_id, job.job["n"]) for job in caught.value.unfinished] == [(ids[0], 0), (ids[1], 1)]
    with pytest.raises(BossDied):
        bw.add_work({"n": 2})
    wait_for(lambda: not list(runtime_folder.iterdir()))


@pytest.mark.parametrize("kind", ["ipc", "tcp", "json"])
def test_the_end_of_the_pool_in_order_brings_all_results(pool: Make, clients: Make, kind: str, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    keys = bossworker.keys() if kind == "tcp" else None
    accept: Any = "json" if kind == "json" else "pickle"
    door = bw.listen("tcp://127.0.0.1:0" if keys else None, keys=keys, accept=accept)
    one = clients(door, keys=keys)
    one.add_work({"n": 0, "wait": str(tmp_path / "gate")}, *({"n": n} for n in range(1, 100)))
    wait_for(lambda: bw.stats().running == 1)
    with pytest.raises(TimeoutError):
        bw.shut_down(timeout=0.05)

    def refuses() -> bool:
        one.get_result_nb()
        try:
            one.add_work({"n": -1})
        except PoolClosed:
            return True
        return False

    wait_for(refuses)
    (tmp_path / "gate").touch()
    bw.shut_down()
    found = [result["n"] for result in one.results()]
    assert sorted(n for n in found if n is not None and n >= 0) == list(range(100))
    with pytest.raises(PoolClosed):
        one.add_work({"n": 1})


def test_a_closed_door_ends_its_clients_jobs_and_not_the_pool(pool: Make, clients: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    with bw.listen() as door:
        one = clients(door)
        one.add_work({"n": 0, "wait": str(tmp_path / "gate")}, {"n": 1})
        wait_for(lambda: bw.stats().running == 1)
    with pytest.raises(BossDied, match="2 jobs unfinished: the door was closed"):
        one.get_result(timeout=60)
    with pytest.raises(PoolClosed, match="the door is closed"):
        _ = door.clients
    bw.add_work({"n": 7})
    assert bw.get_result()["n"] == 7
    again = clients(bw.listen())
    again.add_work({"n": 8})
    assert again.get_result()["n"] == 8


def test_a_killed_door_costs_its_clients_and_nobody_else(pool: Make, clients: Make, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    door = bw.listen()
    one = clients(door)
    one.add_work({"n": 0, "wait": str(tmp_path / "gate")})
    wait_for(lambda: bw.stats().running == 1)
    os.kill(door.pid, signal.SIGKILL)
    with pytest.raises(BossDied):
        one.get_result(timeout=60)
    bw.add_work({"n": 7})
    assert bw.get_result()["n"] == 7
    with pytest.raises(PoolClosed, match="process has ended"):
        _ = door.clients
    again = clients(bw.listen())  # at the same address: nobody is there any more
    again.add_work({"n": 8})
    assert again.get_result()["n"] == 8


OWNER = """
import sys, time
import bossworker
pool = bossworker.BossWorker(lambda job: time.sleep(600), worker_count=1)
door = pool.listen()
print(door.address, door.pid, pool.boss_pid, flush=True)
time.sleep(600)
"""


def test_a_killed_program_leaves_nothing(clients: Make, runtime_folder: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    address, *pids = owner.stdout.readline().split()
    one = clients(address)
    one.add_work({"n": 1})
    owner.kill()
    owner.wait()
    owner.stdout.close()
    with pytest.raises(BossDied, match="1 jobs unfinished"):
        one.get_result(timeout=60)
    wait_for(lambda: not any(alive(int(pid)) for pid in pids))
    wait_for(lambda: not list(runtime_folder.iterdir()))

"""Clients of a door with ``keep=True``, of a pool with a journal: what holds for the program holds for them."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker, DoorRefused, JournalError
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.door.conftest import clients, runtime_folder
from tests.journal.programs import Program
from tests.journal.test_files import disk, fill
from tests.journal.test_recovery import note, ran

__all__ = ["clients", "disk", "runtime_folder"]
Clients = Callable[..., Any]
accepts = pytest.mark.parametrize("accept", ["pickle", "json"])

SERVICE = """
    pool = BossWorker(note, worker_count=2, journal=path, name="service")
    door = pool.listen(accept=sys.stdin.readline().strip())
    tell(door.address)
    sys.stdin.readline()
"""


def service(journal: Path, log: Path, accept: str) -> Program:
    """A program that serves others, until it is killed."""
    program = Program(SERVICE, journal, log)
    assert program.process.stdin is not None
    program.process.stdin.write(f"{accept}\n")
    program.process.stdin.flush()
    assert program.told().startswith("ipc://")
    return program


def jobs(log: Path, numbers: range, **more: Any) -> list[dict[str, Any]]:
    return [{"n": n, "log": str(log), **more} for n in numbers]


def results(client: BossWorker) -> Counter[int]:
    return Counter(result["n"] for result in client.results())


@accepts
@pytest.mark.parametrize("victims", [(), ("program",), ("boss",), ("scribe",)])
def test_what_a_client_added_goes_on_with_the_next_owner(
    tmp_path: Path, clients: Clients, accept: Any, victims: tuple[str, ...]
) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = service(journal, log, accept)
    client = clients("service", keep=True, identity="shop")
    client.add_work(*jobs(log, range(60), seconds=0.01), priority=1)
    got = [client.get_result()["n"] for _ in range(3)]
    wait_for(lambda: len(ran(log)) > 10)
    program.kill(*victims)
    if "program" not in victims and victims:
        program.kill("program")
    with pytest.raises(BossDied):  # noqa: PT012
        while True:
            got.append(client.get_result(timeout=30)["n"])
    with BossWorker(note, worker_count=2, journal=journal, name="service") as pool, pool.listen(accept=accept) as door:
        assert pool.pending() == 0
        again = clients(door, keep=True, identity="shop")
        found = list(again.results())
        kinds = {result.job["n"]: result.error_kind for result in found}
        assert len(kinds) == len(found)
        assert {*kinds, *got} == set(range(60))
        assert set(kinds.values()) <= {None, "interrupted"}
        assert list(kinds.values()).count("interrupted") <= 2
        assert not any(result.stored for result in found)
        assert again.add_work({"n": 60, "log": str(log)})[0] > 60
        assert again.get_result()["n"] == 60
        again.shut_down()
    assert max(ran(log).values()) == 1
    counts = journals.open(journal).counts()
    assert (counts["queued"], counts["running"]) == (0, 0)
    assert all(job.retrieved for job in journals.open(journal).jobs())


@accepts
def test_what_a_client_that_is_away_has_left_is_done_and_waits_for_it(
    tmp_path: Path, clients: Clients, accept: Any
) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = service(journal, log, accept)
    client = clients("service", keep=True, identity="shop")
    other = clients("service", keep=True, identity="another")
    client.add_work(*jobs(log, range(5)))
    assert client.get_result()["n"] in range(5)
    other.add_work(*jobs(log, range(100, 103)))
    wait_for(lambda: journals.open(journal).counts()["done"] == 8)
    client.detach()
    other.detach()
    program.kill()
    for _ in range(2):  # owners that nobody asks for anything
        with BossWorker(note, worker_count=1, journal=journal) as pool:
            assert pool.pending() == 0
    with BossWorker(note, worker_count=1, journal=journal) as pool, pool.listen(accept=accept) as door:
        assert results(clients(door, keep=True, identity="another")) == Counter(range(100, 103))
        left = clients(door, keep=True, identity="shop")
        assert left.pending() in (4, 5)  # what it had got just now may come again
        assert set(results(left)) < set(range(5)) or left.pending() == 0
    assert set(ran(log).values()) == {1}


@accepts
def test_what_it_has_got_does_not_come_again_and_what_it_drops_is_gone(
    tmp_path: Path, clients: Clients, accept: Any
) -> None:
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    with BossWorker(note, worker_count=1, journal=journal) as pool, pool.listen(accept=accept) as door:
        first = clients(door, keep=True, identity="a")
        first.add_work(*jobs(log, range(4)))
        assert results(first) == Counter(range(4))
        first.add_work(*jobs(log, range(4, 6)))
        first.detach()
        second = clients(door, keep=True, identity="a")
        wait_for(lambda: set(ran(log)) == set(range(6)))
        assert set(results(second)) >= {4, 5}
        pool.pause()
        ids = second.add_work(*jobs(log, range(6, 20)))
        assert second.cancel(ids[0], ids[1]) == 2
        pool.resume()
        kinds = Counter(result.error_kind for result in second.results())
        assert kinds == Counter({None: 12, "cancelled": 2})
        pool.pause()
        second.add_work(*jobs(log, range(20, 30)))
        second.shut_down(force=True)
        wait_for(lambda: journals.open(journal).counts()["cancelled"] == 12)
        pool.resume()
        third = clients(door, keep=True, identity="a")
        assert third.pending() == 0
    assert set(ran(log)) == {*range(6), *range(8, 20)}
    with BossWorker(note, worker_count=1, journal=journal) as pool, pool.listen(accept=accept) as door:
        assert clients(door, keep=True, identity="a").pending() == pool.pending() == 0
    assert journals.open(journal).counts()["cancelled"] == 12


def test_on_a_full_disk_its_calls_are_refused(tmp_path: Path, disk: Path, clients: Clients) -> None:
    log = str(tmp_path / "log")
    with BossWorker(note, worker_count=1, journal=disk / "jobs.db") as pool, pool.listen() as door:
        client = clients(door, keep=True)
        ballast = fill(disk)
        for add in (client.add_work, client.submit):
            with pytest.raises(JournalError, match=r"the journal of the pool did not take the jobs: .*(full|space)"):
                add({"n": 1, "log": log, "more": "x" * 3_000_000})
        assert client.pending() == 0
        ballast.unlink()
        client.add_work({"n": 2, "log": log})
        assert client.submit({"n": 3, "log": log}).result()["n"] == 3
        assert client.get_result()["n"] == 2
    assert ran(Path(log)) == Counter([2, 3])


def test_its_call_returns_once_it_is_on_the_disk(tmp_path: Path, clients: Clients) -> None:
    journal, log = tmp_path / "jobs.db", str(tmp_path / "log")
    with BossWorker(note, worker_count=1, journal=journal) as pool, pool.listen() as door:
        pool.pause()
        client = clients(door, keep=True)
        for n in range(20):
            client.add_work({"n": n, "log": log})
            assert journals.open(journal).counts()["queued"] == n + 1
        client.add_work(*jobs(Path(log), range(20, 40_000)))
        assert journals.open(journal).counts()["queued"] == 40_000
        client.detach()
        pool.shut_down(force=True)
    assert journals.open(journal).counts()["queued"] == 40_000


def test_what_is_the_owners_alone(tmp_path: Path, clients: Clients) -> None:
    """It gets no result of a client's, and loads none of its jobs; nor does a client get at what is the owner's."""
    journal, log = tmp_path / "jobs.db", str(tmp_path / "log")
    at = f"ipc://{tmp_path}/another"
    with BossWorker(note, worker_count=1, journal=journal) as pool, pool.listen() as door, pool.listen(at) as another:
        client = clients(door, keep=True, identity="a")
        client.add_work({"n": 1, "log": log, "unpickled": _Tells(str(tmp_path / "loaded"))})
        assert client.get_result()["n"] == 1
        pool.add_work({"n": 2, "log": log}, resume=True)
        assert pool.get_result()["n"] == 2
        (theirs,) = [job.id for job in journals.open(journal).jobs() if job.id > 1 << 40]
        with pytest.raises(ValueError, match="is of a client of a door"):
            journals.open(journal).retry(theirs)
        with pytest.raises(ValueError, match="resume is for the program that owns the journal"):
            client.add_work({}, resume=True)
        with pytest.raises(DoorRefused, match="is at another door"):
            clients(another, keep=True, identity="a")
    loaded = (tmp_path / "loaded").read_text().split()
    assert len(loaded) >= 1
    assert str(__import__("os").getpid()) not in loaded


def test_the_owners_one_job_does_not_wait_for_a_clients_many(tmp_path: Path, clients: Clients) -> None:
    """They take turns, and not only in the boss, which has few of the jobs at a time."""
    journal, log = tmp_path / "jobs.db", tmp_path / "log"

    def note_and_sleep(job: dict[str, Any]) -> dict[str, Any]:
        time.sleep(0.01)
        return note(job)

    with BossWorker(note_and_sleep, worker_count=1, journal=journal) as pool, pool.listen() as door:
        client = clients(door, keep=True)
        client.add_work(*jobs(log, range(2000)))
        wait_for(lambda: len(ran(log)) > 5)
        before = len(log.read_text().split())
        pool.add_work({"n": -1, "log": str(log)})
        assert pool.get_result()["n"] == -1
        assert log.read_text().split().index("-1") <= before + 100
        client.shut_down(force=True)


def test_what_was_passed_on_by_turns_is_told_after_a_power_cut(tmp_path: Path, clients: Clients) -> None:
    """Of each client it is known how far: the others' jobs that were accepted before are not taken for begun."""
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    program = service(journal, log, "pickle")
    client = clients("service", keep=True, identity="shop")
    other = clients("service", keep=True, identity="another")
    client.add_work(*jobs(log, range(1000), seconds=60))
    wait_for(lambda: len(ran(log)) >= 2)
    other.add_work(*jobs(log, range(1000, 2000), seconds=60))
    # Each that is cancelled makes room for another one. (The boss may give a worker some jobs of one client in a row.)
    wait_for(lambda: max(ran(log)) >= 1000 or client.cancel(*(n + 1 for n in ran(log))) < 0)
    program.kill()
    journal.with_name("jobs.db-flight").unlink()  # it means nothing after a restart of the machine
    with BossWorker(lambda job: {"n": job["n"]}, worker_count=2, journal=journal) as pool, pool.listen() as door:
        for identity, own in (("shop", range(1000)), ("another", range(1000, 2000))):
            found = list(clients(door, keep=True, identity=identity).results())
            kinds = {result.job["n"]: result.error_kind for result in found}
            assert kinds.keys() == set(own)
            assert 1 <= list(kinds.values()).count("interrupted") <= 8
            assert all(kinds[n] in ("interrupted", "cancelled") for n in ran(log) if n in own)


class _Tells:
    """Writes down who loads it."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return _tell, (self.path,)


def _tell(path: str) -> None:
    import os

    with open(path, "a") as file:
        file.write(f"{os.getpid()}\n")


def _sleep(job: dict[str, Any]) -> None:
    time.sleep(60)


def test_events_stats_and_stacks_have_its_own_ids(tmp_path: Path, clients: Clients) -> None:
    with BossWorker(_sleep, worker_count=1, journal=tmp_path / "jobs.db") as pool, pool.listen() as door:
        client = clients(door, keep=True)
        events = client.events()
        (job_id,) = client.add_work({})
        queued = next(event for event in events if type(event).__name__ == "JobQueued")
        assert queued.job_id == job_id
        wait_for(lambda: client.stats().running == 1)
        assert client.stats().workers[0].job_id == job_id
        assert f"job {job_id} " in client.stack(job_id)
        (told,) = door.clients
        assert (told.unfinished, told.connected) == (1, True)
        assert client.cancel(job_id) == 1
        assert client.get_result().error_kind == "cancelled"


def test_in_order_its_last_results_come(tmp_path: Path, clients: Clients) -> None:
    """The pool is shut down: what clients have added is done first, and they get it."""
    journal, log = tmp_path / "jobs.db", str(tmp_path / "log")
    for turn in range(3):
        pool = BossWorker(note, worker_count=2, journal=journal)
        client = clients(pool.listen(), keep=True, identity=str(turn))
        client.add_work(*jobs(Path(log), range(turn * 100, turn * 100 + 50), seconds=0.002))
        pool.shut_down()
        assert results(client) == Counter(range(turn * 100, turn * 100 + 50))
        client.shut_down()
    assert journals.open(journal).counts()["done"] == 150


def test_json_that_is_spoken_by_hand(tmp_path: Path) -> None:
    """A client in another language: a message is a call, and its answer says that the jobs are on the disk."""
    import zmq

    log = str(tmp_path / "log")
    pool = BossWorker(note, worker_count=1, journal=tmp_path / "jobs.db")
    with zmq.Context() as context, pool, pool.listen(accept="json") as door, context.socket(zmq.DEALER) as socket:
        socket.linger = 0
        socket.connect(door.address)

        def say(**told: Any) -> None:
            socket.send_json(told)

        def hear(op: str) -> dict[str, Any]:
            deadline = time.monotonic() + 20
            while time.monotonic() < deadline:
                told: dict[str, Any] = json.loads(socket.recv()) if socket.poll(100) else {}
                if told.get("op") == op:
                    return told
            raise AssertionError(f"no {op}")

        say(op="hello", version=1, form="json", identity="by hand", keep=True)
        assert hear("welcome")["journal"]
        pool.pause()
        say(op="submit", request=7, jobs=[{"id": 5, "job": {"n": 5, "log": log}}])
        assert hear("reply") == {"op": "reply", "request": 7}
        say(op="submit", request=8, jobs=[{"id": 5, "job": {"n": 6, "log": log}}])
        assert "were used before" in hear("reply")["refused"]
        say(op="submit", jobs=[{"id": 9, "job": {"n": 9, "log": log}}])
        pool.resume()
        told = [one for _ in range(2) for one in hear("results")["results"]]
        assert [(one["id"], one["ok"], one["attempts"]) for one in told] == [(5, True, 1), (9, True, 1)]
        say(op="taken", ids=[5, 9])
        wait_for(lambda: all(job.retrieved for job in journals.open(tmp_path / "jobs.db").jobs()))
    assert ran(Path(log)) == Counter([5, 9])

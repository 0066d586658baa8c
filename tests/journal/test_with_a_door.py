"""A pool with a journal that is open to other programs: its own jobs are in it, those of clients are not.

Those that do are in ``test_kept_clients.py``.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossDied, BossWorker
from bossworker import journal as journals
from tests.conftest import wait_for
from tests.door.conftest import clients, runtime_folder
from tests.journal.programs import Program
from tests.journal.test_recovery import note, ran

__all__ = ["clients", "runtime_folder"]
Clients = Callable[..., BossWorker]

BODY = """
    def handle(job):
        done = note(job)
        while "gate" in job and not os.path.exists(job["gate"]):
            time.sleep(0.005)
        return {**done, "data": bytes(job.get("size", 0))}

    pool = BossWorker(handle, worker_count=int(sys.stdin.readline()), journal=path)
    door = pool.listen()
    tell(door.address)
    pool.add_work(*json.loads(sys.stdin.readline()))
    tell("added")
    sys.stdin.readline()
"""


def serving(journal: Path, log: Path, worker_count: int, jobs: str) -> tuple[Program, str]:
    """A program with a pool and a door, and jobs of its own; the door's address."""
    program = Program(BODY, journal, log)
    assert program.process.stdin is not None
    program.process.stdin.write(f"{worker_count}\n{jobs}\n")
    program.process.stdin.flush()
    address = program.told()
    assert program.told() == "added"
    return program, address


@pytest.mark.parametrize("accept", ["pickle", "json"])
@pytest.mark.parametrize("transport", ["zmq", "socketpair"])
def test_each_gets_its_own_and_the_journal_has_the_owners(
    tmp_path: Path, clients: Clients, accept: Any, transport: Any
) -> None:
    journal, log = tmp_path / "jobs.db", str(tmp_path / "log")
    with (
        BossWorker(note, worker_count=2, journal=journal, transport=transport) as pool,
        pool.listen(accept=accept) as door,
    ):
        client = clients(door)
        for start in range(0, 300, 10):
            pool.add_work(*[{"n": n, "log": log} for n in range(start, start + 10)])
            client.add_work(*[{"n": 1000 + n, "log": log} for n in range(start, start + 10)])
        assert sorted(result["n"] for result in pool.results()) == list(range(300))
        assert sorted(result["n"] for result in client.results()) == list(range(1000, 1300))
        assert journals.open(journal).counts()["done"] == sum(journals.open(journal).counts().values()) == 300
    assert set(ran(Path(log)).values()) == {1}
    assert all(job.retrieved for job in journals.open(journal).jobs())


@pytest.mark.parametrize("victims", [(), ("boss",), ("scribe",), ("program",)])
def test_kill_and_resume(tmp_path: Path, clients: Clients, victims: tuple[str, ...]) -> None:
    """Jobs of the owner go on with the next one; those of a client have their end there, and never run with another."""
    journal, log = tmp_path / "jobs.db", tmp_path / "log"
    jobs = [{"n": n, "log": str(log), "seconds": 0.004} for n in range(120)]
    program, address = serving(journal, log, 2, json.dumps(jobs))
    client = clients(address)
    theirs = list(client.add_work(*[{"n": 1000 + n, "log": str(log), "seconds": 0.004} for n in range(120)]))
    wait_for(lambda: sum(n >= 1000 for n in ran(log)) > 10 and sum(n < 1000 for n in ran(log)) > 10)
    program.kill(*victims)
    if "program" not in victims and victims:
        program.kill("program")
    got = []
    with pytest.raises(BossDied) as death:  # noqa: PT012
        while True:
            result = client.get_result(timeout=30)
            assert result is not None
            got.append(result.job_id)
    assert sorted([*got, *(one.job_id for one in death.value.unfinished)]) == theirs
    with BossWorker(note, worker_count=2, journal=journal) as pool:
        before = ran(log)  # now that the last of the earlier pool's processes is gone
        results = list(pool.results())
    assert sorted(result.job["n"] for result in results) == list(range(120))
    assert all(result["n"] == result.job["n"] for result in results if result.ok)
    after = ran(log)
    assert {n for n in after if n >= 1000} == {n for n in before if n >= 1000}
    assert set(after.values()) == {1}
    assert sum(not result.ok for result in results) <= 2  # workers


def test_what_ran_before_a_clients_job_is_not_run_again(tmp_path: Path, clients: Clients) -> None:
    """Its result is too large for the recorders, the scribe did not come to it, and the worker has a client's since."""
    journal, log, gate = tmp_path / "jobs.db", tmp_path / "log", tmp_path / "gate"
    job = {"n": 0, "log": str(log), "gate": str(gate), "size": 3_000_000}
    program, address = serving(journal, log, 1, json.dumps([job]))
    client = clients(address)
    wait_for(lambda: ran(log)[0])
    (scribe,) = program.tree()["scribe"]
    os.kill(scribe, signal.SIGSTOP)
    gate.touch()
    client.add_work({"n": 1000, "log": str(log)})
    assert client.get_result()["n"] == 1000
    program.kill()
    with BossWorker(note, worker_count=1, journal=journal) as pool:
        (result,) = pool.results()
    assert (result.job["n"], result.error_kind) == (0, "interrupted")
    assert ran(log) == Counter([0, 1000])


CLOSED_STREAMS = """
import os, sys
for fd in map(int, sys.argv[1]):
    os.close(fd)
import bossworker

keys = bossworker.keys()
with bossworker.BossWorker(dict, worker_count=1, journal="jobs.db") as pool:
    pool.add_work({})
    assert pool.get_result().ok
    for address, used in (("ipc://" + os.path.abspath("door"), None), ("tcp://127.0.0.1:0", keys)):
        with pool.listen(address, keys=used) as door, bossworker.connect(door.address, keys=used) as client:
            client.add_work({"n": 1}, {"data": bytes(1 << 21)})
            for fd in (0, 1, 2):
                try:
                    os.write(fd, b"x" * 5000 * (str(fd) in sys.argv[1]))
                except OSError:
                    pass
            assert all(result.ok for result in client.results())
    with pool.listen("ipc://" + os.path.abspath("door")) as door, bossworker.operate(door.address) as operator:
        assert operator.stats().done
assert bossworker.journal.open("jobs.db").counts()["done"] == 1
open("answer", "w").write("done")
"""


@pytest.mark.parametrize("closed", ["0", "1", "2", "012"])
def test_a_program_that_has_closed_its_standard_streams(tmp_path: Path, closed: str) -> None:
    """Its sockets are not where its output goes, nor where the processes beside it have /dev/null."""
    command = [sys.executable, "-c", CLOSED_STREAMS, closed]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")
    assert (tmp_path / "answer").read_text() == "done"

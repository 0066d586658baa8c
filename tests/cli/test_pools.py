"""Pools on the command line: listed beside jobs and tasks, looked into and steered through their doors."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from bossworker.cli.pool_entries import pool_entries
from tests.cli.conftest import Cli
from tests.cli.test_detached_jobs import FACTS, objects
from tests.conftest import wait_for

pytestmark = pytest.mark.usefixtures("all_leave")

Make = Callable[..., BossWorker]


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("sleep"):
        time.sleep(job["sleep"])
    if job.get("unless") and not os.path.exists(job["unless"]):
        raise FileNotFoundError(job["unless"])
    return {}


@pytest.fixture
def mill(pool: Make) -> Iterator[BossWorker]:
    bw = pool(work, worker_count=2, name="mill")
    bw.listen()
    yield bw
    bw.shut_down(force=True)


def test_a_pool_is_listed(cli: Cli, mill: BossWorker) -> None:
    mill.add_work({}, {"sleep": 60})
    wait_for(lambda: mill.stats().done == mill.stats().running == 1)
    (found,) = objects(cli("ps", "--json").out)
    assert set(found) == {*FACTS, "pool"}
    assert (found["id"], found["kind"], found["name"]) == (f"p{mill.boss_pid}", "pool", "mill")
    assert (found["status"], found["paused"], found["pid"]) == ("running", False, os.getpid())
    figures = {"workers": 2, "queued": 0, "running": 1, "done": 1, "failed": 0, "restarts": 0}
    assert figures.items() <= found["pool"].items()
    lines = cli("ps").out.splitlines()
    assert len(lines) == 2
    assert lines[1].split()[:3] == [found["id"], "mill", "running"]
    assert lines[1].endswith("2 workers, 1 running, 0 queued, 1 done, 0 failed")
    assert "boss_pid" in cli("show", "mill").out
    assert objects(cli("show", "--json", found["id"]).out)[0]["pool"]["done"] == 1


def test_a_pool_is_steered(cli: Cli, mill: BossWorker) -> None:
    assert cli("pause", "mill").status == 0
    assert mill.stats().paused
    assert cli("ps").out.splitlines()[1].split()[2] == "paused"
    mill.add_work({"sleep": 60}, {"sleep": 60}, {"sleep": 60})
    assert cli("resume", f"p{mill.boss_pid}").status == 0
    wait_for(lambda: mill.stats().running == 2)
    wait_for(
        lambda: cli("stack", "mill").out.count("in work") == 2
    )  # a worker says that it has a job before it calls it
    assert "in work" in objects(cli("stack", "--json", "mill").out)[0]["text"]
    assert cli("kill", "all").status == 0  # not of pools
    assert mill.stats().running == 2
    assert objects(cli("kill", "mill", "--json").out) == [{"id": f"p{mill.boss_pid}", "done": True}]
    assert [result.error_kind for result in mill.results()] == ["cancelled"] * 3
    said = cli("kill", "mill")
    assert (said.status, said.err) == (1, "bossworker kill: pool mill has no jobs to cancel\n")


def test_failed_jobs_of_a_pool_run_again(cli: Cli, mill: BossWorker, here: Path) -> None:
    mill.add_work({}, {"unless": str(here / "file")})
    list(mill.results())
    assert mill.stats().failed == 1
    (here / "file").touch()
    assert cli("retry", "mill").out == f"p{mill.boss_pid}\n"
    wait_for(lambda: mill.stats().done == 2)


def test_what_a_pool_cannot_do(cli: Cli, mill: BossWorker) -> None:
    for command in (["send", "mill", "x"], ["log", "mill"], ["clean", "mill"], ["retry", "mill"]):
        said = cli(*command)
        assert (said.status, said.out) == (1, "0 deleted\n" if command[0] == "clean" else ""), command
        assert "pool mill" in said.err, command
    assert cli("trace", "nothing", "-o", "x").status == 125


def test_a_trace_of_a_pool(cli: Cli, mill: BossWorker, here: Path) -> None:
    mill.add_work({}, {})
    list(mill.results())
    assert cli("trace", "mill", "-o", "t.json").status == 0
    assert "job 2" in json.dumps(json.loads((here / "t.json").read_text()))
    job = cli("start", "true").out.strip()
    assert "is no pool" in cli("trace", job, "-o", "t.json").err
    cli("wait", job)


def test_the_end_of_a_pool_is_waited_for(cli: Cli, mill: BossWorker, root: Path) -> None:
    assert cli("wait", "mill", "--timeout", "0.1").status == 124
    (entry,) = (one for one in pool_entries() if one.name == "mill")
    waiting = threading.Thread(target=entry.wait, args=(None,))
    waiting.start()
    mill.shut_down()
    waiting.join(60)
    assert entry.describe()["status"] == "completed"
    assert cli("ps").out == ""


def test_a_pool_that_is_stopped_holds_up_nobody(cli: Cli, pool: Make) -> None:
    door = pool(work, worker_count=1, name="stuck").listen()
    job = cli("start", "true").out.strip()
    cli("wait", job)
    os.kill(door.pid, signal.SIGSTOP)
    try:
        assert [one["id"] for one in objects(cli("ps", "--json").out)] == [job]
        assert cli("show", "stuck").status == 125
    finally:
        os.kill(door.pid, signal.SIGCONT)


def test_ps_without_pools_loads_none_of_their_code(root: Path, here: Path) -> None:
    program = (
        "import sys; from bossworker.cli.main import main; main(['ps']); main(['ps', '--json'])\n"
        "print(*sorted(name for name in sys.modules if 'bossworker.pool.caller' in name or name == 'zmq'))"
    )
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout == "\n"

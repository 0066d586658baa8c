"""A job of a pool, looked at from inside: what it writes as it runs, and what it takes."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from bossworker import CommandHandler, run_command
from bossworker.commands.roots import is_id
from bossworker.errors import BossWorkerError
from bossworker.pool.caller.operating import Operator
from bossworker.system import proc
from bossworker.web.watched_pool import WatchedPool
from tests.conftest import wait_for
from tests.web.test_page import Pool, Serve, get

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")


def work(job: dict[str, Any]) -> Any:
    match job.get("do"):
        case "talk":
            print("first")
            print("to stderr", file=sys.stderr)
            logging.getLogger("mill").warning("the %s is hot", "stone")
            wait_for(Path(job["path"]).exists, 300)
            print("<b>second</b>")
            raise ValueError("rattle")
        case "burn":
            kept = b"x" * (64 << 20)
            child = subprocess.Popen([sys.executable, "-c", "while True: pass"])
            try:
                wait_for(Path(job["path"]).exists, 300)
            finally:
                child.kill()
                child.wait()
            return {"kept": len(kept)}
        case "wait":
            wait_for(Path(job["path"]).exists, 300)
    return {}


def job_of(client: httpx.Client, job_id: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = get(client, f"/api/jobs/mill/{job_id}")
    return found


def runs(client: httpx.Client, job_id: int = 1) -> dict[str, Any]:
    """The job, once it is seen to run."""

    def look() -> Any:
        answer = client.get(f"/api/jobs/mill/{job_id}")
        return answer.status_code == 200 and answer.json()["status"] == "running" and answer.json()

    return wait_for(look)  # type: ignore[no-any-return]


def test_lines_come_as_they_are_printed_and_logged(pool: Pool, page: Serve, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1, name="mill", logs="relay")
    client = page(bw)
    path = tmp_path / "go"
    bw.add_work({"do": "talk", "path": str(path)}, {})
    assert runs(client)["inside"]["logs"] == "relay"
    told = wait_for(lambda: (found := get(client, "/api/jobs/mill/1/lines"))["next"] == 3 and found)
    assert sorted(told["lines"]) == [
        ["logging", "WARNING:mill:the stone is hot"], ["stderr", "to stderr"], ["stdout", "first"]
    ]  # fmt: skip
    assert (told["first"], told["running"]) == (0, True)
    path.touch()
    assert bw.get_result().error_kind == "exception"
    told = wait_for(lambda: (found := get(client, "/api/jobs/mill/1/lines", since=3))["lines"] and found)
    assert (told["first"], told["lines"]) == (3, [["stdout", "<b>second</b>"]])
    # they are still there when it has failed
    assert job_of(client)["inside"]["written"] == 4
    assert len(get(client, "/api/jobs/mill/1/lines")["lines"]) == 4
    assert get(client, "/api/jobs/mill/2/lines")["lines"] == []
    assert client.get("/api/jobs/mill/1/output").status_code == 404
    for odd in ("since=x", "since=-1", "since=1.5"):
        assert client.get(f"/api/jobs/mill/1/lines?{odd}").status_code == 400


@pytest.mark.parametrize("logs", ["inherit", "discard"])
def test_where_nothing_can_be_seen_that_is_said(pool: Pool, page: Serve, logs: str, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1, name="mill", logs=logs)
    client = page(bw)
    bw.add_work({"do": "wait", "path": str(tmp_path / "go")})
    inside = runs(client)["inside"]
    assert (inside["logs"], inside["written"], inside["directory"]) == (logs, 0, None)
    (tmp_path / "go").touch()


def test_what_a_job_takes_with_all_that_it_has_started(pool: Pool, page: Serve, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1, name="mill")
    client = page(bw)
    bw.add_work({"do": "burn", "path": str(tmp_path / "go")})
    runs(client)
    usage = wait_for(lambda: (found := job_of(client)["inside"]["usage"]) and found["processes"] == 2 and found)
    assert usage["memory"] > 64 << 20
    wait_for(lambda: (job_of(client)["inside"]["usage"]["cpu"] or 0.0) > 0.0)
    (tmp_path / "go").touch()
    assert bw.get_result() == {"kept": 64 << 20}
    wait_for(lambda: job_of(client)["status"] == "done")
    assert job_of(client)["inside"]["usage"] is None


COMMAND = "echo begun; echo oops >&2; while test ! -e {path}; do sleep 0.02; done; echo through; exit {code}"


def command(path: Path, code: int) -> dict[str, Any]:
    return {"cmd": COMMAND.format(path=path, code=code), "shell": True}


def output(client: httpx.Client, stream: str, since: int = 0, job_id: int = 1) -> dict[str, Any]:
    found: dict[str, Any] = get(client, f"/api/jobs/mill/{job_id}/output", stream=stream, since=since)
    return found


@pytest.mark.parametrize("own_root", [False, True], ids=["usual root", "a root of its own"])
def test_a_command_s_files_are_read_as_they_grow(pool: Pool, page: Serve, tmp_path: Path, own_root: bool) -> None:
    path, root = tmp_path / "go", tmp_path / "elsewhere"
    bw = pool(CommandHandler(root=root) if own_root else run_command, worker_count=1, name="mill")
    client = page(bw)
    bw.add_work(command(path, 3))
    runs(client)
    inside = wait_for(lambda: (found := job_of(client)["inside"])["directory"] and found)
    directory = inside["directory"]
    assert os.path.dirname(directory) == os.path.realpath(root if own_root else os.environ["BOSSWORKER_ROOT"])
    assert inside["command"] == (None if own_root else os.path.basename(directory))
    assert inside["usage"]["processes"] >= 2
    told = wait_for(lambda: (found := output(client, "stdout"))["text"] and found)
    assert (told["text"], told["since"], told["next"], told["running"], told["gone"]) == ("begun\n", 0, 6, True, False)
    wait_for(lambda: output(client, "stderr")["text"] == "oops\n")
    path.touch()
    result = bw.get_result()
    assert result.error == "exit code 3"
    told = wait_for(lambda: (found := output(client, "stdout", 6))["text"] and found)
    assert (told["text"], told["since"], told["next"]) == ("through\n", 6, 14)
    told = wait_for(lambda: (found := job_of(client))["status"] == "failed" and found)
    assert ["stdout", "'begun\\nthrough\\n'"] in told["result"]
    assert ["jobid", repr(os.path.basename(directory))] in told["result"]
    assert told["error"] == "exit code 3"
    for odd in ("stream=job.json", "stream=../x", "since=x"):
        assert client.get(f"/api/jobs/mill/1/output?{odd}").status_code == 400


def test_the_files_of_a_command_that_has_ended_well_are_gone(pool: Pool, page: Serve, tmp_path: Path) -> None:
    path = tmp_path / "go"
    bw = pool(run_command, worker_count=1, name="mill")
    client = page(bw)
    bw.add_work(command(path, 0), command(path, 0))
    runs(client)
    first = wait_for(lambda: job_of(client)["inside"]["directory"])
    path.touch()
    assert bw.get_result().ok
    wait_for(lambda: not os.path.exists(first))
    told = wait_for(lambda: not (found := output(client, "stdout"))["running"] and found)
    assert (told["text"], told["gone"]) == ("", True)
    assert bw.get_result().ok
    wait_for(lambda: job_of(client, 2)["status"] == "done")
    assert job_of(client, 2)["inside"]["directory"] is None  # it was not looked at while it ran


def test_the_next_command_s_directory_is_not_taken_for_the_one_s(
    pool: Pool, page: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The job that ran as the boss answered may have ended, and the next one begun, before we look in /proc."""
    bw = pool(run_command, worker_count=1, name="mill")
    watched = WatchedPool("mill", "mill", lambda: bw)
    gates = [tmp_path / "one", tmp_path / "two"]
    bw.add_work(*(command(gate, 1) for gate in gates))
    wait_for(lambda: watched.job(1) and watched.job(1)["status"] == "running")  # type: ignore[index]
    asked = Operator.output

    def slow(operator: Operator, job_id: int, since: int = 0) -> Any:
        told = asked(operator, job_id, since)
        gates[0].touch()
        assert bw.get_result().job_id == 1
        wait_for(lambda: bw.stats().running == 1)
        wait_for(lambda: any(is_id(os.path.basename(path)) for path in proc.open_paths(bw.worker_pids[0])))
        return told

    watched._insides = type(watched._insides)()  # nothing is known of the first
    monkeypatch.setattr(Operator, "output", slow)
    told = watched.job(1)
    assert told is not None
    assert told["inside"]["directory"] is None
    monkeypatch.setattr(Operator, "output", asked)
    wait_for(lambda: watched.job(2) and watched.job(2)["inside"]["directory"])  # type: ignore[index]
    gates[1].touch()
    bw.get_result()


def test_a_pool_of_an_older_version_says_less(pool: Pool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(operator: Operator, job_id: int, since: int = 0) -> Any:
        raise BossWorkerError("the pool refused: no such operation: 'output'")

    bw = pool(work, worker_count=1, name="mill")
    watched = WatchedPool("mill", "mill", lambda: bw)
    monkeypatch.setattr(Operator, "output", refuse)
    bw.add_work({"do": "wait", "path": str(tmp_path / "go")})
    told = wait_for(lambda: watched.job(1))
    assert told["inside"] == {
        "unseen": "What it writes cannot be had: the pool refused: no such operation: 'output'."
    }  # fmt: skip
    (tmp_path / "go").touch()
    bw.get_result()

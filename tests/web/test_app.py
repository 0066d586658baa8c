"""The page in a program's own server, and from the command line."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

import bossworker
from bossworker import BossWorker, jobs, tasks
from bossworker.cli import job_entries
from bossworker.cli.queue_files import GroupSettings, QueueFolder
from bossworker.web import watch_room
from tests.conftest import alive, wait_for
from tests.web.conftest import InProcess, client_of

Pool = Callable[..., BossWorker]


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("fail"):
        raise ValueError("rattle")
    return {}


@pytest.fixture
def app() -> Iterator[Callable[..., Any]]:
    """Makes apps, and lets go of what they watch."""
    made: list[Any] = []

    def make(*pools: BossWorker, **settings: Any) -> Any:
        made.append(bossworker.web.app(*pools, **settings))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_an_app_is_mounted(pool: Pool, app: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_room, "LEAVE_SECONDS", 0.1)
    bw = pool(work, worker_count=1, name="mill")
    page = app(bw)
    client = InProcess(Starlette(routes=[Mount("/pool", page)]))
    assert client.get("/pool/").status_code == 403
    opened = client.get(f"/pool/?token={page.token}")
    assert "main.js" in opened.text
    assert "Path=/pool;" in opened.headers["set-cookie"]
    assert client.get("/pool/assets/main.js").status_code == 200
    bw.add_work({"fail": True})
    list(bw.results())
    seen = client.get("/pool/api/jobs/mill").json()
    assert [row["status"] for row in seen["rows"]] == ["failed"]
    assert wait_for(lambda: client.get("/pool/api/state").json()["pools"][0].get("failed")) == 1
    assert client.post("/pool/api/pools/mill/pause", content=b"{}").status_code == 200
    assert bw.stats().paused
    wait_for(lambda: not [one for one in threading.enumerate() if "bossworker page" in one.name])


def test_two_pools_of_one_name(pool: Pool, app: Callable[..., Any]) -> None:
    one, two = pool(work, worker_count=1, name="mill"), pool(work, worker_count=2, name="mill")
    client = InProcess(app(one, two, token=None))

    def looks() -> Any:
        found = {told["key"]: told.get("target") for told in client.get("/api/state").json()["pools"]}
        return found == {"mill": 1, "mill~2": 2}

    wait_for(looks)


def test_a_pool_that_has_ended(pool: Pool, app: Callable[..., Any]) -> None:
    bw = pool(work, worker_count=1, name="mill")
    client = InProcess(app(bw, token=None))
    assert client.get("/api/jobs/mill").status_code == 200
    bw.shut_down()
    wait_for(lambda: "shut down" in client.get("/api/state").json()["pools"][0]["away"])
    answer = client.get("/api/jobs/mill")
    assert answer.status_code == 503
    assert "shut down" in answer.json()["error"]


def test_wrong_arguments() -> None:
    with pytest.raises(TypeError, match="pools must be BossWorkers, not dict"):
        bossworker.web.app({})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="token must be"):
        bossworker.web.app(token="")
    for name, wrong in [
        ("doors", "mill"),
        ("doors", 7),
        ("journals", "jobs.db"),
        ("hosts", "example.org"),
        ("hosts", 7),
    ]:
        with pytest.raises(TypeError, match=f"{name} must be a list of .*, not {wrong!r}"):  # not of its letters
            bossworker.web.app(**{name: wrong})  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="hosts must be a list of str, or None, not one with 7"):
        bossworker.web.app(hosts=[7])  # type: ignore[list-item]
    with pytest.raises(TypeError, match="address must be a str, not 7"):
        bossworker.web.app(doors=[7])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="cannot be steered"):
        bossworker.web.app(doors=["tcp://127.0.0.1:9"])
    with pytest.raises(TypeError, match="read_only must be True or False"):
        bossworker.web.app(read_only=1)  # type: ignore[arg-type]


@pytest.fixture
def command() -> Iterator[Callable[..., Any]]:
    """Starts ``bossworker web``; what it prints, and its process."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> tuple[dict[str, Any], subprocess.Popen[str]]:
        argv = [sys.executable, "-m", "bossworker", "web", "--json", *arguments]
        process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout is not None
        line = process.stdout.readline()
        return json.loads(line) if line else {}, process

    yield start
    for process in started:
        process.terminate()
        process.communicate()


def keys(client: httpx.Client) -> list[str]:
    return [told["key"] for told in client.get("/api/state").json()["pools"] if not told["away"]]


def test_the_command_shows_pools_that_come_and_go(pool: Pool, command: Callable[..., Any]) -> None:
    told, _ = command("--port", "0")
    with client_of(told["url"]) as client:
        assert keys(client) == []
        one, two = pool(work, worker_count=1, name="one"), pool(work, worker_count=1, name="two")
        one.listen()
        two.listen(accept="json")
        wait_for(lambda: keys(client) == ["one", "two"])
        one.shut_down()
        wait_for(lambda: keys(client) == ["two"])


def test_the_command_at_a_unix_socket(pool: Pool, command: Callable[..., Any], tmp_path: Path) -> None:
    bw = pool(work, worker_count=1, name="mill")
    bw.listen()
    path = tmp_path / "page.sock"
    told, process = command("--unix-socket", str(path), "--read-only", "mill")
    token = told["url"].partition("token=")[2].partition(" ")[0]
    transport = httpx.HTTPTransport(uds=str(path))
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(transport=transport, base_url="http://localhost", headers=headers, timeout=30) as client:
        wait_for(lambda: keys(client) == ["mill"])
        assert client.post("/api/pools/mill/pause", json={}).status_code == 403
    process.send_signal(signal.SIGTERM)
    process.communicate()
    assert not path.exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--port", "0", "--host", "192.0.2.1"], r"192\.0\.2\.1, port 0: .*Cannot assign requested address\n"),
        (["--journal", "/dev/null"], r"regular file, .*: /dev/null\n"),
        (["--unix-socket", "/nowhere/page"], r"No such file or directory: '/nowhere/page'\n"),
        (["tcp://127.0.0.1:9"], r"tcp://127\.0\.0\.1:9 cannot be steered\n"),
    ],
)
def test_what_cannot_be_served_is_told(command: Callable[..., Any], arguments: list[str], words: str) -> None:
    """And nothing of ports where it is not the port."""
    _, process = command(*arguments)
    assert process.stderr is not None
    assert re.search(words, process.stderr.read())


def test_a_port_that_is_taken(command: Callable[..., Any]) -> None:
    told, _ = command("--port", "0")
    port = told["url"].partition("/?")[0].rpartition(":")[2]
    _, process = command("--port", port)
    _, err = process.communicate()
    assert process.returncode == 1
    assert "--port 0 takes a free one" in err


def test_commands_and_tasks(app: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bossworker.web")
    client = InProcess(app(token=None))
    good, bad = jobs.start(["true"]), jobs.start(["sh", "-c", "echo out; echo err >&2; exit 3"], meta={"name": "bad"})
    runs = jobs.start(["sleep", "600"])
    for one in (good, bad):
        jobs.wait(one, 60)
    rows = client.get("/api/commands").json()["rows"]
    assert [(row["id"], row["status"]) for row in rows] == [(runs, "running"), (bad, "failed"), (good, "done")]
    assert client.get("/api/commands?text=bad").json()["total"] == 1
    assert [row["id"] for row in client.get("/api/commands?status=failed").json()["rows"]] == [bad]
    assert client.get(f"/api/commands/{bad}").json()["exit_code"] == 3
    assert client.get(f"/api/commands/{bad}/output").json() == {
        "since": 0,
        "next": 4,
        "text": "out\n",
        "running": False,
    }
    assert client.get(f"/api/commands/{bad}/output?stream=stderr&since=1").json()["text"] == "rr\n"
    assert "sleep 600" in client.get(f"/api/commands/{runs}/stack").json()["text"]
    for odd in ("..", "nonsense", "%2e%2e"):
        assert client.get(f"/api/commands/{odd}").status_code == 404
        assert client.get(f"/api/commands/{odd}/output").status_code == 404
    assert client.get(f"/api/commands/{bad}/output?stream=job.json").status_code == 400
    told = client.post("/api/commands/retry", content=json.dumps({"query": {"status": "failed"}})).json()
    assert told["count"] == 1
    assert client.post("/api/commands/cancel", content=json.dumps({"ids": [runs, "odd"]})).json()["count"] == 1
    wait_for(lambda: client.get(f"/api/commands/{runs}").json()["signal"] == 9)
    wait_for(lambda: client.get("/api/commands?status=failed").json()["total"] == 3)
    task = tasks.spawn(["cat"])
    try:
        (shown,) = client.get("/api/tasks").json()["tasks"]
        assert (shown["id"], shown["line"], shown["status"]) == (task.id, "cat", "running")
        assert client.post(f"/api/tasks/{task.id}/stdin", content=json.dumps({"text": "hello\n"})).status_code == 200
        wait_for(lambda: client.get(f"/api/tasks/{task.id}/output").json()["text"] == "hello\n")
        client.post(f"/api/tasks/{task.id}/signal", content=json.dumps({"signal": "TERM"}))
        wait_for(lambda: client.get(f"/api/tasks/{task.id}").json()["signal"] == 15)
        assert client.post(f"/api/tasks/{task.id}/restart", content=b"{}").status_code == 200
        wait_for(lambda: client.get(f"/api/tasks/{task.id}").json()["status"] == "running")
        assert client.post("/api/tasks/nobody/restart", content=b"{}").status_code == 404
    finally:
        task.delete()
    orders = [line.split()[0] for line in caplog.messages]
    assert orders == ["order=retry", "order=cancel", "order=stdin", "order=signal", "order=restart"]
    for jobid in jobs.listing():
        jobs.clean(jobid)


def test_queued_commands(app: Callable[..., Any]) -> None:
    folder = QueueFolder("default")
    folder.settings = GroupSettings(paused=True)
    command = {"cmd": ["true", "later"], "shell": False, "env": {}, "cwd": None, "timeout": 0, "memory": 0, "meta": {}}
    entries = [job_entries.add(folder, command, after=[], not_before=0.0, priority=0) for _ in range(2)]
    client = InProcess(app(token=None))
    rows = client.get("/api/commands?status=queued").json()["rows"]
    assert [(row["id"], row["status"], row["text"]) for row in rows] == [
        (entry.id, "queued", "true later") for entry in reversed(entries)
    ]
    told = client.post("/api/commands/cancel", content=json.dumps({"ids": [entries[0].id]})).json()
    assert told == {"count": 1, "of": 1, "wrong": []}
    wait_for(lambda: client.get("/api/commands?status=queued").json()["total"] == 1)
    folder.settings = GroupSettings(paused=False)
    folder.poke()
    wait_for(lambda: client.get(f"/api/commands/{entries[1].id}").json()["status"] == "done")
    pid = folder.ask()["pid"]  # of whoever sees to it, who would wait a while for more
    os.kill(pid, signal.SIGTERM)
    wait_for(lambda: not alive(pid))

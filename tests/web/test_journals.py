"""Journals on the page: with an owner, and without."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import bossworker
from bossworker import BossWorker, journal
from tests.conftest import wait_for
from tests.web.conftest import InProcess

Pool = Callable[..., BossWorker]


class Trap:
    """A pickle of it that is loaded leaves a mark."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.path),))


def work(job: dict[str, Any]) -> Any:
    match job.get("do"):
        case "raise":
            raise ValueError(f"rattle {job['n']}")
        case "report":
            return {"ERROR": "so so", "left": 3}
        case "trap":
            return {"trap": Trap(Path(job["path"]))}
        case "wait":
            wait_for(Path(job["path"]).exists)
    return {"n": job.get("n", 0) * 2}


PROGRAM = """
import sys
from bossworker import BossWorker
from tests.web.test_journals import work
pool = BossWorker(work, worker_count=1, journal=sys.argv[1])
pool.add_work({"n": 4, "do": "work"}, {"do": "raise", "n": 7}, {"do": "report"})
list(pool.results())
pool.add_work({"do": "wait", "path": sys.argv[1] + ".go"}, *({"n": n} for n in range(21)))
while pool.stats().running != 1:
    pass
print("ready", flush=True)
pool.get_result()
"""


@pytest.fixture
def left(tmp_path: Path) -> str:
    """The journal of a program that was killed as it had a job running, and many queued."""
    path = str(tmp_path / "jobs.db")
    program = subprocess.Popen([sys.executable, "-c", PROGRAM, path], stdout=subprocess.PIPE, text=True)
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    program.send_signal(signal.SIGKILL)
    program.communicate()
    wait_for(lambda: journal.open(path).counts()["running"] == 0)
    return path


@pytest.fixture
def app() -> Iterator[Callable[..., InProcess]]:
    """Makes apps without tokens, and lets go of what they watch."""
    made: list[Any] = []

    def make(*pools: BossWorker, **settings: Any) -> InProcess:
        made.append(bossworker.web.app(*pools, token=None, **settings))
        return InProcess(made[-1])

    yield make
    for one in made:
        one.close()


def rows(client: InProcess, query: str = "", key: str = "jobs.db") -> list[dict[str, Any]]:
    answer = client.get(f"/api/journals/{key}{query}")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["rows"]
    return found


def counts(client: InProcess) -> dict[str, int]:
    """Those that are not 0."""
    (told,) = client.get("/api/state").json()["journals"]
    return {status: number for status, number in told["counts"].items() if number}


def post(client: InProcess, path: str, **told: Any) -> Any:
    import json

    answer = client.post(path, content=json.dumps(told))
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_journal_without_an_owner(left: str, app: Callable[..., InProcess], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "bossworker.web")
    client = app(journals=[left])
    wait_for(lambda: counts(client) == {"queued": 21, "done": 1, "failed": 2, "interrupted": 1})
    (told,) = client.get("/api/state").json()["journals"]
    assert (told["path"], told["owner"], told["away"]) == (left, None, "")
    assert [row["status"] for row in rows(client)] == [*["queued"] * 21, "interrupted", *["failed"] * 2, "done"]
    assert [row["id"] for row in rows(client, "?status=queued&limit=3&offset=2")] == ["7", "8", "9"]
    report, bad = rows(client, "?status=failed")
    assert (bad["id"], bad["kind"], bad["error"], bad["text"]) == (
        "2", "exception", "ValueError: rattle 7", "do='raise', n=7"
    )  # fmt: skip
    assert (report["kind"], report["error"]) == ("reported", "so so")
    assert [row["id"] for row in rows(client, "?kind=reported")] == ["3"]
    assert [row["id"] for row in rows(client, "?text=RATTLE")] == ["2"]
    assert rows(client, f"?status=failed&until={time.time() - 3600}") == []
    assert len(rows(client, f"?since={time.time() - 3600}")) == 25
    one = client.get("/api/journals/jobs.db/2").json()
    assert "in work" in one["traceback"]
    assert one["owner"] is None
    assert client.get("/api/journals/jobs.db/1").json()["result"] == [["n", "8"]]
    interrupted = client.get("/api/journals/jobs.db/4").json()
    assert (interrupted["status"], interrupted["ended"], interrupted["content"][0]) == (
        "interrupted", None, ["do", "'wait'"]
    )  # fmt: skip
    # what has ended runs once more with the next owner
    assert post(client, "/api/journals/jobs.db/retry", ids=["2", "4"])["new"] == {"2": "26", "4": "27"}
    assert client.post("/api/journals/jobs.db/retry", content=b'{"ids": ["5"]}').status_code == 400  # it is queued
    assert post(client, "/api/journals/jobs.db/retry", query={"status": "failed"})["count"] == 2
    wait_for(lambda: counts(client)["queued"] == 25)
    assert client.get("/api/journals/jobs.db/26").json()["retry_of"] == 2
    # and what has ended, and was retrieved, can be forgotten
    assert post(client, "/api/journals/jobs.db/forget", status="failed")["count"] == 2
    wait_for(lambda: "failed" not in counts(client))
    assert client.get("/api/journals/jobs.db/2").status_code == 404
    orders = [line.split(" by=")[0] for line in caplog.messages if line.startswith("order=")]
    assert orders == [
        f"order=retry journal={left!r} jobs=2 done=2",
        f"order=retry journal={left!r} jobs=1 refused='job 5 has not ended (it is queued): it cannot be retried'",
        f"order=retry journal={left!r} jobs=2 done=2",
        f"order=forget journal={left!r} status='failed' unretrieved=False done=2",
    ]
    for odd in ("?status=nonsense", "/x", "?offset=-1"):
        assert client.get(f"/api/journals/jobs.db{odd}").status_code == 400
    assert client.get("/api/journals/other.db").status_code == 503
    assert client.post("/api/journals/jobs.db/nonsense", content=b"{}").status_code == 404
    assert client.post("/api/journals/jobs.db/forget", content=b'{"status": "queued"}').status_code == 400


def written(path: str) -> list[tuple[str, int]]:
    """When which of the files of a journal was."""
    return [(one.name, one.stat().st_mtime_ns) for one in sorted(Path(path).parent.iterdir())]


def test_it_is_not_opened_again_while_nothing_changes(left: str, app: Callable[..., InProcess]) -> None:
    client = app(journals=[left])
    wait_for(lambda: counts(client))
    assert len(rows(client)) == 25
    before = written(left)
    began = time.monotonic()
    while time.monotonic() < began + 1.5:  # three looks
        assert counts(client)["queued"] == 21
    assert written(left) == before


def test_with_an_owner_it_is_he_who_answers(tmp_path: Path, pool: Pool, app: Callable[..., InProcess]) -> None:
    path = tmp_path / "jobs.db"
    bw = pool(work, worker_count=1, journal=path, name="mill")
    client = app(bw)  # the pool's own journal is found
    go = tmp_path / "go"
    bw.add_work({"do": "raise", "n": 1}, {"do": "wait", "path": str(go)}, {"n": 3})
    assert bw.get_result().error_kind == "exception"
    wait_for(lambda: client.get("/api/state").json()["journals"] and counts(client).get("running") == 1)
    (told,) = client.get("/api/state").json()["journals"]
    assert told["owner"] == os.getpid()
    assert [row["status"] for row in rows(client)] == ["queued", "running", "failed"]
    new = post(client, "/api/journals/jobs.db/retry", query={"status": "failed"})["new"]
    go.touch()
    assert sorted(str(result.error_kind) for result in bw.results()) == ["None", "None", "exception"]
    wait_for(lambda: client.get(f"/api/journals/jobs.db/{new['1']}").json()["status"] == "failed")
    bw.shut_down()
    wait_for(lambda: client.get("/api/state").json()["journals"][0]["owner"] is None)
    assert counts(client) == {"done": 2, "failed": 2}  # of a pool that has ended it stays


def test_nothing_of_a_journal_is_run(tmp_path: Path, pool: Pool, app: Callable[..., InProcess]) -> None:
    path, mark = tmp_path / "jobs.db", tmp_path / "mark"
    with pool(work, worker_count=1, journal=path) as bw:
        bw.add_work({"do": "trap", "path": str(mark)})
        bw.get_result()
        mark.rmdir()
    client = app(journals=[path])
    wait_for(lambda: counts(client))
    assert "mkdir" in client.get("/api/journals/jobs.db/1").json()["result"][0][1]
    assert not mark.exists()


def test_what_is_no_journal(tmp_path: Path, app: Callable[..., InProcess]) -> None:
    (tmp_path / "text.db").write_text("x" * 100)
    client = app(journals=[tmp_path / "text.db", tmp_path / "missing.db", str(tmp_path / "text.db")])

    def told() -> Any:
        found = client.get("/api/state").json()["journals"]
        return [one["away"] for one in found] if all(one["away"] for one in found) else None

    missing, text = wait_for(told)
    assert "there is no journal" in missing
    assert "no SQLite database" in text
    answer = client.get("/api/journals/text.db")
    assert (answer.status_code, "no SQLite database" in answer.json()["error"]) == (503, True)
    with pytest.raises(ValueError, match="journal must be the path of a file"):
        app(journals=[tmp_path])


def test_read_only(left: str, app: Callable[..., InProcess]) -> None:
    client = app(journals=[left], read_only=True)
    assert len(rows(client)) == 25
    for order in ("retry", "forget"):
        assert client.post(f"/api/journals/jobs.db/{order}", content=b"{}").status_code == 403


def test_a_hundred_thousand_jobs(tmp_path: Path, pool: Pool, app: Callable[..., InProcess]) -> None:
    with pool(work, worker_count=2, journal=tmp_path / "jobs.db") as bw:
        bw.add_work(*({"n": n} for n in range(50_000)))
        assert sum(result.ok for result in bw.results()) == 50_000
        bw.pause()
        bw.add_work(*({"n": n} for n in range(50_000)))
        client = app(bw)
        wait_for(lambda: client.get("/api/state").json()["journals"])
        for query in ("", "?status=done", "?status=queued", "?status=done&text=n%3D49999"):
            began = time.monotonic()
            assert rows(client, query)[0]["text"]
            assert time.monotonic() - began < 10, query  # within a second, with a margin of ten
        assert client.get("/api/journals/jobs.db").json()["total"] == 100_000
        bw.shut_down(force=True)

"""The page over HTTP: of a pool, by its own program."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

import bossworker
from bossworker import BossWorker
from bossworker.function_calls import run_call
from bossworker.system import processes
from bossworker.system.proc import cpu_seconds
from tests.conftest import wait_for
from tests.web.conftest import client_of


def work(job: dict[str, Any]) -> Any:
    match job.get("do"):
        case "raise":
            raise ValueError(f"rattle {job['n']}")
        case "sleep":
            bossworker.current_job().progress(3, 10, "third of ten")  # type: ignore[union-attr]
            time.sleep(job["seconds"])
        case "unless":
            if not os.path.exists(job["path"]):
                raise FileNotFoundError(job["path"])
    return {}


Serve = Callable[..., httpx.Client]
Pool = Callable[..., BossWorker]


def get(client: httpx.Client, path: str, **given: Any) -> Any:
    answer = client.get(path, params=given)
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(client: httpx.Client, path: str, **told: Any) -> Any:
    answer = client.post(path, json=told)
    assert answer.status_code == 200, answer.text
    return answer.json()


def one_pool(client: httpx.Client) -> dict[str, Any]:
    """The only pool that is shown, once it is."""

    def look() -> Any:
        pools = get(client, "/api/state")["pools"]
        return pools and not pools[0]["away"] and pools[0]

    return wait_for(look)  # type: ignore[no-any-return]


def test_the_page_and_its_files(pool: Pool, page: Serve) -> None:
    client = page(pool(work, worker_count=1))
    index = client.get("/")
    assert index.headers["content-type"].startswith("text/html")
    assert "<script>" not in index.text
    assert " on" not in index.text  # no handlers in attributes
    for name in ("main.js", "page.css", "icon.svg", "vendor/uPlot.iife.min.js", "vendor/htm-preact.module.js"):
        asset = client.get(f"/assets/{name}")
        assert asset.status_code == 200
        assert "javascript" in asset.headers["content-type"] or not name.endswith("js")
    assert client.get("/assets/../routes.py").status_code == 404
    assert client.get("/assets/%2e%2e/routes.py").status_code == 404
    bare = httpx.get(str(client.base_url), trust_env=False)
    assert (bare.status_code, "set-cookie" in bare.headers) == (403, False)


def test_a_pool_is_seen(pool: Pool, page: Serve) -> None:
    bw = pool(work, worker_count=2, name="mill & co")
    client = page(bw)
    bw.add_work({"do": "sleep", "seconds": 60}, *({"do": "raise", "n": n} for n in range(5)), {"n": 1})
    for _ in range(6):
        bw.get_result()
    seen = wait_for(lambda: (told := one_pool(client))["failed"] == 5 and told)
    assert (seen["name"], seen["running"], seen["done"], seen["kinds"]) == ("mill & co", 1, 1, {"exception": 5})
    assert seen["boss"] == bw.boss_pid
    (worker,) = [one for one in seen["workers"] if one["id"]]
    assert worker["name"] == "1"
    assert worker["progress"] == [3, 10, "third of ten"]
    assert worker["text"] == "do='sleep', seconds=60"
    assert {one["pid"] for one in seen["workers"]} == set(bw.worker_pids)
    key = seen["key"]
    told = get(client, f"/api/jobs/{key}", status="failed")
    assert told["total"] == 5
    assert {row["error"] for row in told["rows"]} == {f"ValueError: rattle {n}" for n in range(5)}
    assert get(client, f"/api/jobs/{key}", text="rattle 3")["total"] == 1
    one = get(client, f"/api/jobs/{key}/{told['rows'][0]['id']}")
    assert "in work" in one["traceback"]
    assert ["do", "'raise'"] in one["content"]
    assert "in work" in get(client, f"/api/jobs/{key}/1/stack")["text"]
    assert "worker 1" in get(client, f"/api/pools/{key}/stack")["text"]
    spans = get(client, f"/api/pools/{key}/timeline")["lanes"]
    assert sum(span[4] for lane in spans.values() for span in lane) == 6
    trace = client.get(f"/api/pools/{key}/trace")
    assert "attachment" in trace.headers["content-disposition"]
    assert trace.json()["traceEvents"]
    history = get(client, f"/api/pools/{key}/history")
    assert len(history["points"][-1]) == len(history["fields"])


def test_a_pool_is_steered(pool: Pool, page: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "bossworker")
    bw = pool(work, worker_count=1, name="mill")
    client = page(bw)
    path = tmp_path / "there"
    bw.add_work({"do": "unless", "path": str(path)}, {"do": "raise", "n": 1})
    list(bw.results())
    wait_for(lambda: one_pool(client)["failed"] == 2)
    path.touch()
    told = post(client, "/api/jobs/mill/retry", query={"status": "failed", "text": "there"})
    assert (told["count"], list(told["new"])) == (1, ["1"])
    wait_for(lambda: one_pool(client)["done"] == 1)
    row = get(client, f"/api/jobs/mill/{told['new']['1']}")
    assert (row["name"], row["status"]) == ("again-1", "done")
    post(client, "/api/pools/mill/pause")
    assert bw.stats().paused
    ids = bw.add_work(*({"n": n} for n in range(10)))
    wait_for(lambda: one_pool(client)["queued"] == 10)
    assert post(client, "/api/jobs/mill/cancel", ids=[str(ids[0])])["count"] == 1
    assert post(client, "/api/jobs/mill/cancel", query={"status": "queued"})["count"] == 9
    post(client, "/api/pools/mill/resume")
    post(client, "/api/pools/mill/resize", workers=2)
    wait_for(lambda: len(bw.worker_pids) == 2)
    assert {result.error_kind for result in bw.results()} == {"cancelled"}
    for order in ("op=retry", "op=pause", "op=cancel", "op=resume", "op=resize"):
        assert any(order in line and "the page" in line for line in caplog.messages), order
    assert client.post("/api/pools/mill/resize", json={"workers": 0}).status_code == 409
    assert client.post("/api/pools/mill/resize", json={"workers": "x"}).status_code == 400
    assert client.post("/api/pools/mill/nonsense", json={}).status_code == 404
    assert client.post("/api/pools/mill/pause", content=b"[").status_code == 400
    assert client.get("/api/jobs/mill/99999").status_code == 404
    assert client.get("/api/jobs/mill?status=nonsense").status_code == 400
    assert client.get("/api/jobs/other").status_code == 503


def test_a_handler_is_reloaded(
    pool: Pool, page: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "bossworker")
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "stones.py").write_text("def grind(job): return {'by': 'stones'}")
    (tmp_path / "sand.py").write_text("raise RuntimeError('there is none')")
    bw = pool(work, worker_count=2, name="mill")
    client = page(bw)
    assert one_pool(client)["reload"] == {
        "handler": f"{__name__}:work", "trial": None, "tried": 0, "error": "", "offered": True
    }  # fmt: skip
    assert post(client, "/api/pools/mill/reload", handler="stones:grind") == {"done": True}
    bw.add_work({"n": 1})
    assert bw.get_result() == {"by": "stones"}
    answer = client.post("/api/pools/mill/reload", json={"handler": "sand:grind"})
    assert answer.status_code == 409
    assert "goes on with its old handler" in answer.json()["error"]
    assert "RuntimeError: there is none" in answer.json()["error"]
    wait_for(lambda: "there is none" in one_pool(client)["reload"]["error"])
    assert one_pool(client)["reload"]["handler"] == "stones:grind"
    for odd in ("", "stones", "__main__:work", None, {"a": 1}):
        assert client.post("/api/pools/mill/reload", json={"handler": odd}).status_code == 409
    assert client.post("/api/pools/mill/reload", json={}).status_code == 400
    assert any("op=reload handler=stones:grind by='the page" in line for line in caplog.messages)


def test_a_pool_of_calls_has_no_handler_to_be_reloaded(pool: Pool, page: Serve) -> None:
    assert not one_pool(page(pool(run_call, worker_count=1)))["reload"]["offered"]


def snapshots(client: httpx.Client, seconds: float) -> list[tuple[float, dict[str, Any]]]:
    found = []
    with client.stream("GET", "/events") as stream:
        began = time.monotonic()
        for line in stream.iter_lines():
            if line.startswith("data: "):
                found.append((time.monotonic(), json.loads(line[6:])))
            if time.monotonic() > began + seconds:
                break
    return found


def test_one_stream_tells_what_happens(pool: Pool, page: Serve) -> None:
    bw = pool(work, worker_count=2)
    client = page(bw)
    one_pool(client)
    pid = bw.worker_pids[0]
    with client.stream("GET", "/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        told = (json.loads(line[6:]) for line in stream.iter_lines() if line.startswith("data: "))
        assert any(worker["pid"] == pid for worker in next(told)["pools"][0]["workers"])
        os.kill(pid, signal.SIGKILL)
        killed = time.monotonic()
        while any(worker["pid"] == pid for worker in next(told)["pools"][0]["workers"]):
            pass
        assert time.monotonic() - killed < 10  # within a second, with a margin of ten
    assert 2 <= len(snapshots(client, 1.0)) <= 12  # four a second


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_a_look_costs_the_pool_little(pool: Pool) -> None:
    """Half a millisecond of the boss's processor time, four times a second; with a margin of ten."""
    bw = pool(work, worker_count=2)
    bw.add_work(*({"n": n} for n in range(20_000)))
    assert sum(result.ok for result in bw.results()) == 20_000
    before = cpu_seconds(bw.boss_pid)
    told = [bw.operator.now(usage=False) for _ in range(100)]
    assert cpu_seconds(bw.boss_pid) - before < 100 * 0.005
    assert 1000 < sum(len(one.outcomes) for one in told[-1].ended) < 10_000


def test_read_only(pool: Pool, page: Serve) -> None:
    client = page(pool(work, worker_count=1, name="mill"), read_only=True)
    one_pool(client)
    assert get(client, "/api/about")["read_only"]
    assert client.post("/api/pools/mill/pause", json={}).status_code == 403


def test_the_same_address_again_and_the_end(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    url = bw.web()
    assert bw.web() == url
    with ThreadPoolExecutor(3) as threads:  # which ask at once
        others = set(threads.map(lambda _: bw.web(read_only=True), range(3)))
    assert len(others) == 1
    assert others != {url}
    client = client_of(url)
    one_pool(client)
    bw.shut_down()
    with pytest.raises(httpx.TransportError):
        client.get("/api/state")
    with pytest.raises(bossworker.PoolClosed):
        bw.web()
    client.close()


def test_wrong_arguments(pool: Pool) -> None:
    bw = pool(work, worker_count=1)
    with pytest.raises(ValueError, match="port"):
        bw.web(port=70000)
    for wrong in (7, b"page", "", "a\0b"):
        with pytest.raises((TypeError, ValueError), match="unix_socket must be"):
            bw.web(unix_socket=wrong)  # type: ignore[arg-type]
    with pytest.raises(OSError, match=r"cannot be served: .*No such file.*'/nowhere/page'"):
        bw.web(unix_socket="/nowhere/page")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(OSError, match="cannot be served"):
            bw.web(port=taken.getsockname()[1])
    with BossWorker(work, worker_count=0) as inline, pytest.raises(ValueError, match="inline"):
        inline.web()


def test_a_unix_socket(pool: Pool, tmp_path: Path) -> None:
    bw = pool(work, worker_count=1)
    path = tmp_path / "page.sock"
    url = bw.web(unix_socket=path)
    assert os.stat(path).st_mode & 0o777 == 0o600
    token = url.partition("token=")[2].partition(" ")[0]
    transport = httpx.HTTPTransport(uds=str(path))
    with httpx.Client(transport=transport, base_url="http://localhost", timeout=30) as client:
        assert client.get("/api/state").status_code == 403
        assert client.get("/api/state", headers={"Authorization": f"Bearer {token}"}).status_code == 200
    bw.shut_down()
    wait_for(lambda: not path.exists())


def test_a_program_that_is_killed_takes_its_page_along(tmp_path: Path) -> None:
    program = (
        "import bossworker, time\n"
        "pool = bossworker.BossWorker(dict, worker_count=1)\n"
        "print(pool.web(), flush=True)\n"
        "time.sleep(600)\n"
    )
    import subprocess

    child = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    with client_of(child.stdout.readline().strip()) as client:
        one_pool(client)
        child.kill()
        child.wait()
        child.stdout.close()

        def is_gone() -> bool:
            try:
                client.get("/api/state")
            except httpx.TransportError:
                return True
            return False

        wait_for(is_gone)
    wait_for(lambda: not processes.children(os.getpid()) or processes.reap_all() or True)


def test_metrics(pool: Pool, page: Serve) -> None:
    bw = pool(work, worker_count=1, name="mill")
    client = page(bw)
    bw.add_work({"n": 1})
    bw.get_result()
    one_pool(client)
    told = client.get("/metrics")
    assert told.headers["content-type"].startswith("text/plain")
    assert 'bossworker_jobs_total{outcome="ok",pool="mill"} 1.0' in told.text

"""What people type into programs, services and notebooks, from beginning to end.

(What they type into a shell: ``test_stories.py``; a client that hangs up, a tool server: ``tests/examples``; a cluster:
``tests/engines``.)
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker
from tests.conftest import wait_for

PROJECT = Path(__file__).parents[2]
Pool = Callable[..., BossWorker]

pytestmark = pytest.mark.usefixtures("all_leave")

SERVICE = """
import logging, os, time
from contextlib import asynccontextmanager
from fastapi import FastAPI
from bossworker import BossWorker

logging.basicConfig(level=logging.INFO, format="%(message)s")

def handle(job):
    while not os.path.exists("go"):
        time.sleep(0.01)
    return {"n": job["n"]}

def start():
    return BossWorker(handle, journal="jobs.db", worker_count=2)
"""
AT_THE_TOP = """
pool = start()
app = FastAPI()
"""
IN_A_LIFESPAN = """
@asynccontextmanager
async def lifespan(app):
    global pool
    pool = start()
    yield
    pool.shut_down(force=True)

app = FastAPI(lifespan=lifespan)
"""
ROUTES = """
@app.post("/jobs/{count}")
def add(count: int):
    return list(pool.add_work(*({"n": n} for n in range(count))))

@app.get("/running")
def running():
    return pool.stats().running

@app.get("/results")
def results():
    return [[result.job["n"], result.error_kind] for result in pool.results()]
"""


@contextmanager
def served(here: Path, log: str) -> Iterator[tuple[subprocess.Popen[bytes], Any]]:
    """The service, and a client of it; it is told to go at the end."""
    import httpx

    command = [sys.executable, "-m", "uvicorn", "--app-dir", str(here), "--uds", str(here / "web"), "service:app"]
    with open(here / log, "wb") as file:
        program = subprocess.Popen(
            command, cwd=here, stdout=file, stderr=file, env={**os.environ, "PYTHONPATH": str(PROJECT)}
        )
    transport = httpx.HTTPTransport(uds=str(here / "web"))
    try:
        with httpx.Client(transport=transport, base_url="http://service", timeout=60) as client:
            wait_for(lambda: "running on unix socket" in (here / log).read_text(), 60)
            yield program, client
            program.send_signal(signal.SIGTERM)
            program.wait(60)
    finally:
        program.kill()
        program.wait()


@pytest.mark.skipif(not (find_spec("fastapi") and find_spec("uvicorn")), reason="needs FastAPI and uvicorn")
@pytest.mark.parametrize("where", [AT_THE_TOP, IN_A_LIFESPAN], ids=["at the top", "in a lifespan"])
def test_a_deploy_at_noon(root: Path, here: Path, where: str) -> None:
    """A service author: SIGTERM, the new version comes up, and nothing is lost, nor passed over in silence."""
    (here / "service.py").write_text(SERVICE + where + ROUTES)
    with served(here, "old.log") as (_, client):
        assert len(client.post("/jobs/214").json()) == 214
        wait_for(lambda: client.get("/running").json() == 2)
    with served(here, "new.log") as (_, client):
        assert "recovered 214 jobs: 212 never started, 2 interrupted" in (here / "new.log").read_text()
        (here / "go").touch()
        results = client.get("/results").json()
    assert sorted(n for n, _ in results) == list(range(214))
    assert [kind for _, kind in results if kind] == ["interrupted"] * 2
    assert "recovered" not in (here / "old.log").read_text()


PARSER = "import re\n" + "\n" * 85 + "def handle(job):\n    return {'found': bool(re.match(r'(a+)+$', job['text']))}\n"
STACK_SECONDS = 0.05


@pytest.mark.skipif(not (find_spec("starlette") and find_spec("httpx")), reason="needs the page, and a client")
def test_stuck_in_production(pool: Pool, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service author clicks on the worker that has been in a job for long, on Stack, and on Cancel."""
    from tests.web.conftest import client_of

    (here / "parse.py").write_text(PARSER)
    monkeypatch.syspath_prepend(str(here))
    from parse import handle  # type: ignore[import-not-found]

    bw = pool(handle, worker_count=3, kill_grace=0.5)
    (job_id,) = bw.add_work({"text": "a" * 60 + "b"})
    client = client_of(bw.web(port=0))

    def stuck_worker() -> Any:
        pools = client.get("/api/state").json()["pools"]
        return next((one for one in pools[0].get("workers", ()) if one["id"] == str(job_id)), None) if pools else None

    worker = wait_for(stuck_worker)
    assert worker["state"] == "busy"
    begin = time.monotonic()
    key = client.get("/api/state").json()["pools"][0]["key"]
    told = client.get(f"/api/jobs/{key}/{job_id}/stack").json()["text"]
    assert time.monotonic() - begin < 10 * STACK_SECONDS
    assert '/here/parse.py", line 88' in told
    assert client.post(f"/api/jobs/{key}/cancel", json={"ids": [job_id]}).json() == {"count": 1, "of": 1}
    result = bw.get_result(timeout=60)
    assert result is not None
    assert result.error_kind == "cancelled"
    client.close()


KERNEL = """
import json, sys
from queue import Empty
from jupyter_client.manager import start_new_kernel

def run(code, interrupt_at=""):
    number, text, failed = client.execute(code), "", ""
    while True:
        message = client.get_iopub_msg(timeout=120)
        if message["parent_header"].get("msg_id") != number:
            continue
        content = message["content"]
        if message["msg_type"] == "stream":
            text += content["text"]
            if interrupt_at and interrupt_at in text:
                interrupt_at = ""
                manager.interrupt_kernel()
        elif message["msg_type"] == "comm_msg":  # what a widget is to show
            text += json.dumps(content) + "\\n"
        elif message["msg_type"] == "error":
            failed = content["ename"]
        elif message["msg_type"] == "status" and content["execution_state"] == "idle":
            return text, failed

manager, client = start_new_kernel(kernel_name="python3")
try:
    print(json.dumps([run(*cell) for cell in json.loads(sys.argv[1])]))
finally:
    client.stop_channels()
    manager.shutdown_kernel(now=False)
"""
DEFINITION = """
import os, time
from bossworker import BossWorker

def fit(job):
    for epoch in range(1, 4):
        print("epoch", epoch)
    while job.get("stay"):
        time.sleep(0.01)
    return {"score": 1 / job["n"]}

pool = BossWorker(fit, worker_count=2, start_method="spawn", logs="relay")
"""
USE = """
for result in pool.map([{"n": n} for n in (1, 2, 0)], progress=True):
    print(result.ok)
"""
STAY = """
for result in pool.map([{"n": 1, "stay": True}] * 4, progress=True):
    pass
"""
AFTERWARDS = """
while pool.stats().running:
    time.sleep(0.01)
print(pool.pending(), {worker.state for worker in pool.stats().workers})
print(next(iter(pool.map([{"n": 4}])))["score"])
pool.shut_down()
"""


@pytest.mark.skipif(not (find_spec("jupyter_client") and find_spec("ipykernel")), reason="needs a kernel")
def test_a_notebook(here: Path) -> None:
    """A data scientist: a bar with failures, prints below the cell with their jobs; Interrupt, and all goes on."""
    cells = [[DEFINITION], [USE], [STAY, "epoch 3"], [AFTERWARDS]]
    environment = {**os.environ, "PYTHONPATH": str(PROJECT), "IPYTHONDIR": str(here / "ipython")}
    said = subprocess.run(
        [sys.executable, "-c", KERNEL, json.dumps(cells)], env=environment, capture_output=True, text=True, check=False
    )
    assert said.returncode == 0, said.stderr
    defined, used, stayed, afterwards = json.loads(said.stdout)
    assert defined == ["", ""]
    text, failed = used
    assert not failed
    for job_id in (1, 2, 3):
        for epoch in (1, 2, 3):
            assert f"job {job_id} │ epoch {epoch}\n" in text
    assert find_spec("ipywidgets") is None or "failed=1" in text  # in the bar, which is a widget
    assert [line for line in text.splitlines() if line in ("True", "False")] == ["True", "True", "False"]
    assert stayed[1] == "KeyboardInterrupt"
    assert afterwards[0].splitlines()[0] == "0 {'idle'}", afterwards
    assert "0.25" in afterwards[0]

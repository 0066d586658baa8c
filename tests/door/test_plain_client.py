"""The protocol for other languages, as ARCHITECTURE.md tells it: spoken in C, without any library for it."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker

SOURCE = Path(__file__).with_name("plain_client.c")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if (compiler := shutil.which("cc")) is None:
        pytest.skip("there is no C compiler")
    made = tmp_path_factory.mktemp("plain") / "client"
    subprocess.run([compiler, "-std=c99", "-D_GNU_SOURCE", "-Wall", "-Werror", "-O1", "-o", made, SOURCE], check=True)
    return made


def work(job: dict[str, Any]) -> dict[str, Any]:
    return {"twice": 2 * job["n"], "data": "x" * job.get("size", 0)}


def test_a_client_in_c(pool: Callable[..., BossWorker], program: Path) -> None:
    """With results of more than what the door sends without credit, and one longer than a length of a byte says."""
    door = pool(work, worker_count=1).listen(accept="json")
    jobs = [{"n": 1}, {"m": 1}, *({"n": n, "size": 1 << 20} for n in range(20))]
    command = [str(program), door.address.removeprefix("ipc://"), *map(json.dumps, jobs)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stderr) == (0, "")
    results = [result for line in ended.stdout.splitlines() for result in json.loads(line)["results"]]
    found = {result["id"]: result for result in results}
    assert len(results) == len(found) == len(jobs)
    assert found[1]["result"] == {"twice": 2, "data": ""}
    assert (found[2]["error"], found[2]["error_kind"]) == ("KeyError: 'n'", "exception")
    assert all(found[3 + n]["result"] == {"twice": 2 * n, "data": "x" * (1 << 20)} for n in range(20))


def test_it_hears_why_it_is_not_let_in(pool: Callable[..., BossWorker], program: Path) -> None:
    door = pool(work, worker_count=1).listen()
    command = [str(program), door.address.removeprefix("ipc://"), "{}"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 1
    assert json.loads(ended.stderr.splitlines()[0])["reason"].startswith('this pool was opened with accept="pickle"')

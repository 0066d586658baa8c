"""What ``ps`` shows of a pool."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from bossworker import BossWorker
from bossworker.system import proc, titles
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").decode()


def name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_each_process_says_what_it_is(pool: Pool, start_method: str) -> None:
    bw = pool(lambda job: {}, worker_count=2, name="thumbnails of übung", start_method=start_method)
    (server,) = proc.children(bw.boss_pid)
    told = {title(pid) for pid in (bw.boss_pid, server, *bw.worker_pids)}
    assert told == {
        f"bossworker thumbnails of übung: {what}" for what in ("boss", "fork server", "worker 0", "worker 1")
    }
    assert [name(pid) for pid in (bw.boss_pid, server)] == ["bossworker boss", "bossworker fork"]
    assert {name(pid) for pid in bw.worker_pids} == {"bossworker 0", "bossworker 1"}


def test_whoever_replaces_a_worker_is_called_as_it_was(pool: Pool) -> None:
    bw = pool(lambda job: os._exit(1), worker_count=1, name="one")
    bw.add_work({})
    list(bw.results())
    wait_for(lambda: bw.worker_pids)
    assert title(bw.worker_pids[0]) == "bossworker one: worker 0"


def test_the_environment_is_left_alone(pool: Pool) -> None:
    """It is by their environment that commands and what they start are known."""
    bw = pool(lambda job: {}, worker_count=1, name="x" * 100)
    ours = Path("/proc/self/environ").read_bytes()
    assert Path(f"/proc/{bw.worker_pids[0]}/environ").read_bytes() == ours


def test_where_the_kernel_does_not_take_it_there_is_as_much_as_fits() -> None:
    program = """
from bossworker.system import titles
from pathlib import Path
before = Path("/proc/self/cmdline").read_bytes(), Path("/proc/self/environ").read_bytes()
titles._move = lambda *which: False
titles.set_title("short", "bossworker " + "x" * 5000)
after = Path("/proc/self/cmdline").read_bytes(), Path("/proc/self/environ").read_bytes()
assert after[0] == (b"bossworker " + b"x" * 5000)[:len(before[0]) - 1] + b"\\0", after
assert after[1] == before[1]
titles.set_title("short", "y")
assert Path("/proc/self/cmdline").read_bytes().rstrip(b"\\0") == b"y"
"""
    subprocess.run([sys.executable, "-c", program], check=True, env=os.environ | {"PYTHONPATH": os.getcwd()})


def test_it_never_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(titles, "_places", None)
    monkeypatch.setattr(proc, "is_ours", lambda: 1 / 0)
    titles.set_title("name", "title")

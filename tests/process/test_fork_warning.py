"""Python's warning of a fork in a program with threads is told of the program's line, so that it is seen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]
THREAD = "import threading; gate = threading.Event(); threading.Thread(target=gate.wait, daemon=True).start()"
PROGRAM = """
from bossworker import BossWorker
from bossworker.forkqueue import ForkQueue
{thread}
with BossWorker(lambda job: job, worker_count=1, start_method={method!r}) as pool:
    pool.add_work({{}})
    pool.get_result()

{then}
"""
IN_A_QUEUE = """
queue = ForkQueue()
if queue.fork() == 0:
    queue.exit()
queue.waitpids()
"""


def said(thread: str = "", method: str = "fork", then: str = "") -> str:
    """What a program says on stderr that starts a pool, perhaps under a thread."""
    text = PROGRAM.format(thread=thread, method=method, then=then)
    ended = subprocess.run(
        [sys.executable, "-", "program"], input=text, capture_output=True, text=True, cwd=PROJECT, check=True
    )
    return ended.stderr


@pytest.mark.skipif(sys.version_info < (3, 12), reason="from Python 3.12 on")
def test_the_warning_names_the_programs_line() -> None:
    assert said(THREAD).startswith("<stdin>:5: DeprecationWarning: This process (pid=")
    lines = [line for line in said(THREAD, "spawn", IN_A_QUEUE).splitlines() if "Warning" in line]
    assert [line.partition(": This")[0] for line in lines] == ["<stdin>:11: DeprecationWarning"]


def test_there_is_none_without_threads_or_without_forks() -> None:
    assert said(then=IN_A_QUEUE) == ""
    assert said(THREAD, "spawn") == ""

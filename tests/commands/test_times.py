"""When a command ran: whatever begins once it has ended, in any process, is told to have begun later."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from bossworker import CommandHandler, jobs
from bossworker.system import program

HELD_UP = 0.2  # seconds, after the program has been started


@pytest.fixture
def slow_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """A busy machine: whoever has started a program goes on when that has long been running."""
    start = program.start

    def start_and_wait(*args: Any, **settings: Any) -> int:
        pid = start(*args, **settings)
        time.sleep(HELD_UP)
        return pid

    monkeypatch.setattr(program, "start", start_and_wait)


@pytest.mark.usefixtures("slow_start")
def test_a_direct_call(tmp_path: Path) -> None:
    before = time.time()
    result = CommandHandler(root=tmp_path, keep="all")({"cmd": ["date", "+%s.%N"]})
    after = time.time()
    info = jobs.info(result["jobid"], root=tmp_path)
    assert info is not None
    assert info.started_at is not None
    assert info.ended_at is not None
    assert before <= info.started_at <= float(result["stdout"]) <= info.ended_at <= after
    assert info.elapsed == pytest.approx(info.ended_at - info.started_at, abs=1e-6)

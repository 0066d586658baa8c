"""``progress=True``: a bar where somebody can see it."""

from __future__ import annotations

import asyncio
import importlib.util
import io
import os
import pty
import re
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any

import pytest

from bossworker import AsyncBossWorker, BossWorker, current_job
from bossworker.watch.progress_bar import told_of
from tests.conftest import wait_for

Pool = Callable[..., BossWorker]
needs_tqdm = pytest.mark.skipif(importlib.util.find_spec("tqdm") is None, reason="tqdm is not installed")

PROGRAM = """
import sys, time
if {no_tqdm}:
    sys.modules["tqdm"] = sys.modules["tqdm.auto"] = None
import bossworker

def act(job):
    if {tells}:
        for n in range(3):
            bossworker.current_job().progress(n, 3, "st\\x1bp " + "z" * 200)
            time.sleep(0.4)
        return
    time.sleep(0.03)
    if job["n"] == 3:
        raise ValueError
    if {prints}:
        print("line", job["n"])

with bossworker.BossWorker(act, worker_count=2, logs="relay") as bw:
    jobs = [{{"n": n}} for n in range(2 if {tells} else 20)]
    if {mapped}:
        results = list(bw.map(jobs, progress={progress}))
    else:
        bw.add_work(*jobs)
        results = list(bw.results(progress={progress}))
    assert len(results) == len(jobs)
"""


def run(terminal: bool, columns: int = 80, **settings: Any) -> tuple[str, str]:
    """Stdout, and what is seen on stderr: in a terminal, or a file."""
    program = PROGRAM.format(
        **{"no_tqdm": True, "mapped": True, "progress": True, "prints": False, "tells": False, **settings}
    )
    if not terminal:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        return done.stdout, done.stderr
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, columns))
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=theirs) as process:
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 65536):
                seen += data
        except OSError:  # the other end is closed
            pass
        assert process.stdout is not None
        out = process.stdout.read().decode()
    os.close(ours)
    assert process.returncode == 0, seen
    return out, seen.decode()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_line_on_a_terminal(mapped: bool) -> None:
    _, seen = run(True, mapped=mapped)
    assert re.search(r"\r20/20 100% jobs, [\d.e+]+/s, 1 failed\x1b\[K\r?\n$", seen)
    assert re.search(r"\r0/20 0% jobs", seen)
    assert re.search(r"\r\d+/20 \d+% jobs, [\d.e+]+/s, [01] failed, 0:0\d left", seen)


@pytest.mark.parametrize("tells", [True, False])
def test_a_narrow_terminal_is_kept_to(tells: bool) -> None:
    """What is longer than a line of it is never painted over: each repaint would leave a line behind."""
    _, seen = run(True, columns=30, tells=tells)
    painted = re.findall(r"\r([^\r\n]*?)\x1b\[K", seen)
    assert len(painted) > 2
    assert max(map(len, painted)) == 29


@needs_tqdm
def test_tqdm_where_it_is_installed() -> None:
    _, seen = run(True, no_tqdm=False)
    assert re.search(r"20/20 .*job/s, failed=1\]", seen)


@pytest.mark.parametrize("no_tqdm", [True, pytest.param(False, marks=needs_tqdm)])
def test_what_is_printed_does_not_break_the_bar(no_tqdm: bool) -> None:
    out, seen = run(True, prints=True, no_tqdm=no_tqdm)
    assert sorted(out.split()) == sorted(" ".join(f"line {n}" for n in range(20) if n != 3).split())
    assert "20/20" in seen


@needs_tqdm
@pytest.mark.filterwarnings("ignore:IProgress not found")
def test_a_bar_in_a_notebook_without_widgets(monkeypatch: pytest.MonkeyPatch) -> None:
    class OutStream(io.StringIO):
        """What a kernel has in the place of stderr, as far as it matters."""

    OutStream.__module__ = "ipykernel.iostream"
    shown = OutStream()
    monkeypatch.setattr(sys, "stderr", shown)
    with BossWorker(lambda job: None, worker_count=0) as bw:
        assert len(list(bw.map([{}] * 5, progress=True))) == 5
    assert "5/5" in shown.getvalue()


@pytest.mark.parametrize("no_tqdm", [True, pytest.param(False, marks=needs_tqdm)])
def test_nothing_where_there_is_no_terminal(no_tqdm: bool) -> None:
    assert run(False, no_tqdm=no_tqdm) == ("", "")


@pytest.mark.parametrize("no_tqdm", [True, pytest.param(False, marks=needs_tqdm)])
def test_a_line_now_and_then_where_that_is_asked_for(no_tqdm: bool) -> None:
    _, seen = run(False, progress=0.05, no_tqdm=no_tqdm)
    lines = seen.splitlines()
    assert 1 <= len(lines) <= 20
    assert all(re.fullmatch(r"\d+/20 \d+% jobs, [\d.e+]+/s, [01] failed(, 0:0\d left)?", line) for line in lines)


@pytest.mark.parametrize("mapped", [True, False])
def test_what_jobs_say_of_their_progress_on_a_terminal(mapped: bool) -> None:
    _, seen = run(True, mapped=mapped, tells=True)
    lines = [line.removesuffix("\x1b[K") for line in seen.split("\r")]
    for n in range(3):
        assert any(re.search(rf"^0/2 0% jobs, 0/s, 0 failed, job 1: {n}/3 st p z+", line) for line in lines)
    assert any(", job 2: " in line for line in lines)
    assert max(map(len, lines)) < 80
    assert len(lines) < 40, "painted ten times a second at most"
    assert re.search(r"\r2/2 100% jobs, [\d.e+]+/s, 0 failed\x1b\[K\r?\n$", seen)


@needs_tqdm
def test_what_jobs_say_of_their_progress_by_tqdm() -> None:
    _, seen = run(True, no_tqdm=False, tells=True)
    assert re.search(r"0/2 .*job 1: 2/3", seen)
    assert re.search(r"2/2 \[[^\r]*(job/s|s/job)\]\r?\n$", seen)


def test_what_jobs_say_of_their_progress_where_there_is_no_terminal() -> None:
    _, seen = run(False, progress=0.2, tells=True)
    assert re.search(r"^0/2 0% jobs, 0/s, 0 failed, job 1: 2/3 st p z+, job 2: ", seen, re.MULTILINE)


def test_of_many_jobs_a_few_are_told() -> None:
    said = [(n, (1.5, 2.0, "")) for n in reversed(range(9))]
    assert told_of([]) == ""
    assert told_of([(7, (3, None, "a\nb"))]) == "job 7: 3 a b"
    assert told_of(said) == "job 0: 1.5/2, job 1: 1.5/2, job 2: 1.5/2, 6 more"


def test_an_iterable_without_a_length(pool: Pool, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    bw = pool(lambda job: job, worker_count=1)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert len(list(bw.map(({"n": n} for n in range(5)), progress=True, ordered=False))) == 5
    assert re.search(r"\r5 jobs, [\d.e+]+/s, 0 failed\x1b\[K\n$", capsys.readouterr().err)


def test_a_map_that_is_closed_early_cancels_its_jobs(pool: Pool) -> None:
    bw = pool(lambda job: job, worker_count=1)
    results = bw.map([{"n": n} for n in range(100)], progress=True)
    next(results)
    results.close()
    wait_for(lambda: not bw.pending())


def test_from_an_event_loop(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def echo(job: dict[str, int]) -> dict[str, int]:
        return job

    async def main() -> int:
        async with AsyncBossWorker(echo, worker_count=1) as pool:
            return len([result async for result in pool.map([{"n": n} for n in range(5)], progress=True)])

    assert asyncio.run(main()) == 5
    assert "5/5 100% jobs" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("value", "error"), [("yes", TypeError), (-1, ValueError), (0, ValueError), (float("nan"), ValueError)]
)
def test_the_parameter_is_checked(pool: Pool, value: Any, error: type[Exception]) -> None:
    bw = pool(lambda job: job, worker_count=1)
    with pytest.raises(error, match="progress must be"):
        bw.map([], progress=value)
    with pytest.raises(error, match="progress must be"):
        bw.results(progress=value)


def test_what_jobs_say_of_their_progress_on_a_loop(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    for name in ("tqdm", "tqdm.auto"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)

    def step(job: dict[str, int]) -> None:
        current = current_job()
        assert current is not None
        current.progress(1, 2)
        time.sleep(0.8)

    async def main() -> int:
        async with AsyncBossWorker(step, worker_count=1) as pool:
            return len([result async for result in pool.map([{"n": 1}], progress=True)])

    assert asyncio.run(main()) == 1
    assert "\r0/1 0% jobs, 0/s, 0 failed, job 1: 1/2\x1b[K" in capsys.readouterr().err

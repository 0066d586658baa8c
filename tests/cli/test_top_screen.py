"""``top`` on a whole terminal, driven by Textual's own pilot."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, current_job
from tests.cli.conftest import Cli
from tests.conftest import wait_for

pytest.importorskip("textual")

from textual.widgets import RichLog

from bossworker.cli.top_screen import BoardTable, Question, TextScreen, Top

pytestmark = pytest.mark.usefixtures("all_leave")

Make = Callable[..., BossWorker]
Act = Callable[[Top, Any], Awaitable[None]]


def work(job: dict[str, Any]) -> dict[str, Any]:
    current_job().progress(1, 2, "half")  # type: ignore[union-attr]
    if job.get("say"):
        print(job["say"])
        wait_for(Path(job["until"]).exists)
        print("last")
    if job.get("sleep"):
        time.sleep(job["sleep"])
    if job.get("unless") and not os.path.exists(job["unless"]):
        raise FileNotFoundError(job["unless"])
    return {}


@pytest.fixture
def mill(pool: Make) -> BossWorker:
    bw = pool(work, worker_count=2, name="mill")
    bw.listen()
    return bw


def drive(act: Act, size: tuple[int, int] = (80, 24)) -> None:
    """Show it on a screen of this size, and do something there."""

    async def run() -> None:
        app = Top(0.1)
        async with app.run_test(size=size) as pilot:
            await act(app, pilot)

    asyncio.run(run())


async def until(pilot: Any, condition: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + 30
    while not (found := condition()):
        assert time.monotonic() < deadline, "waited in vain"
        await pilot.pause(0.02)
    return found


def table(app: Top, name: str) -> BoardTable:
    found: BoardTable = app.screen_stack[0].query_one(f"#{name}", BoardTable)
    return found


def text_of(app: Top) -> str:
    return "\n".join(line.text for line in app.screen.query_one(RichLog).lines)


def test_it_shows_what_there_is_and_follows_it(mill: BossWorker) -> None:
    async def act(app: Top, pilot: Any) -> None:
        await until(pilot, lambda: table(app, "pools").row_count == 1)
        assert table(app, "workers").row_count == 2
        assert not table(app, "entries").display  # there is a hint instead
        mill.add_work({"sleep": 60})
        await until(pilot, lambda: any("half" in str(table(app, "workers").get_row_at(n)[-1]) for n in range(2)))
        mill.resize(3)
        await until(pilot, lambda: table(app, "workers").row_count == 3)
        mill.shut_down(force=True)
        await until(pilot, lambda: not table(app, "pools").display)

    drive(act)


def test_keys_act_on_the_row_that_is_chosen(mill: BossWorker, here: Path) -> None:
    mill.add_work({"sleep": 60}, {"sleep": 60})
    wait_for(lambda: mill.stats().running == 2)

    async def act(app: Top, pilot: Any) -> None:
        await until(pilot, lambda: app.focused is table(app, "pools") and table(app, "pools").row_count)
        await pilot.press("p")
        await until(pilot, lambda: mill.stats().paused)
        await pilot.press("s")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and text_of(app).count("in work") == 2)
        await pilot.press("escape", "tab", "down", "k")  # the second worker
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("n")
        assert mill.get_result_nb() is None
        job_id = table(app, "workers").chosen.job_id  # type: ignore[union-attr]
        await pilot.press("k")
        await until(pilot, lambda: isinstance(app.screen, Question))
        await pilot.press("y")
        result = await until(pilot, mill.get_result_nb)
        assert (result.job_id, result.error_kind) == (job_id, "cancelled")

    drive(act)


def test_failed_jobs_are_seen_and_run_again(mill: BossWorker, here: Path) -> None:
    mill.add_work({"unless": str(here / "x")})
    list(mill.results())
    (here / "x").touch()

    async def act(app: Top, pilot: Any) -> None:
        await until(pilot, lambda: app.focused is table(app, "pools") and table(app, "pools").row_count)
        await pilot.press("l")
        await until(
            pilot, lambda: isinstance(app.screen, TextScreen) and f"FileNotFoundError: {here}/x" in text_of(app)
        )
        await pilot.press("escape", "r")
        await until(pilot, lambda: mill.stats().done == 1)

    drive(act)


def test_what_a_worker_s_job_prints_comes_as_it_is_printed(pool: Make, here: Path) -> None:
    bw = pool(work, worker_count=1, name="mill", logs="relay")
    bw.listen()
    bw.add_work({"say": "first\x1b[2J", "until": str(here / "go")})

    async def act(app: Top, pilot: Any) -> None:
        workers = table(app, "workers")
        await until(pilot, lambda: app.focused is table(app, "pools") and workers.row_count)
        await pilot.press("tab")
        await until(pilot, lambda: workers.chosen is not None and workers.chosen.job_id == 1)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and text_of(app).rstrip() == "first?[2J")
        (here / "go").touch()
        await until(pilot, lambda: text_of(app).split() == ["first?[2J", "last"])

    drive(act)


def test_where_nothing_is_known_of_what_a_job_prints_that_is_said(pool: Make) -> None:
    bw = pool(work, worker_count=1, name="mill")
    bw.listen()
    bw.add_work({"sleep": 60})

    async def act(app: Top, pilot: Any) -> None:
        workers = table(app, "workers")
        await until(pilot, lambda: app.focused is table(app, "pools") and workers.row_count)
        await pilot.press("tab")
        await until(pilot, lambda: workers.chosen is not None and workers.chosen.job_id == 1)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and 'logs="inherit"' in text_of(app))

    drive(act)


def test_the_log_of_a_job_comes_as_it_is_written(cli: Cli, here: Path) -> None:
    script = "echo first; echo oops >&2; while test ! -e go; do sleep 0.01; done; echo second"
    jobid = cli("start", "--name", "talk", "--", "sh", "-c", script).out.strip()

    async def act(app: Top, pilot: Any) -> None:
        await until(pilot, lambda: app.focused is table(app, "entries") and table(app, "entries").row_count)
        await pilot.press("l")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and "oops" in text_of(app))
        assert text_of(app).splitlines()[:2] == ["first", "oops"]
        (here / "go").touch()
        await until(pilot, lambda: "second" in text_of(app))
        await pilot.press("escape")
        await until(pilot, lambda: "completed" in str(table(app, "entries").get_row_at(0)[2]))

    drive(act)
    assert cli("wait", jobid).status == 0


def test_the_cursor_stays_with_its_job_when_others_come(cli: Cli) -> None:
    jobids = [cli("start", "true").out.strip() for _ in range(3)]

    async def act(app: Top, pilot: Any) -> None:
        entries = table(app, "entries")
        await until(pilot, lambda: app.focused is entries and entries.row_count == 3)
        await pilot.press("down")
        assert entries.chosen is not None
        assert entries.chosen.key == jobids[1]
        cli("start", "true")
        await until(pilot, lambda: entries.row_count == 4)
        assert entries.chosen.key == jobids[1]

    drive(act)


@pytest.mark.parametrize("size", [(40, 10), (80, 24), (200, 60)])
def test_it_fits(mill: BossWorker, size: tuple[int, int]) -> None:
    async def act(app: Top, pilot: Any) -> None:
        pools = table(app, "pools")
        await until(pilot, lambda: pools.row_count)
        assert ("PROGRAM" in pools.columns) is (size[0] > 110)
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, TextScreen) and "kill: TERM to a job" in text_of(app))
        await pilot.press("escape", "q")

    drive(act, size)


@pytest.mark.skipif(shutil.which("tmux") is None, reason="tmux is not installed")
def test_in_a_terminal_multiplexer(mill: BossWorker, tmp_path: Path) -> None:
    """As people have it: another program's idea of a terminal, that is made narrower meanwhile."""

    def tmux(*arguments: str, check: bool = True) -> str:
        command = ["tmux", "-f", os.devnull, "-S", str(tmp_path / "tmux"), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=check).stdout

    def shown() -> str:
        return tmux("capture-pane", "-p", "-t", "top", check=False)

    program = shlex.join([sys.executable, "-m", "bossworker", "top"])
    tmux("new-session", "-d", "-s", "top", "-x", "120", "-y", "30", f"{program}; cat")  # which waits when it has ended
    try:
        wait_for(lambda: "POOL" in shown() and "mill" in shown(), 60)
        tmux("resize-window", "-t", "top", "-x", "60", "-y", "20")
        mill.pause()
        wait_for(lambda: "paused" in shown() and "PROGRAM" not in shown(), 60)
        assert max(map(len, shown().splitlines())) <= 60
        tmux("send-keys", "-t", "top", "q")
        wait_for(lambda: "mill" not in shown(), 60)
        assert "Traceback" not in shown()
    finally:
        tmux("kill-server", check=False)

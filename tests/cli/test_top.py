"""``top`` without Textual: what it shows, as rows, tables and JSON."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bossworker import BossWorker, current_job
from bossworker.cli import top_board
from bossworker.cli.entries import EntryError
from bossworker.cli.top import _table
from bossworker.cli.top_board import Board, BoardRow, Picture
from tests.cli.conftest import Cli, start_program
from tests.conftest import wait_for

pytestmark = pytest.mark.usefixtures("all_leave")

Make = Callable[..., BossWorker]


def work(job: dict[str, Any]) -> dict[str, Any]:
    if job.get("say"):
        current_job().progress(3, 7, job["say"])  # type: ignore[union-attr]
    if job.get("sleep"):
        time.sleep(job["sleep"])
    if job.get("unless") and not os.path.exists(job["unless"]):
        raise FileNotFoundError(job["unless"])
    return {}


@pytest.fixture
def board() -> Iterator[Board]:
    made = Board()
    yield made
    made.close()


@pytest.fixture
def mill(pool: Make) -> BossWorker:
    bw = pool(work, worker_count=2, name="mill")
    bw.listen()
    return bw


def cells(row: BoardRow, columns: tuple[str, ...]) -> dict[str, str]:
    return dict(zip(columns, row.cells, strict=True))


def pool_of(picture: Picture) -> dict[str, str]:
    (row,) = picture.pools
    return cells(row, top_board.POOL_COLUMNS)


def test_a_pool_and_its_workers(mill: BossWorker, board: Board) -> None:
    assert board.look().header(80) == "bossworker top   1 pool  2 workers  0 running  0 queued  0 failed"
    mill.add_work({}, {"unless": "/nowhere"}, {"sleep": 60, "say": "grinds\x1b[2J"})
    wait_for(lambda: mill.stats().done == mill.stats().failed == mill.stats().running == 1)
    picture = board.look()
    assert picture.header(80) == "bossworker top   1 pool  2 workers  1 running  0 queued  1 failed"
    shown = pool_of(picture)
    wanted = {"POOL": "mill", "STATE": "busy", "WORK": "2", "RUN": "1", "QUEUED": "0", "DONE": "1", "FAILED": "1"}
    assert wanted.items() <= shown.items()
    assert shown["MEM"].endswith("M")
    assert shown["CPU"].endswith("%")
    assert shown["RATE"].endswith("/s")
    rows = [cells(row, top_board.WORKER_COLUMNS) for row in picture.workers]
    assert [row["#"] for row in rows] == ["0", "1"]
    (busy,) = (row for row in rows if row["STATE"] == "busy")
    assert (busy["JOB"], busy["PROGRESS"]) == ("3", "3/7  grinds?[2J")
    assert int(busy["PID"]) in mill.worker_pids
    mill.pause()
    assert pool_of(board.look())["STATE"] == "paused"
    mill.shut_down(force=True)
    picture = board.look()
    assert (picture.pools, picture.workers) == ([], [])


def test_a_pool_that_does_not_answer_is_told_of_and_asked_again_later(pool: Make, board: Board) -> None:
    door = pool(work, worker_count=1, name="stuck").listen()
    board.look()
    os.kill(door.pid, signal.SIGSTOP)
    try:
        shown = pool_of(board.look())
        assert (shown["POOL"], shown["STATE"], shown["RUN"]) == ("stuck", "no answer", "-")
        begin = time.monotonic()
        board.look()
        assert time.monotonic() - begin < top_board.ANSWER_SECONDS  # not asked again so soon
    finally:
        os.kill(door.pid, signal.SIGCONT)
    wait_for(lambda: pool_of(board.look())["STATE"] == "idle")


def test_jobs_are_shown_and_those_that_have_ended_are_not_read_again(
    cli: Cli, board: Board, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed, running = (cli("start", *words).out.strip() for words in (["false"], ["--name", "long", "sleep", "600"]))
    cli("wait", failed)
    wait_for(lambda: cli("wait", running, "--timeout", "0", "--json").out.count('"running"'))
    rows = {row.key: row for row in board.look().entries}
    assert cells(rows[failed], top_board.ENTRY_COLUMNS)["STATE"] == "failed (1)"
    assert (rows[failed].mood, rows[running].mood) == ("failed", "busy")
    assert rows[running].cells[1] == "long"
    read: list[str] = []
    monkeypatch.setattr("bossworker.jobs.info", read.append)
    assert [row.key for row in board.look().entries] == [failed]
    assert read == [running]


@pytest.mark.usefixtures("all_leave")
def test_a_name_stays_on_its_line(cli: Cli, board: Board) -> None:
    cli("start", "--name", "a\n\x1b[31mb", "true")
    assert board.look().entries[0].cells[1] == "a??[31mb"


def test_what_keys_do(cli: Cli, mill: BossWorker, board: Board, here: Path) -> None:
    mill.add_work({"sleep": 60}, {"sleep": 60}, {"sleep": 60}, {"unless": str(here / "x")}, {})
    wait_for(lambda: mill.stats().running == 2)
    picture = board.look()
    (row,) = picture.pools
    worker = picture.workers[0]
    wait_for(lambda: top_board.stack_of(row).count("in work") == 2)  # they say that they have jobs before they call it
    assert "in work" in top_board.stack_of(worker)
    assert top_board.pause(row) == "paused pool mill"
    assert top_board.kill(worker) == f"cancelled job {worker.job_id} of mill"
    assert mill.get_result().job_id == worker.job_id
    assert top_board.pause(row) == "resumed pool mill"
    wait_for(lambda: mill.stats().running == 2)
    assert f"job {worker.job_id}  BossWorkerAsync: cancelled" in top_board.failures(row.entry)  # type: ignore[arg-type]
    assert top_board.kill(row) == "cancelled all jobs of mill"
    assert {result.error_kind for result in mill.results()} == {"cancelled"}
    mill.add_work({"unless": str(here / "x")})
    list(mill.results())
    told = top_board.failures(row.entry)  # type: ignore[arg-type]
    assert f"job 6  FileNotFoundError: {here}/x" in told.splitlines()[0]
    assert 'raise FileNotFoundError(job["unless"])' in told
    (here / "x").touch()
    assert top_board.retry(row) == "runs the failed jobs of mill again"
    wait_for(lambda: mill.stats().done == 1)


def test_what_keys_do_to_a_job(cli: Cli, board: Board) -> None:
    jobid = cli("start", "--name", "nap", "sleep", "600").out.strip()
    wait_for(lambda: board.look().entries[0].cells[2] == "running")
    (row,) = board.look().entries
    wait_for(lambda: top_board.stack_of(row).endswith("sleep 600"))  # at first it is on its way to become that program
    assert top_board.pause(row) == "paused job nap"
    wait_for(lambda: board.look().entries[0].mood == "paused")
    assert top_board.pause(row) == "resumed job nap"
    assert top_board.kill(row) == "sent TERM to job nap"
    cli("wait", jobid)
    for key in (top_board.kill, top_board.stack_of):
        with pytest.raises(EntryError, match="does not run"):
            key(row)
    assert top_board.retry(row).startswith("job nap runs again, as ")
    cli("kill", "-s", "KILL", "all")


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (9_999, "9,999"), (10_000, "10.0k"), (123_456, "123k"), (1_234_567, "1.2M"), (5 * 10**9, "5.0G")],
)
def test_counts_are_short(number: int, text: str) -> None:
    assert top_board.count(number) == text


@pytest.mark.parametrize(
    ("bytes_", "text"), [(0, "-"), (840 << 10, "840K"), (41 << 20, "41M"), (5 << 28, "1.2G"), (20 << 30, "20G")]
)
def test_sizes_are_short(bytes_: int, text: str) -> None:
    assert top_board.size(bytes_) == text


def test_on_a_narrow_screen_the_first_line_still_tells_what_has_failed() -> None:
    figures = ("12 pools", "48 workers", "10.0k running", "123k queued", "12.3k failed")
    picture = Picture(figures, [], [], [])
    whole = f"bossworker top   {'  '.join(figures)}"
    assert picture.header(len(whole)) == whole
    assert picture.header(len(whole) - 1) == whole.removeprefix("bossworker top   ")
    for width in (60, 40, 30, 12):
        assert len(picture.header(width)) <= width
        assert picture.header(width).endswith("12.3k failed")
    assert picture.header(60) == "48 workers  10.0k running  123k queued  12.3k failed"
    assert picture.header(40) == "10.0k running  123k queued  12.3k failed"
    assert picture.header(5) == "12.3k failed"


def test_on_a_narrow_screen_a_long_name_leaves_room_for_the_figures() -> None:
    name = "a-name-that-is-rather-long-for-a-terminal"
    assert top_board.fitted("POOL", name, 80) == "a-name-that-is-…"
    assert top_board.fitted("POOL", name, 200) == "a-name-that-is-rather-long-fo…"
    assert top_board.fitted("POOL", "mill", 80) == "mill"
    assert top_board.fitted("COMMAND", name, 80) == name
    pools = [top_board.POOL_COLUMNS[at] for at in top_board.columns_shown(top_board.POOL_COLUMNS, 80)]
    assert pools == ["POOL", "STATE", "WORK", "RUN", "QUEUED", "DONE", "FAILED", "RATE", "MEM", "CPU"]
    assert "ID" in [top_board.ENTRY_COLUMNS[at] for at in top_board.columns_shown(top_board.ENTRY_COLUMNS, 80)]
    assert len(top_board.columns_shown(top_board.POOL_COLUMNS, 110)) == len(top_board.POOL_COLUMNS)


@pytest.mark.parametrize("width", [110, 80, 60, 40])
def test_how_many_jobs_have_failed_is_on_every_screen(width: int) -> None:
    figures = ("2/3", "12", "123k", "123k", "77.7k", "123k/s", "9.9G", "123%", "work.py")
    row = BoardRow("1", ("a-name-that-is-rather-long", "1234567", "paused", *figures), "busy", None)
    titles, cells = _table(top_board.POOL_COLUMNS, [row], width)
    assert titles[:width].split().count("FAILED") == 1
    assert "77.7k" in cells[:width]


def test_tables_are_printed_where_there_is_no_terminal(cli: Cli, mill: BossWorker) -> None:
    jobid = cli("start", "--name", "nap", "true").out.strip()
    cli("wait", jobid)
    said = cli("top", "-n", "2", "-i", "0.1")
    assert (said.status, said.err) == (0, "")
    assert "\x1b" not in said.out
    lines = said.out.splitlines()
    assert lines.count("bossworker top   1 pool  2 workers  0 running  0 queued  0 failed") == 2
    assert lines[2].split() == list(top_board.POOL_COLUMNS)
    assert any(line.startswith("mill ") for line in lines)
    assert any(line.split()[1:3] == ["nap", "completed"] for line in lines if line)
    (told,) = map(json.loads, cli("top", "-n", "1", "--json").out.splitlines())
    assert told["pools"][0]["pool"] == "mill"
    assert len(told["workers"]) == 2
    assert told["entries"][0]["key"] == jobid


def test_ctrl_c_ends_it(root: Path, here: Path) -> None:
    program = start_program("top", "-i", "0.1")
    assert program.stdout is not None
    assert program.stdout.readline().startswith("bossworker top")
    program.send_signal(signal.SIGINT)
    _, err = program.communicate(timeout=60)
    assert (program.returncode, err) == (130, "")

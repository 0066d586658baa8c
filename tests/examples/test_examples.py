"""The examples, run on real input; what they say is checked against what is computed here."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pty
import runpy
import select
import shlex
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import pytest

from bossworker import TIMED_OUT
from tests.conftest import wait_for
from tests.examples.runner import PROJECT, SECONDS, check_clean, check_refused, command, environment, run

CHECKSUM_TREE = PROJECT / "examples" / "checksum_tree.py"
POLLING_LOOP = PROJECT / "examples" / "polling_loop.py"
FLAKY_HANDLER = PROJECT / "examples" / "flaky_handler.py"
TASK_BOARD = PROJECT / "examples" / "task_board.py"

CONTENTS = {
    "empty": b"",
    "one line": b"a line\n",
    "no newline at the end": b"a\nb\nc",
    "line\nbreak": b"in its name\n",
    "größer ☃": "größer\n".encode(),
    os.fsdecode(b"not utf-8 \xff"): b"\xff\xfe\n\n",
    "below/and/further down": bytes(range(256)) * 10_000,  # several chunks
}


def facts(content: bytes) -> tuple[int, int, str]:
    """What checksum_tree should find."""
    return len(content), content.count(b"\n"), hashlib.sha256(content).hexdigest()


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "tree"
    for name, content in CONTENTS.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


# -- checksum_tree --------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [1, 3])
def test_checksums_are_those_of_the_files(tree: Path, tmp_path: Path, workers: int) -> None:
    report = tmp_path / "report.json"
    ended = run(CHECKSUM_TREE, tree, "--workers", workers, "--json", report)
    check_clean(ended)
    told = json.loads(report.read_text())
    found = {one["path"]: (one["bytes"], one["lines"], one["sha256"]) for one in told["files"]}
    assert found == {name: facts(content) for name, content in CONTENTS.items()}
    assert told["failures"] == []
    assert told["workers"] == workers
    assert told["bytes"] == sum(map(len, CONTENTS.values()))
    assert f"7 files, 2.6 MB, {told['lines']:,} lines; 0 failed" in ended.stdout
    assert f"with {workers} workers" in ended.stdout


def test_table_lists_the_slowest_files_first(tree: Path) -> None:
    table = run(CHECKSUM_TREE, tree, "--slowest", 3).stdout.splitlines()
    assert table[0] == f"every file under {tree}"
    assert table[1].split() == ["seconds", "bytes", "lines", "sha256", "slowest", "files"]
    seconds = [float(line.split()[0]) for line in table[2:5]]
    assert seconds == sorted(seconds, reverse=True)
    assert len(table) == 2 + 3 + 2


def test_the_standard_library_without_what_is_installed_in_it(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other folders are read with all that is below them."""
    (tree / "site-packages").mkdir()
    (tree / "site-packages" / "more").write_bytes(b"")
    assert "\n8 files" in run(CHECKSUM_TREE, tree).stdout
    monkeypatch.syspath_prepend(CHECKSUM_TREE.parent)
    example = runpy.run_path(str(CHECKSUM_TREE))
    jobs = example["find_jobs"](example["Summary"](str(tree), example["INSTALLED"]))
    assert len(list(jobs)) == 7
    with subprocess.Popen(command(CHECKSUM_TREE), stdout=-1, env=environment(), text=True) as program:
        assert program.stdout is not None
        folder = sysconfig.get_path("stdlib")
        assert program.stdout.readline() == f"every file under {folder}, without site-packages and dist-packages\n"
        program.kill()


def test_the_first_line_in_a_log_comes_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(CHECKSUM_TREE.parent)
    example = runpy.run_path(str(CHECKSUM_TREE))
    now, log = [100.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    progress = example["Progress"](log)
    shown = []
    for _ in range(120):
        now[0] += 0.1
        progress.show(example["Summary"]("/"))
        shown.append(log.getvalue().count("\n"))
    assert shown.index(1) < 10
    assert shown[-1] == 1 + 11 // 5


def test_names_that_would_upset_a_terminal_are_escaped(tree: Path) -> None:
    table = run(CHECKSUM_TREE, tree).stdout
    assert r"'line\nbreak'" in table
    assert r"'not utf-8 \udcff'" in table
    assert "größer ☃" in table


def test_what_cannot_be_read_is_listed_and_the_rest_goes_on(tree: Path) -> None:
    expected = {
        "dangling": "FileNotFoundError",  # as a file that vanished after it was found
        "pipe": "not a regular file",
        "circle": "Too many levels",
        "secret": "PermissionError",
    }
    (tree / "dangling").symlink_to(tree / "gone")
    (tree / "circle").symlink_to(tree / "circle")
    os.mkfifo(tree / "pipe")
    if os.geteuid():  # nothing is forbidden to root
        (tree / "secret").write_bytes(b"?")
        (tree / "secret").chmod(0)
    else:
        del expected["secret"]
    ended = run(CHECKSUM_TREE, tree)
    check_clean(ended)
    failed = [line for line in ended.stdout.splitlines() if line.startswith("failed (exception): ")]
    assert len(failed) == len(expected)
    for name, reason in expected.items():
        assert any(f" {name}: " in line and reason in line for line in failed), (name, failed)
    assert f"7 files, 2.6 MB, {lines_in_all():,} lines; {len(expected)} failed" in ended.stdout


def lines_in_all() -> int:
    return sum(content.count(b"\n") for content in CONTENTS.values())


def test_progress_is_one_line_on_a_terminal(tree: Path) -> None:
    screen, terminal = os.openpty()
    with open(screen, "rb", buffering=0) as shown:
        try:
            ended = run(CHECKSUM_TREE, tree, stderr=terminal)
        finally:
            os.close(terminal)
        text = shown.read(1 << 16).decode()
    assert ended.returncode == 0
    assert text.startswith("\r")
    assert text.endswith(f"7 files, 2.6 MB, {lines_in_all():,} lines; 0 failed\x1b[K\r\n")
    assert text.count("\n") == 1


def test_a_package_of_the_standard_library(tmp_path: Path) -> None:
    folder = Path(json.__file__).parent
    report = tmp_path / "report.json"
    check_clean(run(CHECKSUM_TREE, folder, "--json", report))
    sums = {one["path"]: one["sha256"] for one in json.loads(report.read_text())["files"]}
    for name in ("__init__.py", "decoder.py", "encoder.py"):
        assert sums[name] == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_an_empty_folder(tmp_path: Path) -> None:
    ended = run(CHECKSUM_TREE, tmp_path)
    check_clean(ended)
    assert "0 files, 0.0 MB, 0 lines; 0 failed" in ended.stdout


def test_what_is_wrong_on_the_command_line(tmp_path: Path) -> None:
    for args, message in (
        ([tmp_path / "nowhere"], f"no such folder: {tmp_path / 'nowhere'}"),
        ([CHECKSUM_TREE], f"no such folder: {CHECKSUM_TREE}"),
        ([tmp_path, "--json", tmp_path / "no" / "report"], "--json: [Errno 2] No such file or directory"),
    ):
        check_refused(run(CHECKSUM_TREE, *args), message)


# -- polling_loop ---------------------------------------------------------------------------------------


@contextmanager
def started(*args: object) -> Iterator[subprocess.Popen[str]]:
    """polling_loop.py with pipes to it and from it."""
    pipe = subprocess.PIPE
    program = subprocess.Popen(
        command(POLLING_LOOP, *args), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=environment()
    )
    with program:
        try:
            yield program
        finally:
            program.kill()


def tell(program: subprocess.Popen[str], text: str) -> None:
    assert program.stdin is not None
    program.stdin.write(text)
    program.stdin.flush()


def hear(stream: IO[str] | None) -> str:
    """A line, which must come while the input is still open."""
    assert stream is not None
    return stream.readline().rstrip()


def test_results_come_while_the_input_stays_open() -> None:
    with started("--workers", 2) as program:
        tell(program, "1000\n")
        assert hear(program.stdout).startswith("job 1: 168 primes below 1000,")
        tell(program, "rattle\n")
        assert "a number from 2 to 100000000, or q, please; not 'rattle'" in hear(program.stdout)
        tell(program, "1")
        tell(program, "0\n2\n")
        answers = {hear(program.stdout).partition(",")[0] for _ in range(2)}
        assert answers == {"job 2: 4 primes below 10", "job 3: 0 primes below 2"}
        rest, errors = program.communicate(timeout=SECONDS)
        assert rest.startswith("the end after ")
        assert rest.endswith(" ticks; jobs left: 0\n")
        assert (program.returncode, errors) == (0, "")


def test_q_leaves_at_once() -> None:
    ended = run(POLLING_LOOP, input="50000000\nq\n1000\n")
    check_clean(ended)
    assert ended.stdout.endswith("jobs left: 1\n")


def check_three_jobs(ended: subprocess.CompletedProcess[str]) -> None:
    check_clean(ended)
    *jobs, end = ended.stdout.splitlines()
    assert {line.partition(",")[0] for line in jobs} == {
        "job 1: 168 primes below 1000",
        "job 2: 303 primes below 2000",
        "job 3: 430 primes below 3000",
    }
    assert end.endswith("jobs left: 0")


def test_ends_by_itself_without_input() -> None:
    check_three_jobs(run(POLLING_LOOP, "--jobs", 3))


def test_input_from_a_plain_file(tmp_path: Path) -> None:
    (tmp_path / "input").write_text("2000\n3000")  # no newline at the end
    with open(tmp_path / "input") as file:
        check_three_jobs(run(POLLING_LOOP, "--jobs", 1, stdin=file))


def test_counter_on_a_terminal() -> None:
    screen, terminal = pty.openpty()
    program = subprocess.Popen(
        command(POLLING_LOOP), stdin=terminal, stdout=terminal, stderr=terminal, env=environment()
    )
    os.close(terminal)
    with program, open(screen, "r+b", buffering=0) as shown:
        try:
            seen = read_until(shown, lambda text: "ticks, 0 jobs pending" in text)
            shown.write(b"1000\n")
            seen += read_until(shown, lambda text: "168 primes below 1000" in text)
            shown.write(b"q\n")
            assert program.wait(SECONDS) == 0
        finally:
            program.kill()
    assert "\r\x1b[K" in seen


def read_until(stream: IO[bytes], enough: Callable[[str], bool]) -> str:
    seen = ""
    deadline = time.monotonic() + SECONDS
    while not enough(seen):
        assert select.select([stream], [], [], deadline - time.monotonic())[0], seen
        seen += os.read(stream.fileno(), 4096).decode()
    return seen


# -- flaky_handler --------------------------------------------------------------------------------------


def test_every_fault_has_its_result_and_the_pool_works_on() -> None:
    ended = run(FLAKY_HANDLER)
    check_clean(ended)
    rows = dict(line.split(maxsplit=1) for line in ended.stdout.splitlines() if "attempts: " in line)
    told = {name: row.replace("attempts: ", "").split(maxsplit=2) for name, row in rows.items()}
    assert told == {
        "fail": ["exception", "1", "RuntimeError: not my day"],
        "hang": ["timeout", "1", TIMED_OUT],
        "ignore_timeout": ["timeout", "1", TIMED_OUT],
        "crash": ["crash", "2", "BossWorkerAsync: worker died (signal 11, SIGSEGV)"],
        "leave": ["crash", "1", "BossWorkerAsync: worker died (exit code 3)"],
        "exhaust_memory": ["exception", "1", "MemoryError"],
        "return_nonsense": ["bad_result", "1", "BossWorkerAsync: the handler returned an int, not a mapping or None"],
        "work_well": ["ok", "1", "{'answer': 42}"],
    }
    assert "ValueError: invalid literal" in ended.stdout  # the cause, in the traceback
    done, failed, replaced, now = (int(part.split()[0]) for part in ended.stdout.splitlines()[-1].split(", "))
    assert (done, failed, now) == (1, 7, 2)
    assert replaced >= 4


# -- task_board -----------------------------------------------------------------------------------------


def board(pool: Path, *args: object) -> str:
    ended = run(TASK_BOARD, "--pool", pool, *args)
    check_clean(ended)
    return ended.stdout


def rows(pool: Path) -> dict[str, list[str]]:
    return {row.split()[1]: row.split() for row in board(pool, "list").splitlines()[1:]}


def test_tasks_started_in_one_terminal_are_steered_from_another(tree: Path, tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    large = tree / "large"
    large.write_bytes(bytes(200_000))
    try:
        started = dict(line.split(": task ") for line in board(pool, "start", tree).splitlines())
        assert set(started) == {"compress", "find", "count"}
        found = board(pool, "tail", started["find"])
        assert {line.rpartition(f"{tree}/")[2] for line in found.splitlines()} == {"large", "below/and/further down"}
        board(pool, "pause", "count")
        assert rows(pool)["count"][2] == "paused"
        board(pool, "resume", "count")
        assert rows(pool)["count"][2] == "running"
        assert int(board(pool, "tail", "compress").removesuffix(" bytes\n")) > 1_000_000
        wait_for(lambda: rows(pool)["compress"][2] == "completed")
        board(pool, "end", "count")
        assert rows(pool)["count"][2:4] == ["terminated", "by"]
        assert set(board(pool, "resume", "all").splitlines()) == {f"{name}: not running" for name in started}
        assert "primes below 20000" in board(pool, "tail", "count")
    finally:
        board(pool, "delete", "all")
    assert rows(pool) == {}
    assert list(pool.iterdir()) == []


def test_what_the_board_does_not_know(tmp_path: Path) -> None:
    ended = run(TASK_BOARD, "--pool", tmp_path, "pause", "nothing")
    assert (ended.returncode, ended.stderr) == (1, f"no task 'nothing' in {tmp_path}\n")
    ended = run(TASK_BOARD, "--pool", tmp_path / "nowhere", "list")
    assert ended.returncode == 1
    assert ended.stderr.startswith("task_board: ")
    assert "no such pool" in ended.stderr
    assert not (tmp_path / "nowhere").exists()


def test_who_has_read_enough_of_a_tasks_output(tree: Path, tmp_path: Path) -> None:
    board(tmp_path / "pool", "start", tree)
    tail = shlex.join(map(str, command(TASK_BOARD, "--pool", tmp_path / "pool", "tail", "count")))
    try:
        ended = subprocess.run(
            ["sh", "-c", f"{tail} | head -n 1"], env=environment(), capture_output=True, text=True, check=True
        )
        assert ended.stdout.endswith("primes below 20000\n")
        assert ended.stderr == ""
    finally:
        board(tmp_path / "pool", "delete", "all")

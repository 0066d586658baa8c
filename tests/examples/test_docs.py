"""The README and the pages of docs/ keep their word: what they show is run, and prints what they say."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.examples.blocks import RUN, Block, blocks_of, fits, same_lines
from tests.examples.runner import PROJECT, environment

pytestmark = pytest.mark.once("the text of pages: what they call has tests of its own")
PAGES = [PROJECT / "README.md", *sorted((PROJECT / "docs").rglob("*.md"))]
SECONDS = 60.0
MARK = "\x1e"  # between what one command of a console block prints and the next


class Runner:
    """A process that runs one Python block after the other."""

    def __init__(self, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", str(PROJECT / "tests" / "examples" / "block_runner.py")],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=folder, env=surroundings(folder),
        )  # fmt: skip

    def run(self, script: Path) -> tuple[int, str, str]:
        assert self._process.stdin
        assert self._process.stdout
        print(script, file=self._process.stdin, flush=True)
        status, stdout, stderr = json.loads(self._process.stdout.readline())
        return status, stdout, stderr

    def close(self) -> None:
        self._process.communicate()


def surroundings(folder: Path) -> dict[str, str]:
    """A home of its own, with the commands that pages use on the PATH."""
    programs = folder / ".programs"
    if not programs.exists():
        programs.mkdir()
        for name, module in (("python", ""), ("python3", ""), ("bossworker", "-m bossworker")):
            (programs / name).write_text(f'#!/bin/sh\nexec "{sys.executable}" {module} "$@"\n')
            (programs / name).chmod(0o755)
    run = Path(tempfile.gettempdir(), "run")  # a short path, as those of sockets must be
    run.mkdir(mode=0o700, exist_ok=True)
    return environment() | {
        "XDG_RUNTIME_DIR": str(run),
        "PATH": f"{programs}:{os.environ['PATH']}",
        "HOME": str(folder),
        "XDG_STATE_HOME": str(folder / ".state"),
        "BOSSWORKER_ROOT": str(folder / ".state" / "jobs"),
        "BOSSWORKER_TASKS": str(folder / ".state" / "tasks"),
        "BOSSWORKER_QUEUE_IDLE": "0.2",
        "NO_COLOR": "1",
        "COLUMNS": "120",
    }


@pytest.fixture
def runner(tmp_path: Path) -> Iterator[Runner]:
    one = Runner(tmp_path)
    yield one
    one.close()


def title(page: Path) -> str:
    return str(page.relative_to(PROJECT))


def runnable(page: Path) -> list[Block]:
    return [block for block in blocks_of(page) if block.file or block.language in RUN]


LATER = pytest.mark.thorough("what they call has tests of its own")


def stacks(size: int = 8) -> list[Any]:
    """Pages that share a process: to start one takes longer than most blocks."""
    pages = [page for page in PAGES if runnable(page)]
    parts = [pages[start : start + size] for start in range(0, len(pages), size)]
    return [
        pytest.param(part, id=f"{title(part[0])}...{part[-1].name}", marks=[LATER] if number else [])
        for number, part in enumerate(parts)
    ]


@pytest.mark.parametrize("pages", stacks())
def test_what_pages_show_does_what_they_say(pages: list[Path], tmp_path: Path, runner: Runner) -> None:
    """Block by block, in the order of a page, each page in a folder of its own."""
    wrong = []
    for page in pages:
        folder = tmp_path / page.stem
        folder.mkdir()
        wrong += [complaint for block in runnable(page) if (complaint := complaint_about(block, folder, runner))]
    assert not wrong, "\n\n".join(wrong)


def complaint_about(block: Block, folder: Path, runner: Runner) -> str:
    """What is wrong with a block; nothing, as a rule."""
    if block.missing:
        return ""
    if block.file:
        (folder / block.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / block.file).write_text(block.text)
        return ""
    if block.language == "python":
        return complaint_about_python(block, folder, runner)
    return complaint_about_console(block, folder)


def complaint_about_python(block: Block, folder: Path, runner: Runner) -> str:
    script = folder / f"block_{block.line}.py"
    script.write_text(block.text)
    status, stdout, stderr = runner.run(script)
    if status or stderr:
        return f"{block} exits with {status}:\n{stderr}"
    if not block.prints:
        return f"{block} does not say what it prints: {stdout}"
    lines = stdout.splitlines()
    same = (
        fits("\n".join(block.prints), "\n".join(lines))
        if "in order" in block.notes
        else same_lines(block.prints, lines)
    )
    return "" if same else f"{block} prints:\n{stdout}"


def complaint_about_console(block: Block, folder: Path) -> str:
    pairs = block.commands
    script = "".join(f"{command}__s=$?; printf '{MARK}'; (exit $__s)\n" for command, _ in pairs)
    ended = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=surroundings(folder), text=True, timeout=SECONDS, check=False,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    printed = ended.stdout.split(MARK)[:-1]
    if len(printed) == len(pairs) and all(fits(said, told) for (_, said), told in zip(pairs, printed)):
        return ""
    return f"{block} prints:\n{ended.stdout.replace(MARK, '')}"


def test_what_is_not_run_says_why() -> None:
    """And what is saved as a Python file can be compiled."""
    for block in (block for page in PAGES for block in blocks_of(page)):
        if block.file and block.file.endswith(".py"):
            compile(block.text, str(block), "exec")
        if block.page.name == "README.md":
            assert block.language in ("python", "sh"), block
        elif not block.file and block.language not in RUN:
            assert block.notes.get("not run"), f"{block} ({block.language}) is not run, and does not say why"
        assert not block.missing or "needs" in block.notes


def test_how_lines_are_compared() -> None:
    assert fits("a ... c\n", "a b c\n")
    assert not fits("a ... d\n", "a b c\n")
    assert same_lines(["a", "..."], ["b", "a"])
    assert not same_lines(["a"], ["a", "a"])

"""The README keeps its word: every Python block runs and prints what it says, and the commands are those of the CI."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from bossworker import __all__ as exported
from tests.examples.runner import PROJECT, check_clean, run

README = (PROJECT / "README.md").read_text()
CI = PROJECT / ".ci" / "run"
PRINTS = "# prints: "


def blocks(language: str) -> list[str]:
    """The README's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def section(block: str) -> str:
    """The heading a block stands under."""
    return README[: README.index(block)].rpartition("\n##")[2].partition("\n")[0].strip("# ")


@pytest.mark.parametrize("block", [pytest.param(block, id=section(block)) for block in blocks("python")])
def test_python_block_prints_what_it_says(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Line by line, in whatever order the jobs were done."""
    script = tmp_path / "block.py"
    script.write_text(block)
    promised = [line.removeprefix(PRINTS) for line in block.splitlines() if line.startswith(PRINTS)]
    assert promised, "a block should say what it prints"
    monkeypatch.setenv("BOSSWORKER_ROOT", str(tmp_path / "jobs"))
    ended = run(script, cwd=tmp_path)
    check_clean(ended)
    assert sorted(ended.stdout.splitlines()) == sorted(promised)


def test_order_where_order_is_the_point(tmp_path: Path) -> None:
    (block,) = (block for block in blocks("python") if "urgent" in block)
    (tmp_path / "block.py").write_text(block)
    assert run(tmp_path / "block.py").stdout.split() == ["first", "urgent", "later"]


def test_every_fence_is_closed_and_of_a_known_language() -> None:
    fences = re.findall(r"^```(.*)$", README, re.MULTILINE)
    assert fences[1::2] == [""] * (len(fences) // 2)
    assert set(fences[::2]) == {"python", "sh"}


def test_begins_with_the_two_commands() -> None:
    """One for the main job, one for the tests, before anything else."""
    main, tests = (block.strip() for block in blocks("sh")[:2])
    assert README.index(tests) < README.index("```python")
    for command in (main, tests):
        assert "\n" not in command
        assert command.startswith("python3 -m venv .venv && .venv/bin/pip install ")
    assert "examples/checksum_tree.py" in main
    assert "'.[test]'" in tests
    assert tests.endswith("-m pytest")


def test_ci_runs_the_command_for_the_tests() -> None:
    """The parts that the CI runs make up the command, to the letter."""
    told = subprocess.run(["bash", CI, "--commands"], capture_output=True, text=True, check=True)
    assert " && ".join(told.stdout.splitlines()) == blocks("sh")[1].strip()
    assert CI.stat().st_mode & 0o111


def test_what_it_names_exists() -> None:
    for path in re.findall(r"\b(?:examples|tests|benchmarks|\.ci)/[\w./]*\w", README):
        assert (PROJECT / path).exists(), path
    for name in re.findall(r"^from bossworker import (.*)$", README, re.MULTILINE):
        assert set(name.split(", ")) <= {*exported, "jobs"}


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_files_that_the_other_pages_name_exist(page: str) -> None:
    """By their path, or its end: a page may be speaking of a folder."""
    text = (PROJECT / page).read_text()
    folders = [PROJECT / name for name in ("bossworker", "tests", "examples", "benchmarks", ".github")]
    paths = [*map(str, PROJECT.glob("*.*")), *(str(path) for folder in folders for path in folder.rglob("*.*"))]
    for named in re.findall(r"[\w./-]*\w\.(?:py|md|yml|toml)\b", text):
        assert any(path.endswith(f"/{named}") for path in paths), named
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert (PROJECT / target).exists(), target


def test_shell_blocks_are_valid() -> None:
    for block in blocks("sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)

"""The README keeps its word: it is short, names what is there, and has the commands of the CI. test_docs runs it."""

from __future__ import annotations

import re
import subprocess

import pytest

from bossworker import __all__ as exported
from tests.examples.runner import PROJECT

README = (PROJECT / "README.md").read_text()
CI = PROJECT / ".ci" / "run"
MOST_BYTES = 6 << 10


def blocks(language: str) -> list[str]:
    """The README's fenced blocks in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def test_every_fence_is_closed_and_of_a_known_language() -> None:
    fences = re.findall(r"^```(.*)$", README, re.MULTILINE)
    assert fences[1::2] == [""] * (len(fences) // 2)
    assert set(fences[::2]) == {"python", "sh"}


def test_is_short() -> None:
    assert len(README.encode()) <= MOST_BYTES


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
    for path in re.findall(r"\]\(([\w./-]+)\)", README):
        assert (PROJECT / path).exists(), path


@pytest.mark.parametrize("page", ["ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"])
def test_the_files_that_the_other_pages_name_exist(page: str) -> None:
    """By their path, or its end: a page may be speaking of a folder."""
    text = (PROJECT / page).read_text()
    folders = [
        PROJECT / name for name in ("bossworker", "docs", "native", "tests", "examples", "benchmarks", ".github")
    ]
    paths = [*map(str, PROJECT.glob("*.*")), *(str(path) for folder in folders for path in folder.rglob("*.*"))]
    for named in re.findall(r"[\w./-]*\w\.(?:py|md|yml|toml)\b", text):
        assert any(path.endswith(f"/{named}") for path in paths), named
    for target in re.findall(r"\]\(([\w./]+)\)", text):
        assert (PROJECT / target).exists(), target


def test_shell_blocks_are_valid() -> None:
    for block in blocks("sh"):
        subprocess.run(["bash", "-n"], input=block, text=True, check=True)

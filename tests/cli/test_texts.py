"""Help, completion, the manual page and `doctor`."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

import bossworker
from bossworker.cli.main import COMMANDS
from bossworker.cli.manual_page import PLACES, write_all
from bossworker.cli.parsers import all_parsers, options_of
from bossworker.cli.run_arguments import HELP
from tests.cli.conftest import Cli

SHARE = Path(bossworker.__file__).parent.parent / "data" / "share"
HOW = "python -m bossworker.cli.manual_page data/share"


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_short_and_has_three_examples(cli: Cli, name: str) -> None:
    said = cli(name, "--help")
    lines = said.out.splitlines()
    assert (said.status, said.err) == (0, "")
    assert len(lines) < 40
    assert len([line for line in lines if line.startswith(f"  bossworker {name}") or "| bossworker" in line]) == 3
    assert max(map(len, lines)) <= 120


def test_help_of_run_names_every_option() -> None:
    for one in options_of(all_parsers()["run"]):
        assert any(flag in HELP for flag in one.option_strings) or one.dest == "help", one


def test_all_commands_are_told_of(cli: Cli) -> None:
    assert all(f"  {name} " in cli("--help").out for name in COMMANDS)
    assert set(all_parsers()) == set(COMMANDS)
    assert cli("--version").out == f"bossworker {bossworker.__version__}\n"


def test_what_is_shipped_is_fresh(tmp_path: Path) -> None:
    write_all(tmp_path)
    for place in PLACES:
        assert (tmp_path / place).read_text() == (SHARE / place).read_text(), f"run {HOW}"


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    line = f"COMP_WORDS=(bossworker {' '.join(words)}); COMP_CWORD={len(words)}; _bossworker; echo ${{COMPREPLY[@]}}"
    script = f"bossworker() {{ :; }}; source {SHARE}/bash-completion/completions/bossworker; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_completion_in_bash() -> None:
    assert complete("st") == ["start", "stack"]
    assert complete("run", "--jobl") == ["--joblog"]
    assert complete("wait", "la") == ["last"]
    assert complete("completion", "''") == ["bash", "zsh", "fish"]


def test_completion_is_printed(cli: Cli) -> None:
    for shell in ("bash", "zsh", "fish"):
        assert "--retry-failed" in cli("completion", shell).out or shell == "fish"
    assert "-l retry-failed" in cli("completion", "fish").out


def test_the_manual_page_is_a_page() -> None:
    found = subprocess.run(
        ["man", "--warnings", "-l", str(SHARE / "man/man1/bossworker.1")], capture_output=True, text=True, check=False
    )
    if found.returncode:
        pytest.skip("there is no man")
    assert found.stderr == ""
    assert "--retry-failed" in found.stdout.replace("\u2010", "-")


def test_doctor(cli: Cli, root: Path) -> None:
    (root / ".20261126-203438-017451-eaa56c7ef3b7b1cf2586").mkdir(parents=True)
    said = cli("doctor", "--json")
    found = {one["what"]: one for one in map(json.loads, said.out.splitlines())}
    assert said.status == 1
    assert found["job directories left half made"]["state"] == "warning"
    assert found["bossworker"]["text"].startswith(bossworker.__version__)
    assert str(root) in found["job directories"]["text"]
    assert "warning" in cli("doctor").out

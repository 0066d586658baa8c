"""Help, completion, the manual page and `doctor`."""

from __future__ import annotations

import gc
import json
import os
import pty
import resource
import select
import shlex
import shutil
import signal
import subprocess
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path

import pytest

import bossworker
from bossworker.cli import doctor
from bossworker.cli.entries import short
from bossworker.cli.main import COMMANDS
from bossworker.cli.manual_page import PLACES, write_all
from bossworker.cli.parsers import all_parsers, options_of
from bossworker.cli.run_parser import HELP
from tests.cli.conftest import PROGRAM, Cli

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
    assert cli("help", "group") == cli("group", "--help")
    assert cli("help", "nonsense").status == 2
    assert cli("--version").out == f"bossworker {bossworker.__version__}\n"


def test_what_is_shipped_is_fresh(tmp_path: Path) -> None:
    write_all(tmp_path)
    for place in PLACES:
        assert (tmp_path / place).read_text() == (SHARE / place).read_text(), f"run {HOW}"


def complete(*words: str) -> list[str]:
    """What bash offers for the last word."""
    line = f"COMP_WORDS=(bossworker {' '.join(words)}); COMP_CWORD={len(words)}; _bossworker; echo ${{COMPREPLY[@]}}"
    script = f"source {SHARE}/bash-completion/completions/bossworker; {line}"
    return subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True).stdout.split()


def test_completion_in_bash(one_job: str) -> None:
    assert complete("st") == ["start", "stack"]
    assert complete("run", "--jobl") == ["--joblog"]
    assert complete("wait", "la") == ["last"]
    assert complete("completion", "''") == ["bash", "zsh", "fish"]
    assert complete("run", "--jobs", "''") == complete("doctor", "b") == []


NAMES = ["my job", "$(touch${IFS}done)", "it's"]


def test_completion_of_names_with_what_a_shell_would_run(cli: Cli, one_job: str, here: Path) -> None:
    for name in (*NAMES, "two\nlines"):
        assert cli("start", "--name", name, "true").status == 0
    assert cli("group", "backup", "--pause").status == 0
    assert cli("completion", "groups").out == "backup\n"
    assert [line for line in cli("completion", "ids").out.splitlines() if line in NAMES] == NAMES[::-1]
    assert complete("wait", "my") == ["my\\", "job"]
    assert complete("wait", "it") == ["it\\'s"]
    assert complete("wait", "'$'") == [r"\$\(touch\$\{IFS\}done\)"]
    assert complete("add", "-g", "b") == complete("group", "b") == ["backup"]
    assert one_job in complete("add", "--after", "''")
    assert not (here / "done").exists()
    if shutil.which("fish") is not None:
        assert in_fish("bossworker wait my") == ["my job"]
        assert in_fish("bossworker add -g ") == ["backup"]


@pytest.fixture
def one_job(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch, all_leave: None) -> str:
    """The short id of a job. Shells find `bossworker`, and a program of a strange name."""
    for name, line in (("bossworker", shlex.join(PROGRAM) + ' "$@"'), ("strange-program", "true")):
        (here / "bin").mkdir(exist_ok=True)
        (here / "bin" / name).write_text(f"#!/bin/sh\n{line}\n")
        (here / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{here / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(Path(bossworker.__file__).parents[1]))
    return short(cli("start", "true").out.strip())


def in_fish(line: str) -> list[str]:
    """What fish offers for the last word."""
    script = f"source {SHARE}/fish/vendor_completions.d/bossworker.fish; complete -C '{line}'"
    said = subprocess.run(["fish", "-N", "-c", script], capture_output=True, text=True, check=True)
    assert said.stderr == ""
    return [offer.partition("\t")[0] for offer in said.stdout.splitlines()]


@pytest.mark.skipif(shutil.which("fish") is None, reason="needs fish")
def test_completion_in_fish(one_job: str) -> None:
    assert in_fish("bossworker st") == ["stack", "start"]
    assert in_fish("bossworker run --jobl") == ["--joblog"]
    assert in_fish("bossworker wait la") == ["last"]
    assert in_fish(f"bossworker log {one_job[:3]}") == [one_job]
    assert in_fish("bossworker completion ") == ["bash", "fish", "zsh"]
    assert in_fish("bossworker run strange-p") == ["strange-program"]


class Zsh:
    """An interactive one, as on a terminal."""

    def __init__(self) -> None:
        self._pid, self._fd = pty.fork()
        if not self._pid:
            os.execvpe("zsh", ["zsh", "-f", "-i"], {**os.environ, "TERM": "dumb"})
        functions = SHARE / "zsh" / "site-functions"
        self.type(
            f"PROMPT=; stty -echo; fpath=({functions} $fpath); autoload -Uz compinit; compinit -u -D; echo 'O''K'\r"
        )
        self.read_until("OK")

    def type(self, text: str) -> None:
        os.write(self._fd, text.encode())

    def read_until(self, text: str) -> None:
        """Fails when it does not come."""
        told = b""
        while text.encode() not in told:
            assert select.select([self._fd], [], [], 60)[0], f"no {text!r} in {told!r}"
            told += os.read(self._fd, 1 << 16)

    def close(self) -> None:
        os.kill(self._pid, signal.SIGKILL)
        os.close(self._fd)
        os.waitpid(self._pid, 0)


@pytest.fixture
def zsh() -> Iterator[Zsh]:
    if shutil.which("zsh") is None:
        pytest.skip("needs zsh")
    zsh = Zsh()
    yield zsh
    zsh.close()


def test_completion_in_zsh(one_job: str, zsh: Zsh) -> None:
    for typed, completed in (
        ("completi", "completion "),
        ("run --jobl", "run --joblog "),
        ("wait la", "wait last "),
        (f"log {one_job[:3]}", f"log {one_job} "),
        ("completion fi", "completion fish "),
        ("run strange-p", "run strange-program "),
    ):
        zsh.type(f"bossworker {typed}\t")
        zsh.read_until(completed)
        zsh.type("\x15")  # the line is emptied


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
    half_made = root / ".20200101-203438-017451-eaa56c7ef3b7b1cf2586"
    half_made.mkdir(parents=True)
    said = cli("doctor", "--json")
    found = {one["what"]: one for one in map(json.loads, said.out.splitlines())}
    assert said.status == 1
    assert found["job directories left half made"]["state"] == "warning"
    assert found["bossworker"]["text"].startswith(bossworker.__version__)
    assert str(root) in found["job directories"]["text"]
    assert "warning" in cli("doctor").out
    assert cli("clean").out == "0 deleted\n"
    assert not half_made.exists()  # as is said there


@pytest.mark.parametrize(
    ("variable", "value", "why"), [("HOME", "here", "HOME is 'here'"), ("BOSSWORKER_ROOT", __file__, "is no folder")]
)
def test_doctor_where_no_job_can_be_kept(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, why: str
) -> None:
    monkeypatch.delenv("BOSSWORKER_ROOT")
    monkeypatch.delenv("XDG_STATE_HOME", raising=False)
    monkeypatch.setenv(variable, value)
    said = cli("doctor", "--json")
    assert said.status == 1
    assert any(why in one["text"] and one["state"] == "warning" for one in map(json.loads, said.out.splitlines()))


def test_doctor_on_a_machine_that_lacks_much(cli: Cli, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lacks(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", lacks)
    monkeypatch.setattr(resource, "getrlimit", lambda which: (100, 4096))
    monkeypatch.setattr(doctor, "file_system_of", lambda path: ("nfs4", ""))
    monkeypatch.setenv("TMPDIR", "/nowhere")
    said = cli("doctor", "--json")
    found = {one["what"]: one["text"] for one in map(json.loads, said.out.splitlines()) if one["state"] == "warning"}
    assert said.status == 1
    assert found["pyzmq"] == "it is not installed: pip install pyzmq"
    assert found["open files"] == "RLIMIT_NOFILE is 100; raise it: ulimit (up to 4096)"
    assert "over a network, others' jobs may be unknown here: set BOSSWORKER_ROOT" in found["job directories"]
    assert found["temporary files"] == "/nowhere: No such file or directory"


def test_what_is_garbage_in_a_program_that_calls_it_stays_so(cli: Cli) -> None:
    before = gc.get_freeze_count()
    assert cli("completion", "bash").status == 0
    assert gc.get_freeze_count() == before

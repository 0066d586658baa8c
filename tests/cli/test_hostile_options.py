"""What is no value of an option: a line names the option, the value and what is allowed, and nothing begins."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from bossworker.cli.parsers import all_parsers, options_of
from tests.cli.conftest import Cli, start_program

pytestmark = pytest.mark.once("what is read from a command line")

NOT_A_NUMBER = [
    "",
    "nan",
    "inf",
    "1e400",
    "9" * 400,
    " 3 ",
    "3 4",
    "1_000",
    "٣",
    "0x10",
    "\udcff",
    "a\nb",
    "dir",
    "-",
    "x" * 70_000,
]
NOT_POSITIVE = [*NOT_A_NUMBER, "-5", "+5"]
NOT_WHOLE = [*NOT_A_NUMBER, "1.5", "1e3", str(1 << 63)]
NOT_A_NAME = ["", "a/b", "../x", "-x", "a b", "a\nb", "\udcff", "x" * 41, "x" * 70_000, "\x1b[31m"]
NOT_SECONDS = [*NOT_POSITIVE, "1w", "1e3", "3 m", "1h-3m", "99999999999", "9" * 300 + "d"]
NOT_BYTES = [*NOT_POSITIVE, "12X", "-1K", "9000000T", "9" * 25]
KINDS = {
    "seconds": NOT_SECONDS,
    "seconds or share": [*NOT_SECONDS, "%", "-5%", "nan%", "5%%", "inf%"],
    "share": [*NOT_POSITIVE, "%", "-5%", "nan%", "5%%", "9" * 20],
    "bytes": NOT_BYTES,
    "whole": NOT_WHOLE,
    "count": [*NOT_WHOLE, "-5", "+5"],
    "nice": [*NOT_WHOLE, "20", "-21"],
    "slots": [*NOT_WHOLE, "0", "-1", "1025"],
    "jobs": [*NOT_A_NUMBER, "1.5", "%", "10001", "99999999%", "--4", "4-", "words"],
    "port": [*NOT_WHOLE, "-1", "65536"],
    "group": NOT_A_NAME,
    "text": [""],
    "pair": ["", "A", "=x", "a\nb", "\udcff", "x" * 70_000],
    "variable": ["", "NOT_SET_ANYWHERE", "=x", "\udcff", "x" * 70_000],
    "rule": [
        "",
        "now",
        "now,fail",
        "now,fail=0",
        "now,fail=-1",
        "later,fail=1",
        "now,fail=1.5",
        "x" * 70_000,
        "\udcff",
    ],
    "signal": ["", "NOPE", "0", "-9", "65", "9" * 400, "\udcff", "x" * 70_000],
    "expression": ["(", "*", "[", "a{2,1}"],
    "delimiter": ["", "\\x"],
    "header": ["", "::", "x"],
    "status": ["", "complete", "Running", "a\nb", "\udcff", "x" * 70_000],
    "anything": [],
}
KINDS["choice"] = ["", "nope", "\udcff", "a\nb"]
TAKES = {
    "run": {
        "-c": "anything", "-f": "text", "-j": "jobs", "-a": "text", "-d": "delimiter", "--colsep": "expression",
        "--trim": "choice", "-N": "count", "-n": "count", "--header": "header", "--tagstring": "anything",
        "--joblog": "text", "--journal": "text", "--interrupted": "choice", "--retries": "count", "--halt": "rule",
        "--timeout": "seconds or share", "--delay": "seconds", "--load": "share", "--memfree": "bytes",
        "--memory": "bytes", "--results": "text", "--wd": "text", "--nice": "nice", "--env": "variable",
        "--junit": "text",
    },
    "start": {
        "--name": "text", "--timeout": "seconds", "--env": "pair", "--wd": "text", "--meta": "pair",
        "--memory": "bytes",
    },
    "add": {
        "-g": "group", "--after": "anything", "--delay": "seconds", "-o": "whole", "--name": "text",
        "--timeout": "seconds", "--env": "pair", "--wd": "text", "--meta": "pair", "--memory": "bytes",
    },
    "group": {"--slots": "slots"},
    "ps": {"--status": "status", "--name": "anything", "-g": "group"},
    "log": {"--since": "whole"},
    "wait": {"--timeout": "seconds"},
    "kill": {"-s": "signal"},
    "send": {"--timeout": "seconds"},
    "clean": {"--older-than": "seconds", "--status": "status"},
    "trace": {"-o": "anything"},
    "top": {"-n": "count", "-i": "seconds"},
    "web": {
        "--journal": "anything", "--port": "port", "--host": "anything", "--unix-socket": "anything",
        "--known-as": "anything",
    },
}  # fmt: skip
HINT = "(bossworker {} --help shows how it is used)\n"
LONGEST = 800  # characters of what is told


def test_each_option_is_tried() -> None:
    """Those that take a value."""
    for name, parser in all_parsers().items():
        found = {one.option_strings[0] for one in options_of(parser) if one.nargs != 0}
        assert found == set(TAKES.get(name, ())), name


@pytest.mark.parametrize(("name", "option"), [(name, option) for name in TAKES for option in TAKES[name]])
def test_what_is_no_value_is_refused_by_name(cli: Cli, root: Path, here: Path, name: str, option: str) -> None:
    (here / "dir").mkdir()
    (here / "words").write_text("as many as there are\n")
    rest = ["true", ":::", "a"] if name == "run" and option not in ("-c", "-f") else ["true"]
    for value in KINDS[TAKES[name][option]]:
        said = (
            cli(name, f"{option}={value}" if option.startswith("--") else f"{option}{value}", *rest)
            if value
            else cli(name, option, value, *rest)
        )
        line, _, hint = said.err.partition("\n")
        assert (value, said.status, said.out, hint) == (value, 255 if name == "run" else 2, "", HINT.format(name))
        assert f"{option}" in line.split(": ")[1], value
        assert line.startswith(f"bossworker {name}: argument ")
        assert repr(value)[:100] in line, value
        assert len(line) < LONGEST, value
    assert not root.exists()
    assert sorted(os.listdir(here)) == ["dir", "words"]


@pytest.mark.parametrize(
    ("argv", "told"),
    [
        (["run", "-a", "dir", "true"], "cannot read 'dir': Is a directory"),
        (["run", "-a", "missing/x", "true"], "cannot read 'missing/x': No such file or directory"),
        (["run", "true", "::::", "dir"], "cannot read 'dir': Is a directory"),
        (["run", "true", "::::", "-", "-"], "stdin (-) is given twice, and can be read once"),
        (["run", "-a", "-", "true", "::::", "-"], "stdin (-) is given twice, and can be read once"),
        (["run", "-N", "9" * 19, "true"], "a whole number, 0 or more, of at most 18 digits"),
        (["run", "--joblog", "dir", "true", ":::", "a"], "--joblog 'dir' cannot be written: Is a directory"),
        (["run", "--joblog", "missing/x", "true", ":::", "a"], "--joblog 'missing/x' cannot be written: No such file"),
        (["run", "--journal", "dir", "true", ":::", "a"], "dir' cannot be opened: it is no regular file"),
        (["run", "--journal", "missing/x", "true", ":::", "a"], "missing/x cannot be locked: No such file"),
        (["run", "--junit", "dir", "true", ":::", "a"], "Is a directory: '--junit dir'"),
        (["run", "--junit", "missing/x", "true", ":::", "a"], "No such file or directory: '--junit missing/x'"),
        (["run", "--junit", "/dev/stdin", "true", ":::", "a"], "which a pipe cannot have; name a file: '--junit"),
        (["run", "--results", "text", "true", ":::", "a"], "Not a directory: '--results text/1'"),
        (["run", "--results", "missing/x.csv", "true", ":::", "a"], "directory: '--results missing/x.csv'"),
        (["run", "--results", "text/{}/", "true", ":::", "a"], "Not a directory: '--results text/a"),
        (["run", "--results", "dir", "--json", "true", ":::", "a"], "it goes neither with --json"),
        (["run", "--results", "x.csv", "--resume", "true", ":::", "a"], "need --joblog FILE (--resume: or --results"),
        (["run", "--joblog", "+", "true", ":::", "a"], "argument --joblog/--jl: '+': it is empty"),
        (["run", "--joblog", "+text", "true", ":::", "a"], "--joblog 'text' is no joblog"),
        (["run", "--header", "2", "true", ":::", "a"], "argument --header: '2': it is : (the first line"),
        (["run", "--wd", "text", "true", ":::", "a"], "File exists: '--wd "),
        (["run", "-j", "--", "true", ":::", "a"], "argument -j/--jobs/-P/--max-procs: '--': it is a number"),
        (["run", "--joblog", "--resume", "true", ":::", "a"], "argument --joblog/--jl: expected one argument"),
        (["run", "-kj", ":::", "a"], "argument -j/--jobs/-P/--max-procs: expected one argument"),
        (["run", "-c", "true", "-f", "a:b", ":::", "a"], "a command, -c STRING and -f PKG.MOD:FN exclude each other"),
        (["run", "--interrupted", "rerun", "true", ":::", "a"], "--interrupted needs --journal FILE"),
        (["run", "-f", "a:b", "-u", ":::", "a"], "-f prints JSON lines"),
        (["run", "--nope", "true"], "unrecognized arguments: --nope\n"),
        (["run", "-k", "--link", "true"], "unrecognized arguments: --link (:::+ in the place of the second :::"),
        (["run", "--rpl", "{x} s/a/b/", "true"], "-c has the shell's means"),
        (["run", "-I{}", "true"], "unrecognized arguments: -I{} ({} is replaced without it)"),
        (["run", "rm", "{=s/.gz$//=}", ":::", "text"], "{= perl =} is not here; -c has the shell's means"),
        (["run", "rm", "{=2", "s/a/b/", "=}", ":::", "text"], "{= perl =} is not here"),
        (["run", "-c", "rm {= s/a/b/ =}", ":::", "text"], "{= perl =} is not here"),
        (["run", "--wd", "...", "true", ":::", "a"], "argument --wd/--workdir: '...': it is a folder; GNU parallel's"),
        (["run", "--timeout", "x", "true", ":::", "a"], "it is a share of the median, such as 400%, or a number of"),
        (["run", "-f", "nope:x", ":::", "a"], "-f 'nope:x' cannot be loaded: No module named 'nope'"),
    ],
)  # fmt: skip
def test_what_run_cannot_do_is_told_in_a_line(cli: Cli, here: Path, argv: list[str], told: str) -> None:
    (here / "dir").mkdir()
    (here / "text").write_text("x\n")
    said = cli(*argv)
    assert (said.status, said.out) == (255, "")
    assert told in said.err
    assert len(said.err.splitlines()) <= 2


@pytest.mark.parametrize(
    ("argv", "status", "told"),
    [
        (["start"], 2, "CMD is missing"),
        (["start", "-c", "a", "b"], 2, "with -c, CMD is one word"),
        (["start", "ls | wc -l"], 2, "'ls | wc -l' is one word; a command line for a shell needs -c"),
        (["add", "--", "ls | wc -l"], 2, "'ls | wc -l' is one word; a command line for a shell needs -c"),
        (["kill", "-9", "last"], 2, "-9: a signal is named by -s 9"),
        (["kill", "last", "-SIGHUP"], 2, "-SIGHUP: a signal is named by -s SIGHUP"),
        (["kill", "-s", "65", "last"], 2, "signal must be one of this system's, from 1 to 64, not 65"),
        (["start", "--wd", "missing", "true"], 1, "cwd must be a folder that exists, not"),
        (["add", "--wd", "text", "true"], 1, "cwd must be a folder that exists, not"),
        (["add", "--after", "nobody", "true"], 125, "there is no job, task or pool 'nobody'"),
        (["group", "--slots", "2"], 2, "GROUP is missing"),
        (["group", "../x"], 2, "a group is called by up to 40"),
        (["retry"], 2, "give IDs, or --failed"),
        (["retry", "--failed", "last"], 2, "give IDs, or --failed"),
        (["clean", "--older-than", "1d", "last"], 2, "IDs go neither with --older-than nor with --status"),
        (["show"], 2, "required: ID"),
        (["send", "last"], 2, "required: TEXT"),
        (["trace", "last"], 2, "required: -o/--output"),
        (["log", "x" * 70_000], 125, "bossworker ps lists them"),
        (["completion", "x" * 70_000], 2, "'bash', 'zsh', 'fish'"),
        (["wait", "last"], 125, "there is none yet"),
        (["stack", "\udcff"], 125, "there is no job, task or pool '\\udcff'"),
        (["x" * 70_000], 2, "there is no command"),
        (["no\nsuch"], 2, "there is no command 'no\\nsuch'"),
    ],
)
def test_what_makes_no_sense_has_an_exit_status_of_its_own(
    cli: Cli, root: Path, here: Path, argv: list[str], status: int, told: str
) -> None:
    (here / "text").touch()
    said = cli(*argv)
    assert (said.status, said.out) == (status, "")
    assert told in said.err
    assert len(said.err) < LONGEST
    assert len(said.err.splitlines()) <= 2


@pytest.mark.usefixtures("all_leave")
def test_a_name_cannot_write_on_the_terminal(cli: Cli) -> None:
    for name in ("two\nlines", "\x1b[31mred", "\udcff"):
        assert cli("start", "--name", name, "true").status == 0
        assert cli("wait", name).status == 0
    names = [line.split()[1] for line in cli("ps").out.splitlines()]
    assert names == ["NAME", "two?lines", "?[31mred", "?"]
    assert [json.loads(line)["name"] for line in cli("ps", "--json").out.splitlines()] == [
        "two\nlines",
        "\x1b[31mred",
        "\udcff",
    ]
    assert "\x1b" not in cli("show", "all").out


@pytest.mark.parametrize("command", ["ps", "group", "clean", "doctor --json", "completion bash"])
def test_closed_streams_lead_nowhere(root: Path, here: Path, command: str) -> None:
    shell = start_program("-c", f'exec "$0" -m bossworker {command} <&- >&- 2>&-', sys.executable, program=["/bin/sh"])
    assert shell.communicate(timeout=60) == ("", "")
    assert shell.returncode in (0, 1)

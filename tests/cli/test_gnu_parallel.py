"""`run` does what GNU parallel does, where the names are its; where it is installed, that is looked at as well."""

from __future__ import annotations

import csv
import os
import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import Cli
from tests.cli.gnu_cases import CASES, COLUMNS, DOS, IN

pytestmark = pytest.mark.once("what GNU parallel does, or lines of ours are read as")
GNU = shutil.which("parallel")
needs_gnu = pytest.mark.skipif(GNU is None, reason="GNU parallel is not installed")


def names(cases: list[tuple[list[str], str, str, int]]) -> list[str]:
    return [" ".join(argv).replace("\t", "_") for argv, *_ in cases]


def write_inputs(folder: Path) -> None:
    (folder / "in").write_text(IN)
    (folder / "cols").write_text(COLUMNS)
    (folder / "dos").write_text(DOS)


@pytest.mark.parametrize(("argv", "stdin", "out", "status"), CASES, ids=names(CASES))
def test_as_gnu_parallel(cli: Cli, here: Path, argv: list[str], stdin: str, out: str, status: int) -> None:
    if "--nice" in argv and os.nice(0):
        pytest.skip("the whole suite is nice")
    write_inputs(here)
    said = cli("run", "--quiet", *argv, stdin=stdin)
    assert (said.out, said.status) == (out, status)


@needs_gnu
def test_gnu_parallel_has_not_changed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All of it only with --long: it takes a while to start."""
    write_inputs(tmp_path)
    for argv, stdin, out, status in CASES if request.config.getoption("--long") else CASES[::8]:
        said = gnu(tmp_path, *argv, stdin=stdin)
        assert (argv, said.stdout, said.returncode) == (argv, out, status)


def gnu(folder: Path, *argv: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    home = folder / "home"
    (home / ".parallel").mkdir(parents=True, exist_ok=True)
    (home / ".parallel" / "will-cite").touch()
    return subprocess.run(
        ["parallel", *(one for one in argv if one != "-c")],
        input=stdin,
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "HOME": str(home), "PARALLEL_SHELL": "/bin/sh"},
        check=False,
    )


def columns(log: Path) -> list[list[str]]:
    """A joblog without what differs from run to run."""
    lines = [line.split("\t") for line in log.read_text().splitlines()]
    return [[*line[:2], *line[4:]] for line in lines]


HEAD = ["Seq", "Host", "Send", "Receive", "Exitval", "Signal", "Command"]


def test_results_are_named_by_the_header(cli: Cli, here: Path) -> None:
    arguments = ["--header", ":", "true", ":::", "n", "x", ":::", "m/..", "1"]
    assert cli("run", "--results", "R", *arguments).status == 0
    assert [str(one.relative_to(here)) for one in here.glob("R/**/seq")] == ["R/m\\_../1/n/x/seq"]
    assert cli("run", "--results", "R.csv", *arguments).status == 0
    assert (here / "R.csv").read_text().splitlines()[0].endswith(",Command,n,m/..,Stdout,Stderr")


def test_joblog(cli: Cli, here: Path) -> None:
    log = here / "log"
    said = cli("run", "-j1", "--joblog", log, "-c", "echo {}; kill -{} $$", ":::", "0", "9", "15")
    assert said.status == 2
    assert columns(log) == [
        HEAD,
        ["1", ":", "0", "2", "0", "0", "echo 0; kill -0 $$"],
        ["2", ":", "0", "2", "0", "9", "echo 9; kill -9 $$"],
        ["3", ":", "0", "3", "0", "15", "echo 15; kill -15 $$"],
    ]
    first = log.read_text().splitlines()[1].split("\t")
    assert float(first[2]) > 1e9
    assert len(first[3]) == 10


def test_joblog_of_what_timed_out(cli: Cli, here: Path) -> None:
    assert cli("run", "--joblog", here / "log", "--timeout", "0.2", "sleep", ":::", "60").status == 1
    assert columns(here / "log")[1:] == [["1", ":", "0", "0", "-1", "15", "sleep 60"]]


@needs_gnu
@pytest.mark.parametrize("what", ["exit {}", "echo {}; kill -9 $$", "printf %s {} | cat >&2; exit 1"])
def test_joblog_as_gnu_parallel(cli: Cli, here: Path, what: str) -> None:
    arguments = ["-j1", "--joblog"], ["-c", what, ":::", "0", "1", "2"]
    gnu(here, *arguments[0], "gnu.log", *arguments[1])
    cli("run", *arguments[0], "log", *arguments[1])
    assert columns(here / "log") == columns(here / "gnu.log")


def test_joblog_of_lines_that_were_passed_on(cli: Cli, here: Path) -> None:
    said = cli(
        "run",
        "-j1",
        "--joblog",
        "log",
        "--line-buffer",
        "--tag",
        "-c",
        "echo 22; echo {} >&2; seq {}",
        ":::",
        "1",
        "9999",
    )
    assert (said.status, said.out.count("\n")) == (0, 2 + 10_000)
    received = [int(line[3]) for line in columns(here / "log")[1:]]
    assert received == [3 + 2, 3 + sum(len(f"{number}\n") for number in range(1, 10_000))]


def test_lines_are_in_order_too(cli: Cli, here: Path) -> None:
    """The first one ends last."""
    script = "echo {}; if [ {} = 1 ]; then until test -e go; do sleep 0.01; done; else touch go; fi; echo {}"
    assert cli("run", "-j2", "-k", "--line-buffer", "-c", script, ":::", "1", "2").out.split() == ["1", "1", "2", "2"]


def test_resume_goes_by_content(cli: Cli, here: Path) -> None:
    log = here / "log"
    cli("run", "--joblog", log, "echo", ":::", "a", "b c")
    said = cli("run", "-k", "--resume", "--joblog", log, "echo", ":::", "new", "a", "newer", "b c", "a")
    assert said.out == "new\nnewer\na\n"  # a second "a" has not been run
    assert "skipping 2 done; 3 to do" in said.err


def test_joblogs_of_gnu_parallel_are_read(cli: Cli, here: Path) -> None:
    lines = ["Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"]
    for seq, (code, command) in enumerate([(0, "echo a\\ b"), (0, "echo 'it'\"'\"'s'"), (3, "echo c")], 1):
        lines.append(f"{seq}\t:\t1795725006.902\t     0.000\t0\t0\t{code}\t0\t{command}")
    (here / "log").write_text("\n".join(lines) + "\n")
    said = cli("run", "-k", "--resume-failed", "--joblog", "log", "echo", ":::", "a b", "it's", "c", "d")
    assert said.out == "c\nd\n"


def test_quotes_that_matter_are_told_apart(cli: Cli, here: Path) -> None:
    cli("run", "--joblog", "log", "-c", "echo 'x y' {} > file", ":::", "1")
    said = cli("run", "--resume", "--joblog", "log", "-c", "echo 'x y' {} '>' file", ":::", "1")
    assert said.out == "x y 1 > file\n"


def test_resume_failed_and_retry_failed(cli: Cli, here: Path) -> None:
    log = here / "log"
    cli("run", "-j1", "--joblog", log, "-c", "test -e {} && echo {}", ":::", "here", "there")
    (here / "there").touch()
    said = cli("run", "-j1", "--retry-failed", "--joblog", log)
    assert (said.status, said.out) == (1, "there\n")
    (here / "here").touch()
    said = cli("run", "-j1", "--resume-failed", "--joblog", log, "-c", "test -e {} && echo {}", ":::", "there", "here")
    assert (said.status, said.out) == (0, "here\n")
    assert [line[0] for line in columns(log)[1:]] == ["1", "2", "1", "2", "2"]


def test_a_joblog_that_was_cut_off_goes_on_in_a_line_of_its_own(cli: Cli, here: Path) -> None:
    log = here / "log"
    cli("run", "--joblog", log, "echo", ":::", "a")
    log.write_text(log.read_text() + "2\t:\t17957")
    cli("run", "--resume", "--joblog", log, "echo", ":::", "a", "b")
    assert log.read_text().splitlines()[-1].endswith("\techo b")


AGAIN = [["--resume"], ["--resume-failed"], ["--retry-failed"]]


@pytest.mark.parametrize("how", AGAIN)
@pytest.mark.parametrize("text", ["dear all,\n", "#!/bin/sh\nexit 0\n", "\0\xff"])
def test_what_is_no_joblog_stays_as_it_is(cli: Cli, here: Path, how: list[str], text: str) -> None:
    (here / "log").write_text(text)
    said = cli("run", *how, "--joblog", "log", *(["echo", ":::", "a"] if how != ["--retry-failed"] else []))
    assert (said.status, said.out) == (255, "")
    assert "--joblog 'log' is no joblog: it begins with" in said.err
    assert (here / "log").read_text() == text


@pytest.mark.parametrize("how", AGAIN)
@pytest.mark.parametrize("text", ["", "Seq\tHo", "Seq\tHost\tRuntime\n", "1\t:\t1.0\t0.1\t0\t0\t0\t0\techo b\n"])
def test_what_is_left_of_a_joblog_is_one(cli: Cli, here: Path, how: list[str], text: str) -> None:
    (here / "log").write_text(text)
    said = cli("run", *how, "--joblog", "log", *(["echo", ":::", "a"] if how != ["--retry-failed"] else []))
    told = "bossworker run: " in said.err
    assert (said.status, said.out, told) == (0, "a\n" if how != ["--retry-failed"] else "", False)


def test_nothing_to_retry_is_told(cli: Cli, here: Path) -> None:
    """Whether nothing has failed, or there is no such joblog, which a mistyped name may mean."""
    said = cli("run", "--retry-failed", "--joblog", "log")
    assert (said.status, said.out) == (255, "")
    assert said.err == "bossworker run: --retry-failed: there is no joblog 'log' yet\n"
    assert not (here / "log").exists()
    assert cli("run", "--joblog", "log", "true", ":::", "a").status == 0
    said = cli("run", "--retry-failed", "--joblog", "log")
    assert (said.status, said.err) == (0, "nothing to do: nothing in the joblog has failed\n")
    assert cli("run", "--quiet", "--retry-failed", "--joblog", "log").err == ""
    assert cli("run", "--resume-failed", "--joblog", "other", "echo", ":::", "a").out == "a\n"  # all is left to do


def test_an_argument_with_a_newline_in_a_joblog(cli: Cli, here: Path) -> None:
    for _ in range(2):
        said = cli("run", "--resume", "--joblog", "log", "echo", ":::", "a\nb")
    assert said.out == ""
    assert len((here / "log").read_text().splitlines()) == 2


@pytest.mark.parametrize("how", ["--group", "--line-buffer", "-u"])
def test_results_in_folders(cli: Cli, here: Path, how: str) -> None:
    said = cli("run", how, "--results", "R", "-c", "echo {}; echo e >&2", ":::", "a", "b/c", "..", "x\\y", ":::", "1")
    assert (said.status, said.out) == (0, "")
    found = {str(path.relative_to(here / "R")) for path in (here / "R").rglob("stdout")}
    assert found == {f"1/{name}/2/1/stdout" for name in ("a", "b\\_c", "\\..", "x\\\\y")}
    assert (here / "R/1/a/2/1/seq").read_text() == "1"
    assert (here / "R/1/a/2/1/stderr").read_text() == "e\n"


def test_results_in_a_table(cli: Cli, here: Path) -> None:
    cli("run", "-k", "--results", "R.csv", "-c", "echo {}; echo e >&2; exit 3", ":::", "a", "b")
    with open(here / "R.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == [*HEAD[:2], "Starttime", "JobRuntime", *HEAD[2:], "V1", "Stdout", "Stderr"]
    assert [[*row[:2], *row[5:]] for row in rows] == [
        ["1", ":", "2", "3", "0", "echo a; echo e >&2; exit 3", "a", "a\n", "e\n"],
        ["2", ":", "2", "3", "0", "echo b; echo e >&2; exit 3", "b", "b\n", "e\n"],
    ]


ARGUMENTS = [
    "a",
    "b c",
    "x.y",
    "d/e.f",
    "it's",
    "$HOME",
    "no*",
    "",
    "a=b",
    "é",
    "\\",
    '"',
    "#x",
    "~",
    "1,2",
    "p\tq",
    " s ",
]
ARGUMENTS += ["..", "a/", "/", "//x.", ".c", "{}", "{1}", "3,x.y,z", "-", "!", "`", ";", "n\u00a0n", "\x01", "%", "@"]
STRINGS = [
    "{}",
    "{.}",
    "{/}",
    "{//}",
    "{/.}",
    "{#}",
    "{0}",
    "{1}",
    "{2}",
    "{3}",
    "{2.}",
    "{1/}",
    "{-1}",
    "{1//}",
    "{02/.}",
]
STRINGS += ["{a}", "{b.}", "{c d}", "{q}", "word", "{1}{2}", "x{}y", "{}{}", "{nope", "{}}", "{{}}", "'{}'", '"{2}"']
NAMES = ["a", "b", "c d", "a\tb", "x,a"]
FILES = {"tabs": "a\tb\n1\t2.x\n3\n\n", "commas": "a,c d\n1, 2.x \n3\n,,\n", "codes": "a\n0\n3\n0\n9\n"}
OPTIONS = [["-N2"], ["-N3"], ["-n2"], ["--header", ":"], ["--colsep", ","], ["--colsep", "\\t"], ["--trim", "lr"]]
OPTIONS += [["--tag"], ["--tagstring", "{#}-{1}"], ["--tagstring", "<{}>"], ["-k"]]
OPTIONS += [["-k", "--retries", "2"], ["--results", "R"], ["--halt", "soon,fail=2"], ["--halt", "now,fail=1"]]
OPTIONS += [["--halt", "soon,success=2"], ["--trim", "n"]]


def random_line(rng: random.Random) -> list[str]:
    """A command line of what is meant to be the same; what is not, the documentation has in a table."""
    options = [word for option in rng.sample(OPTIONS, rng.choice((0, 1, 1, 2, 3))) for word in option]
    if rng.random() < 0.1:
        options = ["--dry-run", *rng.choice((["-n2"], ["--tag"], ["--header", ":"], ["--tagstring", "{2}"]))]
    strings = " ".join(rng.choices(STRINGS, k=rng.randrange(5)))
    script = f"printf '<%s>' {strings}; echo{rng.choice(('', '', ' {}', ' >&2', '; exit {1}', '; exit 3'))}"
    inputs: list[str] = []
    for at in range(rng.choice((1, 1, 1, 2, 2, 3))):
        link = "+" if at and rng.random() < 0.4 else ""
        if rng.random() < 0.3:
            inputs += [f"::::{link}", rng.choice(("in", "cols", *FILES))]
        else:
            inputs += [f":::{link}", rng.choice(NAMES), *rng.choices(ARGUMENTS, k=rng.randrange(1, 5))]
    if rng.random() < 0.2 and all(one == "::::" for one in inputs[::2]):
        inputs[:2] = []
        options += ["-a", "codes", "-d", rng.choice(("\\n", ","))]
    return ["-j1", *options, "-c", script, *inputs]


@needs_gnu
@pytest.mark.timeout(900)  # of 500 lines
def test_random_lines_as_gnu_parallel(cli: Cli, here: Path, long: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(here / "home"))
    rng = random.Random(17)
    write_inputs(here)
    for name, text in FILES.items():
        (here / name).write_text(text)
    for _ in range(500 if long else 10):
        argv = random_line(rng)
        theirs = gnu(here, "--joblog", "theirs", *argv)
        ours = cli("run", "--quiet", "--joblog", "ours", *argv)
        assert (argv, ours.out, ours.status) == (argv, theirs.stdout, theirs.returncode)
        if "--dry-run" not in argv:
            assert (argv, sorted(columns(here / "ours"))) == (argv, sorted(columns(here / "theirs")))


def test_more_than_a_hundred_failures(cli: Cli) -> None:
    assert cli("run", "-c", "exit {}", ":::", *map(str, range(1, 121))).status == 101

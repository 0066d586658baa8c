"""Joblogs and results have the names and contents of GNU parallel's; where it is installed, it is run beside `run`."""

from __future__ import annotations

import csv
import json
import subprocess
from pathlib import Path

import pytest

from tests.cli.conftest import PROGRAM, Cli
from tests.cli.gnu_files import CASES, Steps, Tree
from tests.cli.test_gnu_parallel import gnu, needs_gnu, write_inputs

pytestmark = pytest.mark.once("what GNU parallel does, or files of ours are named")
_TIMES = slice(2, 4)  # of the columns of a joblog


def names(cases: list[tuple[Steps, Tree]]) -> list[str]:
    return ["; ".join(map(" ".join, steps)).replace("\t", "_") for steps, _ in cases]


def tree(folder: Path) -> Tree:
    """The files that are not there for the test, without what differs from run to run."""
    inputs = ("in", "cols", "dos")
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "home" not in path.parts]
    return {name: content(path) for path in files if (name := str(path.relative_to(folder))) not in inputs}


def content(path: Path) -> str | list[list[str]]:
    extension = path.suffix.lower()
    if path.name != "log" and extension not in (".csv", ".tsv", ".json"):
        return path.read_text()
    with open(path, newline="") as file:
        if extension == ".json":
            return [
                [key, str(value)]
                for line in file
                for key, value in json.loads(line).items()
                if "time" not in key.lower()
            ]
        rows = list(csv.reader(file, "excel" if extension == ".csv" else "excel-tab"))
    for row in rows:
        del row[_TIMES]
    return rows


@pytest.mark.parametrize(("steps", "left"), CASES, ids=names(CASES))
def test_files_as_of_gnu_parallel(cli: Cli, here: Path, steps: Steps, left: Tree) -> None:
    write_inputs(here)
    for argv in steps:
        cli("run", "--quiet", "-kj1", *argv)
    assert tree(here) == left


@needs_gnu
def test_files_of_gnu_parallel_have_not_changed(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """All of them only with --long: it takes a while to start."""
    for number, (steps, left) in enumerate(CASES if request.config.getoption("--long") else CASES[::8]):
        folder = tmp_path / str(number)
        folder.mkdir()
        write_inputs(folder)
        for argv in steps:
            gnu(folder, "-kj1", *argv)
        assert (steps, tree(folder)) == (steps, left)


def rows(path: Path) -> list[list[str]]:
    found = content(path)
    assert isinstance(found, list)
    return found


def test_a_joblog_that_is_added_to_has_a_head_of_its_own(cli: Cli, here: Path) -> None:
    """Without one, GNU parallel's --resume takes its first job for the head."""
    for argument in ("a", "b"):
        assert cli("run", "--joblog", "+log", "echo", ":::", argument).status == 0
    assert [row[-1] for row in rows(here / "log")] == ["Command", "echo a", "echo b"]


@pytest.mark.parametrize("name", ["-", "/dev/stdout"])
def test_a_joblog_on_stdout(here: Path, name: str) -> None:
    said = program(here, "run", "-kj1", "--joblog", name, "echo", ":::", "a", "b")
    assert [line.split("\t")[-1] for line in said.splitlines() if "\t" in line] == ["Command", "echo a", "echo b"]
    assert sorted(line for line in said.splitlines() if "\t" not in line) == ["a", "b"]
    assert not list(here.iterdir())
    assert not Path(f"{name}.running").exists()


def test_a_table_on_stdout(here: Path) -> None:
    said = program(here, "run", "-kj1", "--results", "-.csv", "echo", ":::", "a")
    (row,) = csv.DictReader(said.splitlines())
    assert (row["V1"], row["Command"]) == ("a", "echo a")
    assert not list(here.iterdir())


def program(folder: Path, *argv: str) -> str:
    return subprocess.run([*PROGRAM, *argv], cwd=folder, capture_output=True, text=True, check=True).stdout


def test_rows_have_a_cell_for_each_column(cli: Cli, here: Path) -> None:
    arguments = ["--header", ":", "echo", ":::", "n", "a", "b", "c"]
    assert cli("run", "-kj1", "-N2", "--results", "R.csv", *arguments).status == 0
    assert [row[-4:] for row in rows(here / "R.csv")] == [
        ["n", "V2", "Stdout", "Stderr"],
        ["a", "b", "a b\n", ""],
        ["c", "", "c\n", ""],
    ]


def test_bytes_that_are_no_text(cli: Cli, here: Path) -> None:
    for name in ("R.csv", "R.json"):
        cli("run", "--results", name, "printf", "\\377{}", ":::", "a")
    assert (here / "R.csv").read_bytes().endswith(b",\xffa,\n")
    assert json.loads((here / "R.json").read_text())["Stdout"] == "\ufffda"


def test_what_has_not_ended_has_no_results(cli: Cli, here: Path) -> None:
    """GNU parallel's --resume leaves out what had only begun: its files are there."""
    (here / "R").mkdir()
    (here / "R/b.seq").write_text("2")  # as of a run that was killed as it wrote them
    (here / "R/b.part").touch()
    said = cli("run", "--results", "R/{}", "--resume", "echo", ":::", "b")
    assert "skipping 0 done; 1 to do" in said.err
    assert sorted(path.name for path in (here / "R").iterdir()) == ["b", "b.err", "b.seq"]

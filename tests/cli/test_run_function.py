"""``run -f pkg.mod:fn``: what cannot be loaded, what handlers return, and lines that are no jobs."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bossworker.cli.json_text import json_text
from tests.cli.conftest import Cli, start_program

BROKEN = {  # a module, and what is told of it
    "raises": ("x = 1\nraise RuntimeError('no key')", "RuntimeError: no key ({}/raises.py, line 2)"),
    "leaves": ("import sys; sys.exit(7)", "SystemExit: 7 ({}/leaves.py, line 1)"),
    "misspelt": ("def f(:", "SyntaxError: invalid syntax (misspelt.py, line 1)"),
    "needy": ("import not_there", "No module named 'not_there'"),
}
HANDLERS = """
print("loaded")

def echo(job):
    print("called")
    return {"got": job}

def fail(job):
    raise ValueError("\x1b[31mbad")
"""


@pytest.mark.parametrize("module", BROKEN)
def test_a_module_that_cannot_be_loaded_says_why_and_where(here: Path, root: Path, module: str) -> None:
    text, why = BROKEN[module]
    (here / f"{module}.py").write_text(text)
    program = start_program("run", "-f", f"{module}:f", ":::", "1")
    out, err = program.communicate(timeout=60)
    assert (program.returncode, out) == (255, "")
    assert err == f"bossworker run: -f '{module}:f' cannot be loaded: {why.format(here)}\n"


def test_what_a_module_and_its_function_print_is_not_among_the_answers(here: Path, root: Path) -> None:
    (here / "handlers_of_lines.py").write_text(HANDLERS)
    program = start_program(
        "run", "-k", "-f", "handlers_of_lines:echo", ":::", *("x", '{"a":' + "[" * 100_000, '{"a": 1}')
    )
    out, err = program.communicate(timeout=60)
    assert [json.loads(line)["got"] for line in out.splitlines()] == [
        {"line": "x"},
        {"line": '{"a":' + "[" * 100_000},
        {"a": 1},
    ]
    assert (program.returncode, err.split()) == (0, ["loaded", *["called"] * 3])


def test_a_failure_is_told_with_its_place(here: Path, root: Path) -> None:
    (here / "handlers_that_fail.py").write_text(HANDLERS)
    program = start_program("run", "-f", "handlers_that_fail:fail", ":::", "1")
    _, err = program.communicate(timeout=60)
    assert program.returncode == 1
    assert "failed 1: 1: ValueError: ?[31mbad" in err
    assert f'File "{here}/handlers_that_fail.py", line 9, in fail' in err
    assert "\x1b" not in err


def test_json_is_valid_whatever_is_said() -> None:
    looped: list[object] = [1.5]
    looped.append(looped)
    value = {"n": float("nan"), "s": {1}, "l": looped, (1, 2): (float("inf"), 2), None: True, 7: "é"}
    told = json.loads(json_text(value), parse_constant=pytest.fail)
    assert told == {"n": None, "s": "{1}", "l": [1.5, "..."], "(1, 2)": [None, 2], "null": True, "7": "é"}
    assert json_text({"a": [1, 2.5, None]}) == '{"a": [1, 2.5, null]}'


def test_files_that_are_written_are_different_ones(cli: Cli, here: Path) -> None:
    said = cli("run", "--journal", "kept", "--joblog", "./kept", "true", ":::", "1")
    assert (said.status, said.out) == (255, "")
    assert "two of them have one name" in said.err
    assert not (here / "kept").exists()
    assert cli("run", "--junit", "/dev/null", "--joblog", "/dev/null", "true", ":::", "1").status == 0

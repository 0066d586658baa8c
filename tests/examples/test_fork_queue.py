"""fork_queue.py, on modules made here; what it says is checked against what is in them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.examples.runner import PROJECT, check_clean, check_refused, run

FORK_QUEUE = PROJECT / "examples" / "fork_queue.py"
MODULE = "class C:\n    def method(self):\n        print(len([]))\n\n" + "# filling\n" * 5_000


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    for n in range(6):
        (tmp_path / f"module{n}.py").write_text(MODULE * (1 + 2 * (n % 2)))
    (tmp_path / "small.py").write_text("pass\n")
    return tmp_path


@pytest.mark.parametrize("size", [1, 3])
def test_what_it_says_of_some_modules(modules: Path, size: int) -> None:
    (modules / "dangling.py").symlink_to("nowhere")
    ended = run(FORK_QUEUE, modules, "--size", size)
    check_clean(ended)
    said = [line for line in ended.stdout.splitlines() if not line.startswith("  ")]
    assert said == [
        f"6 of 6 modules are in order; at most {size} children at once",
        "all in order: True; heavy ones counted double",
        "12 functions, 12 classes, 24 calls",
    ]


def test_a_module_that_is_not_in_order_is_noticed(modules: Path) -> None:
    (modules / "module3.py").write_text("def\n" + MODULE)
    ended = run(FORK_QUEUE, modules)
    assert ended.stdout.startswith("5 of 6 modules are in order")
    assert "all in order: False" in ended.stdout
    assert ended.returncode == 1
    assert "SyntaxError" in ended.stderr


def test_modules_of_the_standard_library() -> None:
    folder = Path(json.__file__).parents[1]
    big = [module for module in folder.glob("*.py") if module.stat().st_size >= 40_000]
    ended = run(FORK_QUEUE)
    check_clean(ended)
    assert f"{len(big)} of {len(big)} modules are in order; at most 4 children at once" in ended.stdout


def test_a_folder_that_is_not_there() -> None:
    check_refused(run(FORK_QUEUE, "/nonexist"), "no such folder: /nonexist")

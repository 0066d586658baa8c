"""The house: what stands above may import what stands below, never the other way round; and all is short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import bossworker

pytestmark = pytest.mark.once("the text of our modules")
HOME = Path(bossworker.__file__).parent
LAYERS = (  # from the top; the rooms of one layer know nothing of each other
    ("jobs", "tasks.client", "pool.caller"),
    ("journal",),
    ("pool.door", "commands.hosting"),
    ("pool.launch", "commands.inline", "tasks.supervisor"),
    ("pool.reloading",),
    ("pool.fresh_interpreter",),
    ("pool.boss", "pool.worker", "pool.interpreter", "tasks.wire", "commands.supervision", "forkqueue"),
    ("pool.wire", "commands"),
    ("pool.options",),
    ("watch",),
    ("result", "culprits"),
    ("failure",),
    ("function_calls",),
    ("errors", "pickling", "jobkey"),
    ("system",),
    ("display",),
)
FACES = (  # nobody imports them
    "__main__", "executor", "aio", "cli", "web", "engines", "joblib", "metrics", "otel", "mypy_plugin"
)  # fmt: skip
ERRORS = "errors.py"  # the one file name that each part may have: it is where one looks for a part's errors

MOST_LINES = 400  # of a module
MEDIAN_OF_FUNCTIONS, MOST_FUNCTIONS = 8, 20  # lines of code: of half of them, and of nine in ten


def modules() -> dict[str, Path]:
    """Every module but the ``__init__``s, by its dotted name below the package."""
    paths = (path for path in HOME.rglob("*.py") if path.name != "__init__.py")
    return {".".join(path.relative_to(HOME).with_suffix("").parts): path for path in paths}


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def imports(path: Path, known: dict[str, Path], all_of_them: bool = True) -> Iterator[str]:
    """The modules of ours that a file imports, for type checkers and inside functions too; or only as it is loaded."""
    tree = tree_of(path)
    for node in ast.walk(tree) if all_of_them else tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == "bossworker":
            home = (node.module or "").removeprefix("bossworker").lstrip(".")
            inner = [f"{home}.{alias.name}".lstrip(".") for alias in node.names]
            yield from (home,) if home in known else (name for name in inner if name in known)
        elif isinstance(node, ast.Import):
            names = (alias.name.removeprefix("bossworker.") for alias in node.names)
            yield from (name for name in names if name in known)


def room_of(module: str) -> str:
    rooms = [room for layer in LAYERS for room in layer if f"{module}.".startswith(f"{room}.")]
    return max(rooms, key=len, default="") or module.partition(".")[0]


def test_every_module_has_its_layer() -> None:
    rooms = {room for layer in LAYERS for room in layer} | set(FACES)
    assert {room_of(module) for module in modules()} - {"tasks"} <= rooms  # tasks/errors.py is all that lies there


def test_imports_go_down_only() -> None:
    known = modules()
    height = {room: -at for at, layer in enumerate(LAYERS) for room in layer} | {"tasks": -7}
    upward = [
        f"{module} -> {target}"
        for module, path in known.items()
        for target in imports(path, known)
        if room_of(module) != room_of(target)
        and height.get(room_of(target), 1) >= height.get(room_of(module), 1)
        and (room_of(module), room_of(target)) not in SAME_LAYER
    ]
    assert not upward


SAME_LAYER = {
    ("errors", "result"),  # a failed result is told of by name, for type checkers alone
    ("joblib", "executor"),  # a face on a face
    ("web", "cli"),  # jobs and tasks are looked at in one way
    ("web", "metrics"),  # what Prometheus asks for
    ("cli", "web"),  # `bossworker web`
    ("__main__", "cli"),
}


def test_no_circle_within_a_room() -> None:
    """A task knows its pool and a pool makes tasks: such pairs may name each other, but neither is loaded twice."""
    known = modules()
    TopologicalSorter({one: set(imports(path, known, all_of_them=False)) for one, path in known.items()}).prepare()


def test_no_two_modules_have_one_name() -> None:
    names = [path.name for path in modules().values() if path.name != ERRORS]
    assert sorted(names) == sorted(set(names))


def test_no_two_public_classes_have_one_name() -> None:
    names = [
        node.name
        for path in modules().values()
        for node in tree_of(path).body
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_")
    ]
    assert sorted(names) == sorted(set(names))


def lengths_of_functions(path: Path) -> Iterator[int]:
    """Lines of code: neither signature nor docstring, no comment, no blank line."""
    lines = path.read_text().splitlines()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            body = node.body[ast.get_docstring(node, clean=False) is not None :]
            within = lines[body[0].lineno - 1 : node.end_lineno] if body else []
            yield sum(bool(line.strip()) and not line.lstrip().startswith("#") for line in within)


def test_modules_and_functions_are_short() -> None:
    paths = [HOME / "__init__.py", *modules().values()]
    long = {path.name: lines for path in paths if (lines := path.read_text().count("\n")) > MOST_LINES}
    assert not long
    lengths = sorted(length for path in paths for length in lengths_of_functions(path))
    assert lengths[len(lengths) // 2] <= MEDIAN_OF_FUNCTIONS
    assert lengths[len(lengths) * 9 // 10] <= MOST_FUNCTIONS


def test_every_module_is_on_the_map_of_its_folder() -> None:
    """The docstring of its ``__init__.py``, by which one who is new here finds the way; and nothing else is on it."""
    names = {path.name for path in HOME.rglob("*.py")} | {Path(__file__).name}
    maps = {path.parent: ast.get_docstring(tree_of(path)) or "" for path in HOME.rglob("__init__.py")}
    assert not [path for path in modules().values() if path.name not in maps[path.parent]]
    assert not {name for text in maps.values() for name in re.findall(r"\w+\.py\b", text)} - names

"""The house: what stands above may import what stands below, never the other way round; and all is short."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import bossworker

pytestmark = pytest.mark.once("the text of our modules")
HOME = Path(bossworker.__file__).parent
PROJECT = Path(__file__).parents[2]
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


@cache
def names_imported(path: Path) -> dict[str, str]:
    """What a file imports from us, wherever in it, by what it is called there: dotted names below the package."""
    found = {}
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            home = f"{node.module}." if isinstance(node, ast.ImportFrom) else ""
            found.update({alias.asname or alias.name: home + alias.name for alias in node.names})
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith("import_module"):
            found.update({str(one.value): str(one.value) for one in node.args if isinstance(one, ast.Constant)})
        elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "bossworker":
            found[f"bossworker.{node.attr}"] = f"bossworker.{node.attr}"
    ours = {called: name for called, name in found.items() if f"{name}.".startswith("bossworker.")}
    return {called: name.removeprefix("bossworker").lstrip(".") for called, name in ours.items()}


def homes_of(name: str, known: dict[str, Path]) -> set[str]:
    """The modules that an import of this name needs; one that a package hands on is at home in a module below it."""
    package, _, last = name.rpartition(".")
    if not name:  # `import bossworker`: of it, what is named is needed
        return set()
    if name in known or package in known:
        return {name if name in known else package}
    if (whole := HOME.joinpath(*name.split("."), "__init__.py")).exists():
        return {home for inner in names_imported(whole).values() for home in homes_of(inner, known)}
    handed_on = names_imported(HOME.joinpath(*package.split("."), "__init__.py"))
    return homes_of(handed_on[last], known) if last in handed_on else set()


def imports(module: str, known: dict[str, Path]) -> set[str]:
    """The modules of ours that one imports: for type checkers and inside functions too."""
    return {home for name in names_imported(known[module]).values() for home in homes_of(name, known)} - {module}


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
        for module in known
        for target in imports(module, known)
        if room_of(module) != room_of(target)
        and height.get(room_of(target), 1) >= height.get(room_of(module), 1)
        and (room_of(module), room_of(target)) not in SAME_LAYER
        and target not in WHOLE.get(module, ())
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
WHOLE = {  # two parts of one whole, of which each has to name the other
    "errors": {"result"},  # an error has the result that it is about
    "pool.caller.client": {"pool.caller.inline_pool", "engines.engine_pool"},  # it becomes one of these, its subclasses
    "pool.worker.plain_jobs": {"pool.worker.job_runner"},  # one loop, of which a part may be compiled
    "tasks.client.stream": {"tasks.client.task"},  # a stream is a task's,
    "tasks.client.task": {"tasks.client.task_pool"},  # and a task is a pool's
}


def circle(graph: dict[str, set[str]]) -> list[str]:
    """One, if there is any."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_no_circle() -> None:
    known = modules()
    assert not circle({module: imports(module, known) - WHOLE.get(module, set()) for module in known})


def test_what_is_excused_would_be_a_circle() -> None:
    known = modules()
    graph = {module: imports(module, known) - WHOLE.get(module, set()) for module in known}
    for module, others in WHOLE.items():
        for other in others:
            assert circle({**graph, module: {*graph[module], other}}), (module, other)


def test_imports_are_seen_wherever_they_stand(tmp_path: Path) -> None:
    one, two, three = (tmp_path / f"{name}.py" for name in ("one", "two", "three"))
    one.write_text("if TYPE_CHECKING:\n    from bossworker import two\n")
    two.write_text("def load():\n    return import_module('bossworker.three')\n")
    three.write_text("class Late:\n    def load(self):\n        import bossworker.one as first\n")
    known = {path.stem: path for path in (one, two, three)}
    assert len(circle({module: imports(module, known) for module in known})) == 4
    known = modules()
    assert homes_of("tasks.TaskPool", known) == {"tasks.client.task_pool"}  # which its package hands on
    assert homes_of("BossWorker", known) == {"pool.caller.client"}


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


def test_what_the_guides_name_is_there() -> None:
    """Files; and functions in brackets behind their file, by which ARCHITECTURE.md follows a job."""
    folders = ("*", "[!.]*/**/*", ".github/**/*")  # not what is installed in .venv
    names = {path.name for folder in folders for path in PROJECT.glob(folder)}
    for guide in ("ARCHITECTURE.md", "CONTRIBUTING.md", "SECURITY.md"):
        text = (PROJECT / guide).read_text()
        assert not set(re.findall(r"\w+\.(?:py|c|js|md|yml|toml)\b", text)) - names, guide
        for path, listed in re.findall(r"`([\w/]+\.py)` \(((?:`\w+`(?:,\s)?)+)\)", text):
            within = {
                node.name
                for found in HOME.rglob(Path(path).name)
                if found.as_posix().endswith(f"/{path}")
                for node in ast.walk(tree_of(found))
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)
            }
            assert not set(re.findall(r"\w+", listed)) - within, (guide, path)

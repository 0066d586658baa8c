"""Collects the error texts of the package from its source: ``python docs/error_texts.py`` prints them, a line each.

Braces stand for what a text is made of. Errors that never leave the package, of its wires, are left out. A test
holds that troubleshooting.md has each of them.
"""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "bossworker"
INTERNAL = {
    "AssertionError",  # cannot happen
    "BadFrame", "CallerGone", "Gone", "LinkClosed", "ProtocolError", "Silent", "UnpicklingError",  # of the wires
    "Damaged", "EOFError", "KeyboardInterrupt", "StopIteration", "SystemExit", "NotImplementedError",
}  # fmt: skip
MARK = "BossWorkerAsync: "
UNSEEN = ("system.cpus", "system.cpython", "tasks.supervisor.requests")  # modules whose errors others handle


def error_texts() -> dict[str, list[str]]:
    """By text: where it is made, as ``module: class``."""
    found: dict[str, list[str]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        module = str(path.relative_to(PACKAGE)).removesuffix(".py").replace("/", ".")
        if module in UNSEEN:
            continue
        for name, text in _errors(ast.parse(path.read_text())):
            found.setdefault(text, []).append(f"{module}: {name}")
    return found


def _errors(tree: ast.AST) -> Iterator[tuple[str, str]]:
    nodes = list(ast.walk(tree))
    parts = {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
    functions = {inside: node for node in nodes if isinstance(node, ast.FunctionDef) for inside in ast.walk(node)}
    constants = [node for node in getattr(tree, "body", []) if isinstance(node, ast.Assign)]
    for node in nodes:
        if isinstance(node, ast.Call) and (name := _error_class(node.func)):
            for argument in node.args[:2]:
                yield from ((name, text) for text in _told(argument, functions.get(node), constants))
        elif isinstance(node, ast.Constant | ast.JoinedStr) and node not in parts:
            yield from (("ERROR", text) for text in _texts(node) if text.startswith(MARK) and text != MARK)


def _told(argument: ast.expr, function: ast.AST | None, constants: list[ast.Assign]) -> Iterator[str]:
    """The texts of an error's argument; of a variable, whatever its function, or its module, puts into it."""
    texts = list(_texts(argument))
    if isinstance(argument, ast.Name):
        nodes = [*constants, *(ast.walk(function) if function is not None else ())]
        texts += [text for node in nodes if _assigns(node, argument.id) for text in _texts(node.value)]  # type: ignore[attr-defined]
    yield from (text for text in texts if text.strip("{} :()"))


def _assigns(node: ast.AST, name: str) -> bool:
    return isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == [name]


def _error_class(function: ast.expr) -> str | None:
    name = ast.unparse(function).rpartition(".")[2]
    if name in INTERNAL:
        return None
    known = isinstance(getattr(builtins, name, None), type) and issubclass(getattr(builtins, name), BaseException)
    ours = name.endswith(
        (
            "Error",
            "Failed",
            "Died",
            "Gone",
            "Locked",
            "Started",
            "Refused",
            "Closed",
            "Pending",
            "Result",
            "InUse",
            "NotDone",
        )
    )
    return name if known or (ours and name[:1].isupper()) else None


def _texts(node: ast.expr) -> Iterator[str]:
    """The texts that an expression may be, with ``{}`` for what is put in."""
    match node:
        case ast.Constant(value=str(text)):
            yield text
        case ast.JoinedStr(values=values):
            yield "".join(part.value if isinstance(part, ast.Constant) else "{}" for part in values)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            for first in list(_texts(left)) or ["{}"]:
                for second in list(_texts(right)) or ["{}"]:
                    yield first + second
        case ast.IfExp(body=body, orelse=orelse):
            yield from _texts(body)
            yield from _texts(orelse)


if __name__ == "__main__":
    for one, where in sorted(error_texts().items(), key=lambda pair: pair[1]):
        print(f"{where[0]:60} {one}")

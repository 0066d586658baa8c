"""Loops that Ctrl-C leaves by the exit of the ``with`` or ``finally`` around them.

From CPython 3.12 on, a loop that ends by a condition jumps back by an instruction that the exception table of its own
function does not cover. A signal handler that raises just there leaves the function, and what stands around the loop is
skipped: a lock stays taken, a descriptor open. A loop in a function of its own is covered, by the call.
"""

from __future__ import annotations

import ast
import dis
import sys
from collections.abc import Iterator
from inspect import CO_ASYNC_GENERATOR, CO_COROUTINE
from pathlib import Path
from types import CodeType

import pytest

import bossworker

PACKAGE = Path(bossworker.__file__).parent

# No signal handler raises there: processes of ours, threads, or an event loop.
ELSEWHERE = (
    "cli/spooler.py",
    "engines/engine_line.py",
    "engines/line_",
    "engines/resident.py",
    "journal/scribe.py",
    "pool/boss/",
    "pool/caller/futures.py",  # the attendant
    "tasks/supervisor/",
    "web/",
)
# What is left behind is a file object, which closes itself, or nothing.
HARMLESS = ("suppress(", "open(", "os.scandir(", "memoryview(")


def matters(node: ast.AST) -> bool:
    """Whether it does something at its end, also if what it holds is interrupted."""
    if isinstance(node, ast.With):
        return not all(ast.unparse(item.context_expr).startswith(HARMLESS) for item in node.items)
    return isinstance(node, ast.Try) and (bool(node.finalbody) or any(map(catches_all, node.handlers)))


def catches_all(handler: ast.ExceptHandler) -> bool:
    return handler.type is None or ast.unparse(handler.type) in ("BaseException", "KeyboardInterrupt")


def functions(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from functions(constant)


def uncovered(code: CodeType) -> Iterator[tuple[int, int]]:
    """Lines from which it jumps back, and to which, where no handler of its own would catch anything."""
    instructions = list(dis.get_instructions(code))
    lines = {each.offset: each.positions.lineno for each in instructions if each.positions is not None}
    covered = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
    for jump in instructions:
        if jump.opname == "JUMP_BACKWARD" and not any(entry.start <= jump.offset < entry.end for entry in covered):
            begin, end = lines.get(jump.argval), lines.get(jump.offset)
            if begin is not None and end is not None:
                yield begin, end


def loops_that_leave(source: str) -> list[str]:
    """Where one would leave something that matters."""
    lines = source.splitlines()
    blocks = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.With | ast.Try) and matters(node)]
    found = []
    for code in functions(compile(source, "source", "exec")):
        if code.co_flags & (CO_COROUTINE | CO_ASYNC_GENERATOR):  # asyncio cancels instead
            continue
        for begin, end in uncovered(code):
            for block in blocks:
                inside = block.body[0].lineno <= min(begin, end) and max(begin, end) <= (block.body[-1].end_lineno or 0)
                if inside and block.lineno >= code.co_firstlineno:
                    found.append(f"{code.co_qualname}, line {block.lineno}: {lines[block.lineno - 1].strip()}")
    return found


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 covers them")
def test_no_loop_leaves_a_lock_or_a_descriptor_behind() -> None:
    found = []
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).as_posix()
        if not name.startswith(ELSEWHERE):
            found += [f"{name}: {loop}" for loop in loops_that_leave(path.read_text())]
    assert not found, "put the loop into a function of its own:\n" + "\n".join(found)


@pytest.mark.skipif(sys.version_info < (3, 12), reason="3.11 covers them")
@pytest.mark.skipif(sys.version_info >= (3, 14), reason="not looked at: later versions may cover them")
def test_one_that_does_is_found() -> None:
    loop = "def drain(lock, queue):\n    with lock:\n        while queue:\n            queue.pop()\n"
    assert loops_that_leave(loop) == ["drain, line 2: with lock:"]
    assert not loops_that_leave("def all(lock, f):\n    with lock:\n        f()\n")

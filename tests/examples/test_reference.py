"""The documentation is complete: public names have a docstring and a place in the reference, error texts a row."""

from __future__ import annotations

import importlib.util
import inspect
import re
import sys
from functools import cache
from types import ModuleType
from typing import Any

import pytest

from tests.examples.runner import PROJECT

pytestmark = pytest.mark.once("the text of docstrings, and of pages")
DOCS = PROJECT / "docs"
MODULES = [
    "bossworker",
    *(f"bossworker.{name}" for name in ["jobs", "tasks", "forkqueue", "metrics", "otel", "joblib", "web", "journal"]),
]
each_module = pytest.mark.parametrize("home", MODULES)  # loaded by the tests alone: they are large


def load(name: str) -> ModuleType:
    """A script of docs/, which is no package."""
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where its dataclasses look
    try:
        spec.loader.exec_module(module)
    finally:
        del sys.modules[name]
    return module


@cache
def error_texts() -> dict[str, list[str]]:
    texts: dict[str, list[str]] = load("error_texts").error_texts()
    return texts


def rows() -> list[str]:
    """The texts in the first column of troubleshooting.md."""
    page = (DOCS / "troubleshooting.md").read_text().replace("\\|", "|")
    return re.findall(r"^\| `(.+?)`[^|`]* \|", page, re.MULTILINE)


def covers(row: str, text: str) -> bool:
    if row.startswith("BossWorkerAsync: …"):  # these would cover all that begin so
        return row == text.replace("{}", "…")
    pattern = ".*".join(re.escape(part) for part in row.split("…"))
    return re.fullmatch(pattern, text.replace("{}", "…"), re.DOTALL) is not None


def test_every_error_text_is_explained() -> None:
    """With its cause and the way out; ``…`` stands for what the text is made of."""
    known = rows()
    texts = error_texts()
    assert len(texts) > 200
    missing = {text: where for text, where in texts.items() if not any(covers(row, text.strip()) for row in known)}
    assert not missing, "add them to docs/troubleshooting.md:\n" + "\n".join(
        f"{t}   ({w[0]})" for t, w in missing.items()
    )


def test_no_row_explains_what_there_is_not() -> None:
    texts = [text.strip() for text in error_texts()]
    page = (DOCS / "troubleshooting.md").read_text()
    specific = [row for row in rows() if len(row.replace("…", "")) > 30 and row in page.split("## Warnings")[0]]
    for row in specific:
        assert any(covers(row, text) for text in texts), f"no such text: {row}"


def test_pictures_are_what_the_script_draws() -> None:
    for name, draw in load("pictures").DRAWINGS.items():
        assert (DOCS / "pictures" / f"{name}.svg").read_text() == draw(), "run docs/pictures.py"


def undocumented(thing: Any) -> bool:
    return not (inspect.getdoc(thing) or "").strip()


def public(home: str) -> list[tuple[str, Any]]:
    """What a module exports."""
    module = importlib.import_module(home)
    return [(name, getattr(module, name)) for name in module.__all__]


@each_module
def test_a_public_name_has_a_docstring(home: str) -> None:
    for name, value in public(home):
        if inspect.isroutine(value) or inspect.isclass(value):
            assert not undocumented(value), name
        if inspect.isclass(value):
            for attribute, member in vars(value).items():
                function = getattr(member, "__func__", member)
                if not attribute.startswith("_") and (inspect.isfunction(function) or isinstance(member, property)):
                    assert not undocumented(getattr(value, attribute)), (name, attribute)


@each_module
def test_a_public_name_has_a_place_in_the_reference(home: str) -> None:
    pages = "".join(page.read_text() for page in (DOCS / "reference").glob("*.md"))
    for name, _ in public(home):
        assert re.search(rf":: {re.escape(f'{home}.{name}')}$", pages, re.MULTILINE) or (
            home == "bossworker.forkqueue" and f"``{name}``" in pages
        ), name


@each_module
def test_arguments_are_explained(home: str) -> None:
    """By name: in the docstring, or for a method that says "as", in that of the other."""
    doc_of_module = str(importlib.import_module(home).__doc__)
    for _, value in public(home):
        functions = [value] if inspect.isfunction(value) else public_methods(value) if inspect.isclass(value) else []
        check_arguments(functions, doc_of_module)


def check_arguments(functions: list[Any], doc_of_module: str) -> None:
    for function in functions:
        doc = (inspect.getdoc(function) or "") + doc_of_module
        if re.search(r"\b(As|as for|as `|as ``|after|``get_result)\b", doc) or "Args:" not in doc:
            continue
        parameters = [one for one in inspect.signature(function).parameters.values() if one.kind is one.KEYWORD_ONLY]
        for parameter in parameters:
            assert re.search(rf"\b{parameter.name}\b", doc), f"{function.__qualname__}: {parameter.name}"


def public_methods(value: type) -> list[Any]:
    return [member for name, member in vars(value).items() if inspect.isfunction(member) and not name.startswith("_")]


def test_every_variable_is_in_the_reference() -> None:
    page = (DOCS / "reference" / "environment.md").read_text()
    sources = "".join(path.read_text() for path in (PROJECT / "bossworker").rglob("*.py"))
    for name in set(re.findall(r'"(BOSSWORKER_[A-Z]+(?:_[A-Z]+)*)"', sources)):
        assert name in page, name


def test_every_command_is_in_the_reference() -> None:
    from bossworker.cli.parsers import all_parsers

    page = (DOCS / "reference" / "command-line.md").read_text()
    for name in all_parsers():
        assert f"program-help:: {name}\n" in page, name

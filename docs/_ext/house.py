"""What the documentation does with docstrings, with links, and with the command line's own help.

- The parts ``Args:``, ``Returns:`` and ``Raises:`` of a docstring become tables, with types and defaults from the
  signature.
- A name in single backticks is a link where there is something of that name, and code where there is not.
- ``.. program-help:: run`` shows what ``bossworker run --help`` prints.
- The pages of the project's root (ARCHITECTURE.md and so on) are shown as they are; their links lead to pages here.
- A page of howto/ that its index does not name is put at its end.
"""

from __future__ import annotations

import builtins
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

ROOT = Path(__file__).parents[2]
PARTS = ("Args", "Returns", "Raises", "Yields")
MODULES = ("bossworker", "bossworker.jobs", "bossworker.tasks", "bossworker.forkqueue")
ROOT_PAGES = {
    "ARCHITECTURE.md": "/inside/architecture.md",
    "CONTRIBUTING.md": "/inside/contributing.md",
    "SECURITY.md": "/inside/security.md",
    "README.md": "/index.md",
    "CHANGELOG.md": "/changelog.md",
}

ALIASES = {
    "Root": "str | os.PathLike[str] | None",
    "Arguments": "Sequence[str | os.PathLike[str]]",
    "Job_contra": "Job",
    "Answer_co": "Answer",
}

Entry = tuple[str, list[str]]


def process_docstring(_app: Sphinx, _what: str, _name: str, thing: Any, _options: Any, lines: list[str]) -> None:
    """Put tables in the place of the parts."""
    lines[:] = [line for part in _split(lines) for line in _shown(part, thing)]


def _split(lines: list[str]) -> Iterator[list[str]]:
    """A docstring's parts, each with its heading; what is none comes as it is."""
    part: list[str] = []
    for line in lines:
        inside = bool(part) and part[0].removesuffix(":") in PARTS
        begins = line.endswith(":") and line.removesuffix(":") in PARTS
        if begins or (inside and line and not line.startswith(" ")):
            yield part
            part = [line]
        else:
            part.append(line)
    yield part


def _shown(part: list[str], thing: Any) -> list[str]:
    heading = part[0].removesuffix(":") if part else ""
    if heading not in PARTS or not part[0].endswith(":"):
        return part
    body = [line[4:] for line in part[1:]]
    if heading in ("Returns", "Yields"):
        return [f"**{heading}** " + " ".join(body), ""]
    entries = list(_entries(body))
    if heading == "Args":
        return _table(("Argument", "Type, default", "Meaning"), [_argument(entry, thing) for entry in entries])
    return _table(
        ("Raises", "When"), [(", ".join(f"`{one}`" for one in name.split(", ")), text) for name, text in entries]
    )


def _entries(body: list[str]) -> Iterator[Entry]:
    """``name: text``, with what is indented below it."""
    name, text = "", []
    for line in body:
        if match := re.match(r"(\*{0,2}\w[\w.*, ]*): (.*)$", line):
            if name:
                yield name, text
            name, text = match[1], [match[2]]
        elif name:
            text.append(line.strip())
        elif line:
            name, text = "", [line]
    if name:
        yield name, text


def _argument(entry: Entry, thing: Any) -> tuple[str, str, list[str]]:
    names, text = entry
    return ", ".join(f"``{name}``" for name in names.split(", ")), _kind(names.split(", ")[0], thing), text


def _kind(name: str, thing: Any) -> str:
    """An argument's type and default, as the signature has them."""
    try:
        parameter = inspect.signature(thing).parameters[name.lstrip("*")]
    except (KeyError, TypeError, ValueError):
        return ""
    told = re.sub(r"\w+", lambda word: ALIASES.get(word[0], word[0]), str(parameter.annotation))
    kind = "" if parameter.annotation is parameter.empty else f"``{told}``"
    default = "" if parameter.default is parameter.empty else f" = ``{_default(parameter.default)}``"
    return kind + default


def _default(value: Any) -> str:
    return "..." if value is ... else value.__name__ if inspect.isclass(value) else repr(value)


def _table(headings: tuple[str, ...], rows: list[Any]) -> list[str]:
    widths = {2: "25 75", 3: "24 24 52"}[len(headings)]
    table = ["", ".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", "   :class: options", ""]
    for row in [headings, *rows]:
        for number, cell in enumerate(row):
            mark = "   * - " if number == 0 else "     - "
            text = [cell] if isinstance(cell, str) else cell
            table += [mark + text[0], *(f"       {line}" for line in text[1:])]
    return [*table, ""]


def find_reference(_app: Sphinx, env: Any, node: Any, content: nodes.Element) -> nodes.Node | None:
    """A name that Sphinx has not found: one of ours by its short name, or code; what is of the library is no link."""
    if node.get("refdomain") != "py":
        return None
    target = node["reftarget"]
    domain = env.get_domain("py")
    for module in MODULES:
        if (full := f"{module}.{target}") in domain.objects:
            return domain.resolve_xref(env, node["refdoc"], _app.builder, "obj", full, node, content)
    first = target.split(".")[0]
    if node["reftype"] == "obj" or hasattr(builtins, first) or first in sys.stdlib_module_names:
        return nodes.literal("", content.astext(), classes=["xref"])
    return None


def _options(command: str) -> list[str]:
    from bossworker.cli.parsers import all_parsers, options_of

    rows = []
    for one in options_of(all_parsers()[command]):
        value = "" if one.nargs == 0 else f" {one.metavar or one.dest.upper()}"
        rows.append(
            (", ".join(f"``{flag}{value}``" for flag in one.option_strings), (one.help or "").replace("%%", "%"))
        )
    return _table(("Option", "Meaning"), [(name, nodes_free(text)) for name, text in rows if name])


def nodes_free(text: str) -> str:
    """Text without what reStructuredText would take for markup."""
    return re.sub(r"([*`|_\\])", r"\\\1", text)


class ProgramNotes(SphinxDirective):
    """``.. program-notes:: _JSON``: a part of the manual page."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        from bossworker.cli import manual_page

        text = getattr(manual_page, self.arguments[0])
        return [nodes.paragraph(line, line) for line in re.sub(r"\n(?!\w[\w, ]*: )", " ", text).split("\n")]


class ProgramHelp(SphinxDirective):
    """``.. program-help:: run``: what ``bossworker run --help`` prints, and its options in a table."""

    optional_arguments = 1

    def run(self) -> list[nodes.Node]:
        table = self.parse_text_to_nodes("\n".join(_options(self.arguments[0]))) if self.arguments else []
        return [*self._printed(), *table]

    def _printed(self) -> list[nodes.Node]:
        command = [sys.executable, "-m", "bossworker", *self.arguments, "--help"]
        surroundings = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "100", "NO_COLOR": "1"}
        text = subprocess.run(command, capture_output=True, text=True, check=True, env=surroundings).stdout
        return [nodes.literal_block(text, text, language="none")]


def rewrite_links(_app: Sphinx, name: str, source: list[str]) -> None:
    """Links of the project's own pages, which are shown as they are."""
    if name.startswith("inside/") or name == "changelog":
        for page, here in ROOT_PAGES.items():
            source[0] = source[0].replace(f"]({page}", f"]({here}")
        source[0] = source[0].replace("](docs/", "](/")


def show_root_page(_app: Sphinx, _name: str, source: list[str]) -> None:
    """``<!-- page of the root: ARCHITECTURE.md -->`` stands for that page."""

    def text_of(match: re.Match[str]) -> str:
        return (ROOT / match[1]).read_text()

    source[0] = re.sub(r"<!-- page of the root: (\S+) -->", text_of, source[0])


def add_new_pages(app: Sphinx, name: str, source: list[str]) -> None:
    """``<!-- pages that are not above -->`` stands for those of this folder that nobody has put anywhere."""
    mark = "<!-- pages that are not above -->"
    if mark in source[0]:
        folder = name.rpartition("/")[0] + "/"
        pages = {one.removeprefix(folder) for one in app.env.found_docs if one.startswith(folder)}
        new = sorted(pages - {"index", *source[0].split()})
        table = ["```{toctree}", ":caption: New", ":maxdepth: 1", "", *new, "```"] if new else []
        source[0] = source[0].replace(mark, "\n".join(table))


def setup(app: Sphinx) -> dict[str, Any]:
    """Called by Sphinx."""
    hooks: tuple[tuple[str, Callable[..., Any]], ...] = (
        ("autodoc-process-docstring", process_docstring),
        ("missing-reference", find_reference),
        ("source-read", show_root_page),
        ("source-read", rewrite_links),
        ("source-read", add_new_pages),
    )
    for event, hook in hooks:
        app.connect(event, hook)
    app.add_directive("program-help", ProgramHelp)
    app.add_directive("program-notes", ProgramNotes)
    return {"parallel_read_safe": True}

"""The fenced blocks of a Markdown page, and what stands above them in a comment.

These languages are run: ``python``, which says what it prints (``# prints: ...``), and ``console``, whose lines are
commands behind ``$`` and what they print; ``...`` stands for anything. All others say why they are not, in a comment
above: ``<!-- not run: needs systemd -->``. Further comments: ``<!-- file: app.py -->`` (saved under that name and not
run; what follows on the page may use it), ``<!-- needs: fastapi -->`` (left out where that is not installed), ``<!-- in
order -->`` (the lines are printed in just this order).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

PRINTS = "# prints: "
RUN = ("python", "console")
DIRECTIVES = ("{", "mermaid")

_FENCE = re.compile(r"^(?P<fence>`{3,}|:{3,})(?P<language>.*)$")
_COMMENT = re.compile(r"^<!-- (?P<key>[a-z ]+?)(?:: (?P<value>.*?))? -->$")


@dataclass
class Block:
    """One fenced block."""

    page: Path
    line: int
    language: str
    text: str = ""
    notes: dict[str, str] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"

    @property
    def file(self) -> str | None:
        """The name it is saved under, instead of being run."""
        return self.notes.get("file")

    @property
    def missing(self) -> list[str]:
        """What it needs and is not installed here."""
        return [name for name in self.notes.get("needs", "").split() if find_spec(name) is None]

    @property
    def prints(self) -> list[str]:
        """The lines that it says it prints."""
        return [line.removeprefix(PRINTS) for line in self.text.splitlines() if line.startswith(PRINTS)]

    @property
    def commands(self) -> list[tuple[str, str]]:
        """The commands of a console block, each with what it prints."""
        pairs: list[tuple[str, str]] = []
        for line in self.text.splitlines(keepends=True):
            if line.startswith("$ "):
                pairs.append((line[2:], ""))
            elif line.startswith("> ") and pairs and not pairs[-1][1]:
                pairs[-1] = (pairs[-1][0] + line[2:], "")
            else:
                assert pairs, f"{self}: a console block begins with a command"
                pairs[-1] = (pairs[-1][0], pairs[-1][1] + line)
        return pairs


def blocks_of(page: Path) -> list[Block]:
    """All fenced blocks of a page, directives left out."""
    found: list[Block] = []
    inside: Block | None = None
    fence = ""
    notes: dict[str, str] = {}
    for number, line in enumerate(page.read_text().splitlines(), 1):
        if inside is not None:
            if line == fence:
                inside = None
            else:
                inside.text += line + "\n"
        elif match := _FENCE.match(line):
            fence = match["fence"]
            inside = Block(page, number, match["language"].strip(), notes=notes)
            notes = {}
            if not inside.language.startswith("{"):
                found.append(inside)
        elif match := _COMMENT.match(line):
            notes[match["key"]] = match["value"] or ""
        elif line:
            notes = {}
    assert inside is None, f"{inside}: this block is not closed"
    return found


def fits(said: str, printed: str) -> bool:
    """Whether something was printed as it was said, in which ``...`` stands for anything."""
    pattern = ".*".join(re.escape(part) for part in said.split("..."))
    return re.fullmatch(pattern, printed, re.DOTALL) is not None


def same_lines(said: list[str], printed: list[str]) -> bool:
    """Whether these lines were printed, in any order."""
    left = list(printed)
    for line in sorted(said, key=lambda line: "..." in line):
        match = next((one for one in left if fits(line, one)), None)
        if match is None:
            return False
        left.remove(match)
    return not left

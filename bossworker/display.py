"""How values are shown to people: short, on one line in consoles and logs, as a small table in notebooks."""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Mapping
from itertools import islice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

LONGEST_REPR = 120  # characters of a value; what is shown around it makes less than 80 more
LONGEST_RECORD = 199  # characters of a dataclass or a named tuple, with all its fields
LONGEST_CELL = 400  # characters of a value in a table
_SHORTEST = 12  # characters of a value that is cut


class _Short(reprlib.Repr):
    """Looks at as much of a value as it will show, however large that is."""

    def __init__(self, longest: int) -> None:
        super().__init__()
        self.longest = longest
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = 12
        self.maxstring = self.maxlong = self.maxother = longest

    def repr_dict(self, value: dict[Any, Any], level: int) -> str:
        """In the order of its entries, which reprlib sorts."""
        if value and level <= 0:
            return "{...}"
        entries = islice(value.items(), self.maxdict)
        shown = [f"{self.repr1(key, level - 1)}: {self.repr1(inner, level - 1)}" for key, inner in entries]
        return f"{{{', '.join([*shown, '...'] if len(value) > len(shown) else shown)}}}"

    def repr_bytes(self, value: bytes, level: int) -> str:
        return self.repr_instance(value[: self.longest + 1], level)

    repr_bytearray = repr_bytes

    def repr_int(self, value: int, level: int) -> str:
        return super().repr_int(value, level) if abs(value) < 1 << 1000 else f"<int of {value.bit_length()} bits>"


def shorten(value: object, longest: int = LONGEST_REPR) -> str:
    """The value's repr, cut in the middle where it is longer; never raises."""
    try:
        text = " ".join(_Short(longest).repr(value).split("\n"))
    except Exception as error:  # a class may have its own idea of its type
        text = f"<{type(value).__name__} whose repr raised {type(error).__name__}>"
    if len(text) <= longest:
        return text
    head = (longest - 3) * 2 // 3
    return f"{text[:head]}...{text[len(text) - (longest - 3 - head) :]}"


def short_record(record: Any) -> str:
    """What a dataclass or a named tuple has for a repr, with its longest values cut: the ``__repr__`` of such."""
    shown = {name: shorten(getattr(record, name), LONGEST_RECORD) for name in type(record).__match_args__}
    while (excess := len(text := _as_call(record, shown)) - LONGEST_RECORD) > 0:
        longest = max(shown, key=lambda name: len(shown[name]))
        if len(shown[longest]) <= _SHORTEST:
            return f"{text[: LONGEST_RECORD - 4]}...)"
        shown[longest] = shorten(getattr(record, longest), max(_SHORTEST, len(shown[longest]) - excess))
    return text


def _as_call(record: object, shown: Mapping[str, str]) -> str:
    return f"{type(record).__name__}({', '.join(f'{name}={value}' for name, value in shown.items())})"


def table(title: str, rows: Iterable[Iterable[object]], details: str = "") -> str:
    """HTML: a title, rows of which the first cell is a name, and text that is folded away. All of it is escaped."""
    lines = "".join(f"<tr>{_cells(row)}</tr>" for row in rows)
    folded = f"<details><summary>details</summary><pre>{_escaped(details)}</pre></details>" if details else ""
    return f"<div><b>{_escaped(title)}</b><table>{lines}</table>{folded}</div>"


def _escaped(text: str) -> str:
    import html  # whose table of entities takes a while to load, and only notebooks need it

    return html.escape(text)


def _cells(row: Iterable[object]) -> str:
    name, *values = row
    cells = "".join(f"<td>{_escaped(_text(value))}</td>" for value in values)
    return f"<th style='text-align:left'>{_escaped(_text(name))}</th>{cells}"


def _text(value: object) -> str:
    return value if type(value) is str and len(value) <= LONGEST_CELL else shorten(value, LONGEST_CELL)

"""Replacement strings, with GNU parallel's meanings: from a template and the arguments of a job to its command.

``{}`` the arguments, ``{.}`` without extension, ``{/}`` without folder, ``{//}`` the folder, ``{/.}`` without both,
``{2}`` ``{-1}`` ``{2/.}`` one argument, by its number, ``{name.}`` by a name of ``--header``, ``{#}`` the job's number,
``{%}`` its slot.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import groupby

from bossworker.system.records import NamedTuple

NUMBER, SLOT = "#", "%"
_PLAIN = bytes.maketrans(b"-+_./", b"a" * 5)
_SAFE = bytes.maketrans(b"-+_./@%=:,", b"a" * 10)  # as shlex has it


def without_extension(value: str) -> str:
    """``a/b.c`` is ``a/b``."""
    before, dot, extension = value.rpartition(".")
    return before if dot and "/" not in extension else value


def file_name(value: str) -> str:
    """``a/b.c`` is ``b.c``."""
    return value.rpartition("/")[2]


def folder(value: str) -> str:
    """``a/b.c`` is ``a``, and ``b.c`` is in ``.``"""
    stripped = value.rstrip("/")
    if value and not stripped:
        return "/"
    above, slash, _ = stripped.rpartition("/")
    return above.rstrip("/") or (slash or ".")


_OPERATIONS: dict[str, Callable[[str], str]] = {  # by how they end a replacement string, the longest first
    "//": folder,
    "/.": lambda value: without_extension(file_name(value)),
    "/": file_name,
    ".": without_extension,
    "": str,
}


def quote(word: str) -> str:
    """For a shell, as GNU parallel does it: also an ``=``, which may come to stand where it would set a variable."""
    if _is_plain(word, _PLAIN):
        return word
    quoted = "'" + word.replace("'", "'\"'\"'") + "'"
    return quoted.removeprefix("''").removesuffix("''") or quoted


def quote_word(word: str) -> str:
    """As `shlex.quote`, which is loaded only where there is something to quote."""
    if _is_plain(word, _SAFE):
        return word
    import shlex

    return shlex.quote(word)


def _is_plain(word: str, marks: bytes) -> bool:
    """Whether it has ASCII letters, digits and these marks alone. (A regular expression takes long to compile.)"""
    return word.isascii() and word.encode().translate(marks).isalnum()


class Row(NamedTuple):
    """What one job is made of."""

    seq: int
    args: tuple[str, ...]
    slot: int = 0


class Token(NamedTuple):
    """One replacement string. `which`: NUMBER, SLOT, an argument's index, or None for all of them."""

    which: str | int | None
    operation: Callable[[str], str]

    def values(self, row: Row, among: Sequence[str]) -> list[str]:
        """What it stands for. `among`: which of the arguments, where it stands for all."""
        if self.which is None:
            return list(among if self.operation is str else map(self.operation, among))
        if isinstance(self.which, str):
            return [str(row.seq if self.which == NUMBER else row.slot)]
        at = self.which if self.which < 0 else self.which - 1
        return [self.operation(row.args[at])] if -len(row.args) <= at < len(row.args) else []


Part = str | Token


class Word:
    """A text with replacement strings in it."""

    def __init__(self, text: str, names: Sequence[str] = (), repeat: bool = False) -> None:
        """
        Args:
            repeat: Whether ``x{}y`` stands for ``xay xby`` of two arguments (as with -N), and not for ``xa by``.
        """
        self.parts = list(_parts(text, names))
        self._repeated = repeat and any(token.which is None for token in self.tokens)
        self._constant = [text] if not self.tokens else None
        self._lone = self.tokens[0] if len(self.parts) == 1 and self.tokens else None

    @property
    def tokens(self) -> list[Token]:
        return [part for part in self.parts if isinstance(part, Token)]

    @property
    def uses_slot(self) -> bool:
        return any(token.which == SLOT for token in self.tokens)

    def words(self, row: Row, quote: Callable[[str], str] | None = None) -> list[str]:
        """As words of a command. A lone ``{}`` stands for as many as there are arguments."""
        if self._constant is not None:
            return self._constant
        if self._repeated and len(row.args) > 1:
            return [self._filled(row, (one,), quote or str) for one in row.args]
        if self._lone is not None:
            values = self._lone.values(row, row.args)
            return values if quote is None else list(map(quote, values))
        return [self._filled(row, row.args, quote or str)]

    def text(self, row: Row, quote: Callable[[str], str] | None = None) -> str:
        """As one text."""
        return " ".join(self.words(row, quote))

    def _filled(self, row: Row, among: Sequence[str], quote: Callable[[str], str]) -> str:
        return "".join(
            part if isinstance(part, str) else " ".join(map(quote, part.values(row, among))) for part in self.parts
        )


def _parts(text: str, names: Sequence[str]) -> list[Part]:
    parts: list[Part] = []
    at = searched = 0
    while (end := text.find("}", searched)) >= 0:
        begin = text.rfind("{", searched, end)
        searched = end + 1
        if begin >= 0 and (token := _token(text[begin + 1 : end], names)) is not None:
            parts += [text[at:begin], token] if begin > at else [token]
            at = searched
    return [*parts, text[at:]] if at < len(text) or not parts else parts


def _token(inside: str, names: Sequence[str]) -> Token | None:
    """Of what stands between two braces; None when that is nothing of ours."""
    operation = next(one for one in _OPERATIONS if inside.endswith(one))
    which = _which(inside.removesuffix(operation), names)
    return None if which == "" or (which in (NUMBER, SLOT) and operation) else Token(which, _OPERATIONS[operation])


def _which(name: str, names: Sequence[str]) -> str | int | None:
    """An empty str when it is nothing of ours."""
    if not name:
        return None
    if name in (NUMBER, SLOT):
        return name
    if name in names:
        return names.index(name) + 1
    if not (name.isascii() and name.removeprefix("-").isdigit()):
        return ""
    return int(name) or None  # {0} is {}


def _pieces(text: str, names: Sequence[str]) -> Iterator[str]:
    """The words of a command line, and what is between them. There may be space in a name within braces."""
    spaced = [name for name in names if name.split() != [name]]
    if not spaced:
        return ("".join(some) for _, some in groupby(text, str.isspace))
    import re  # which takes 5 ms to load

    each, operations = ("|".join(map(re.escape, some)) for some in (spaced, _OPERATIONS))
    return iter(re.split(rf"((?:\{{(?:{each})(?:{operations})\}}|\S)+)", text))


class Text:
    """One text. With -N, ``x {}`` stands for ``x a b`` of two arguments: word by word, as in a command."""

    def __init__(self, text: str, names: Sequence[str], repeat: bool) -> None:
        """
        Args:
            repeat: As for `Word`.
        """
        self._words = [Word(one, names, repeat) for one in (_pieces(text, names) if repeat else [text])]
        self.is_constant = not any(word.tokens for word in self._words)
        self.uses_slot = any(word.uses_slot for word in self._words)

    def of(self, row: Row) -> str:
        """What it is for this one."""
        return "".join(word.text(row) for word in self._words)


class Template:
    """A command with replacement strings: words for a program, or one text for a shell."""

    def __init__(self, words: Sequence[str], *, shell: bool, names: Sequence[str] = (), repeat: bool = False) -> None:
        """
        Args:
            words: Of the command. None: the arguments themselves are a shell's command line.
            shell: Whether the one word is for ``/bin/sh -c``. What is replaced in it is quoted.
            names: Of the arguments.
            repeat: As for `Word`.
        """
        self.shell = shell or not words
        self._raw = not words
        pieces = _pieces(words[0], names) if shell and words else words
        self._words = [Word(one, names, repeat) for one in pieces]
        tokens = [token for word in self._words for token in word.tokens]
        self.uses_slot = any(one.uses_slot for one in self._words) or any("PARALLEL_JOBSLOT" in one for one in words)
        self._last: tuple[Row | None, list[str]] = None, []
        if words and not tokens:
            self._words += [Word(" "), Word("{}")] if self.shell else [Word("{}")]

    def argv(self, row: Row) -> list[str]:
        """The program and its arguments."""
        if row is not self._last[0]:  # asked for twice: to be shown, and to be run
            self._last = row, [one for word in self._words for one in word.words(row)]
        return self._last[1]

    def command_line(self, row: Row) -> str:
        """For a shell."""
        if self._raw:
            return " ".join(row.args)
        if not self.shell:
            argv = self.argv(row)
            if all(argv) and _is_plain("".join(argv), _PLAIN):  # as most are: then no word is to be quoted
                return " ".join(argv)
            return " ".join((*map(quote, argv[:1]), *map(quote_word, argv[1:])))
        return "".join(word.text(row, quote) for word in self._words)

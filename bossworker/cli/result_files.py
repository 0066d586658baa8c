"""``--results NAME``: what each job has printed, in files of its own or in a table, as GNU parallel has them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence

from bossworker.cli import printers
from bossworker.cli.inputs import Joined
from bossworker.cli.joblog import HEADER
from bossworker.cli.outcomes import Ended, Output, bytes_of
from bossworker.cli.replacements import Row, Text
from bossworker.commands.hosting.relaying import tagged

TABLES = (".csv", ".tsv", ".json")
_COLUMNS = HEADER.split("\t")
_NAME_MOST = 255  # bytes of a file's name
_NUMBER = r"[ \t]*([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)"  # at the beginning, as Perl reads it


def is_table(name: str) -> bool:
    """Whether all jobs have one file."""
    return name.lower().endswith(TABLES)


def printer(
    name: str, names: Sequence[str], repeat: bool, append: bool, before: Callable[[], None]
) -> printers.Printer:
    """For ``--results NAME``.

    Args:
        names: Of the arguments.
        repeat: As for `Text`.
        append: Whether a table has the rows of a run before.
        before: Called before something is printed.
    """
    if not is_table(name):
        return ResultFolders(name, names, repeat)
    sheet = Sheet(name, append, before)
    return ResultLines(sheet) if name.lower().endswith(".json") else ResultTable(sheet, names)


class ResultFolders:
    """``NAME/1/ARG/2/ARG2/{seq,stdout,stderr}``; with ``--header``, names stand for the numbers, in their order.

    With replacement strings in it, NAME is the file of stdout, beside which are ``NAME.err`` and ``NAME.seq``; if it
    ends in a slash, the folder of all three.
    """

    def __init__(self, name: str, names: Sequence[str], repeat: bool) -> None:
        self._name = Text(name, names, repeat)
        self._names = names

    def paths(self, row: Row) -> tuple[str, str, str]:
        """Of stdout, stderr and the job's number."""
        name = self._name.of(row)
        if self._name.is_constant:
            name = os.path.join(name, *self._folders(row.args), "")
        if name.endswith("/"):
            return f"{name}stdout", f"{name}stderr", f"{name}seq"
        return name, f"{name}.err", f"{name}.seq"

    def has(self, row: Row) -> bool:
        """Whether this job's are there already."""
        return os.path.isfile(self.paths(row)[0])

    def _folders(self, args: tuple[str, ...]) -> list[str]:
        return [_as_name(part) for one in _rows_of(args) for pair in self._named(one) for part in pair]

    def _named(self, args: Sequence[str]) -> list[tuple[str, str]]:
        named = list(zip(_names_of(args, self._names), args, strict=True))
        return sorted(named, key=lambda one: _place(one[0])) if self._names else named

    def show(self, ended: Ended) -> None:
        """Its stdout comes last: once that is there, all of it is."""
        stdout, stderr, seq = self.paths(ended.plan.row)
        try:
            os.makedirs(os.path.dirname(stdout) or ".", exist_ok=True)
            _write(seq, str(ended.plan.row.seq).encode())
            _write(stderr, ended.stderr)
            _write(f"{stdout}.part", ended.stdout)
            os.rename(f"{stdout}.part", stdout)
        except OSError as error:
            raise OSError(
                error.errno, error.strerror, f"--results {error.filename2 or error.filename or stdout}"
            ) from None

    def close(self) -> None:
        pass


def _write(path: str, stream: Output) -> None:
    if isinstance(stream, str):
        from bossworker.commands import ended_job

        ended_job.copy_file(stream, path)
    else:
        with open(path, "wb") as file:
            file.write(stream)


def _rows_of(args: tuple[str, ...]) -> Sequence[tuple[str, ...]]:
    """One, but with -N: each of them is numbered, or named, from the beginning."""
    return args.rows if isinstance(args, Joined) else (args,)


def _names_of(args: Sequence[str], names: Sequence[str], letter: str = "") -> list[str]:
    """Those that have none are numbered, behind this letter."""
    return [*names[: len(args)], *(f"{letter}{at}" for at in range(len(names) + 1, len(args) + 1))]


def _place(name: str) -> tuple[float, str]:
    """By the number that it begins with; what begins with none counts as zero."""
    number = re.match(_NUMBER, name, re.ASCII)
    return float(number[1]) if number else 0.0, name


def _as_name(arg: str) -> str:
    r"""As GNU parallel: a slash is ``\_``, a backslash ``\\``, a tab ``\t``; and no way up."""
    name = arg.replace("\\", "\\\\").replace("\t", "\\t").replace("/", "\\_").replace("\0", "\\0")
    name = {".": "\\.", "..": "\\..", "": "\\"}.get(name, name)
    return os.fsdecode(os.fsencode(name)[:_NAME_MOST])


class Sheet:
    """The file of a table, or standard output, of ``-.csv``. A row is there as soon as its job has ended."""

    def __init__(self, name: str, append: bool, before: Callable[[], None]) -> None:
        self._name = f"--results {name}"
        self._before = before
        self.extension = name.lower().rpartition(".")[2]
        if name[:-4] == "-" or name[:-5] == "-":
            self._fd = os.dup(1)
        else:
            flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_APPEND if append else os.O_TRUNC)
            try:
                self._fd = os.open(name, flags, 0o666)
            except OSError as error:
                error.filename = self._name
                raise
        self.has_rows = append and os.fstat(self._fd).st_size > 0

    def write(self, text: str) -> None:
        """A row."""
        self._before()
        try:
            printers.write(self._fd, text.encode("utf-8", "surrogateescape"))
        except OSError as error:
            error.filename = self._name
            raise

    def close(self) -> None:
        """Give up the file."""
        os.close(self._fd)


class ResultTable:
    """``X.csv`` or ``X.tsv``: one line per job, in GNU parallel's columns."""

    def __init__(self, sheet: Sheet, names: Sequence[str]) -> None:
        import csv

        self._sheet = sheet
        self._writer = csv.writer(sheet, "excel-tab" if sheet.extension == "tsv" else "excel", lineterminator="\n")
        self._names = names
        self._width: int | None = None  # arguments of the first job, for which there are columns

    def show(self, ended: Ended) -> None:
        args = ended.plan.row.args
        if self._width is None:
            self._width = len(args)
            if not self._sheet.has_rows:
                self._writer.writerow([*_COLUMNS, *_names_of(args, self._names, "V"), "Stdout", "Stderr"])
        times = f"{ended.started_at:.3f}", f"{ended.seconds:.3f}"
        facts = ended.stdout_bytes, ended.exit_value, ended.signal or 0, ended.plan.text
        blank = [""] * (self._width - len(args))
        streams = (_tagged(one, ended).decode("utf-8", "surrogateescape") for one in (ended.stdout, ended.stderr))
        self._writer.writerow([ended.plan.row.seq, ":", *times, 0, *facts, *args, *blank, *streams])

    def close(self) -> None:
        self._sheet.close()


class ResultLines:
    """``X.json``: a JSON object per job, with GNU parallel's names."""

    def __init__(self, sheet: Sheet) -> None:
        self._sheet = sheet

    def show(self, ended: Ended) -> None:
        times = round(ended.started_at, 3), round(ended.seconds, 3)
        facts = ended.stdout_bytes, ended.exit_value, ended.signal or 0, printers.readable(ended.plan.text)
        line: dict[str, object] = dict(zip(_COLUMNS, (ended.plan.row.seq, ":", *times, 0, *facts), strict=True))
        line["V"] = [printers.readable(one) for one in ended.plan.row.args]
        for name, stream in (("Stdout", ended.stdout), ("Stderr", ended.stderr)):
            line[name] = _tagged(stream, ended).decode("utf-8", "replace")
        self._sheet.write(printers.json_line(line).decode())

    def close(self) -> None:
        self._sheet.close()


def _tagged(stream: Output, ended: Ended) -> bytes:
    return tagged(bytes_of(stream), os.fsencode(ended.plan.tag))

"""Where the arguments of ``bossworker run`` come from: ``:::``, ``::::``, ``-a`` and stdin. All of it is lazy."""

from __future__ import annotations

import os
import select
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

from bossworker.system.records import NamedTuple

TYPE_CHECKING = False
if TYPE_CHECKING:
    import re

NOT_YET = ("\0not yet",)
"""In the place of a row: there is none just now, but there may be later."""

_SPACE = " \t\n\r\f\v"  # as Perl's regular expressions have it, in bytes
TRIMS: dict[str, Callable[[str], str]] = {
    "n": str,
    "l": lambda text: text.lstrip(_SPACE),
    "r": lambda text: text.rstrip(_SPACE),
    "lr": lambda text: text.strip(_SPACE),
    "rl": lambda text: text.strip(_SPACE),
}
"""What ``--trim`` does."""

Rows = Iterator[tuple[str, ...]]
_CHUNK = 1 << 16


class InputError(Exception):
    """An input that cannot be read; the text is for people."""


class Source(NamedTuple):
    """Arguments of the command line, or a file of them ("-" is stdin)."""

    args: Sequence[str] | None = None
    path: str = ""
    linked: bool = False
    """Whether it goes along with the source before it (``:::+``), rather than being combined with it."""


class Joined(tuple[str, ...]):
    """The arguments of several rows, in one."""

    rows: Sequence[tuple[str, ...]]


def _in_one(rows: list[tuple[str, ...]]) -> Joined:
    joined = Joined(sum(rows, ()))
    joined.rows = rows
    return joined


class Records:
    """The records of a file, one after the other; or NOT_YET, when whoever writes it takes his time."""

    def __init__(self, path: str, delimiter: bytes) -> None:
        self._delimiter = delimiter
        try:
            self.fd = 0 if path == "-" else os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            raise InputError(f"cannot read {path!r}: {error.strerror}") from None
        self._may_wait = not stat.S_ISREG(os.fstat(self.fd).st_mode)
        self._path = path

    def __iter__(self) -> Iterator[str | None]:
        rest = b""
        while True:
            if self._may_wait and not _readable(self.fd):
                yield None
                continue
            data = self._read()
            if not data:
                break
            *whole, rest = (rest + data).split(self._delimiter)
            yield from map(os.fsdecode, whole)
        if rest:
            yield os.fsdecode(rest)
        self.close()

    def _read(self) -> bytes:
        try:
            return os.read(self.fd, _CHUNK)
        except OSError as error:
            raise InputError(f"cannot read {self._path!r}: {error.strerror}") from None

    def close(self) -> None:
        """Give up the file."""
        if self.fd > 0:
            os.close(self.fd)
        self.fd = -1


def _readable(fd: int) -> bool:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(0))


class Inputs:
    """All sources together: rows of arguments."""

    def __init__(
        self,
        sources: Sequence[Source],
        *,
        delimiter: bytes = b"\n",
        columns: str | None = None,
        header: bool = False,
        per_job: int = 1,
        trim: str = "n",
        whole: bool = False,
    ) -> None:
        """
        Args:
            columns: A regular expression that separates the arguments within one.
            header: Whether each source begins with the names of its arguments.
            per_job: Arguments (rows) that a job takes; 0: none of them is used, but each makes a job.
            trim: Of which ends of an argument white space is taken away: a key of TRIMS. Names keep theirs.
            whole: Whether all is read before the first row is made, so that there is a total.
        """
        if [source.path for source in sources].count("-") > 1:
            raise InputError("stdin (-) is given twice, and can be read once; put it into a file, and give that twice")
        self.can_be_read_again = all(one.args is not None or _is_regular(one.path) for one in sources)
        """Whether the same command line would get the same arguments."""
        self._delimiter = delimiter
        self._sources = list(map(self._held, sources)) if whole else sources
        self._columns = _compiled(columns) if columns is not None else None
        self._per_job = per_job
        self.waits_for = -1
        self.names: list[str] = []
        self._first: Records | None = None
        groups = self._groups()
        self._opened = [self._open(group, lazy=not index) for index, group in enumerate(groups)]
        self._has_header = header
        self._trim = TRIMS["n"]
        if header:
            self._take_names()
        self._trim = TRIMS[trim]

    def close(self) -> None:
        """Give up what is read lazily."""
        if self._first is not None:
            self._first.close()

    def name_by_files(self) -> None:
        """``--header 0``: arguments that come from a file have its name, the others their numbers."""
        self.names = [source.path or str(at) for at, source in enumerate(self._sources, 1)]

    def total(self) -> int | None:
        """How many jobs there will be, if that can be known without reading what can be read only once."""
        rows = 1
        for group in self._groups():
            counts = [self._count(one) for one in group]
            if None in counts:
                return None
            rows *= max(0, min(count or 0 for count in counts) - self._has_header)
        return -(-rows // max(1, self._per_job))

    def __iter__(self) -> Rows:
        return self._joined() if self._per_job != 1 else self._rows()

    # -- from sources to rows -----------------------------------------------------------------------------

    def _groups(self) -> list[list[Source]]:
        groups: list[list[Source]] = []
        for one in self._sources:
            if one.linked and groups:
                groups[-1].append(one)
            else:
                groups.append([one])
        return groups

    def _held(self, source: Source) -> Source:
        """With its arguments, if it can be read only once."""
        if source.args is not None or _is_regular(source.path):
            return source
        return source._replace(args=list(_patiently(Records(source.path, self._delimiter))))

    def _open(self, group: list[Source], lazy: bool) -> Iterator[tuple[str, ...]]:
        """The rows of sources that go along with each other."""
        columns = [self._records(one, lazy and not index) for index, one in enumerate(group)]
        if len(columns) == 1:
            return (NOT_YET if one is None else self._split(one) for one in columns[0])
        return self._linked(columns)

    def _linked(self, columns: list[Iterator[str | None]]) -> Iterator[tuple[str, ...]]:
        first, *others = columns
        for one in first:
            if one is None:
                yield NOT_YET
                continue
            try:
                rest = [next(other) or "" for other in others]
            except StopIteration:
                return
            yield sum((self._split(value) for value in (one, *rest)), ())

    def _records(self, source: Source, lazy: bool) -> Iterator[str | None]:
        if source.args is not None:
            return iter(source.args)
        records = Records(source.path, self._delimiter)
        if lazy:
            self._first = records
            return iter(records)
        return iter(list(_patiently(records)))

    def _split(self, value: str) -> tuple[str, ...]:
        columns = split_columns(self._columns, value) if self._columns is not None else (value,)
        return tuple(map(self._trim, columns))

    def _take_names(self) -> None:
        for rows in self._opened:
            *names, last = next(self._awaited(rows), ("",))
            self.names += [*names, last.rstrip("\r")]

    def _awaited(self, rows: Iterator[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
        for row in rows:
            if row is not NOT_YET:
                yield row
            elif self._first is not None:
                _wait(self._first.fd)

    def _rows(self) -> Rows:
        first, *others = self._opened
        rest = [list(rows) for rows in others]
        for row in first:
            self.waits_for = -1
            if row is NOT_YET:
                assert self._first is not None
                self.waits_for = self._first.fd
                yield NOT_YET
            elif not rest:
                yield row
            else:
                for combination in product(*rest):
                    yield sum(combination, row)

    def _joined(self) -> Rows:
        """As many rows as a job takes, in one."""
        taken: list[tuple[str, ...]] = []
        for row in self._rows():
            if row is NOT_YET:
                yield row
                continue
            if not self._per_job:
                yield ()
                continue
            taken.append(row)
            if len(taken) == self._per_job:
                yield _in_one(taken)
                taken = []
        if taken:
            yield _in_one(taken)

    def _count(self, source: Source) -> int | None:
        if source.args is not None:
            return len(source.args)
        return _count_records(source.path, self._delimiter) if _is_regular(source.path) else None


def _compiled(separator: str) -> re.Pattern[str]:
    import re  # which takes 5 ms to load

    return re.compile(separator)


def split_columns(separator: re.Pattern[str], value: str) -> Iterator[str]:
    """As Perl does it: what matches nothing separates characters; what is in groups is among the columns."""
    start = at = 0
    while start < len(value) and (found := separator.search(value, at)):
        if found.end() == start:  # nothing, where a column begins
            at += 1
            continue
        yield value[start : found.start()]
        yield from (group or "" for group in found.groups())
        start = at = found.end()
    yield value[start:]


def _patiently(records: Iterable[str | None]) -> Iterator[str]:
    for one in records:
        if one is not None:
            yield one
        elif isinstance(records, Records):
            _wait(records.fd)


def _wait(fd: int) -> None:
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    poll.poll()


def _is_regular(path: str) -> bool:
    try:
        return path != "-" and stat.S_ISREG(os.stat(path).st_mode)
    except OSError:
        return False


def _count_records(path: str, delimiter: bytes) -> int:
    count, last = 0, delimiter
    with open(path, "rb", buffering=0) as file:
        while data := file.read(1 << 20):
            count += data.count(delimiter)
            last = data[-len(delimiter) :]
    return count + (last != delimiter)

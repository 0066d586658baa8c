"""Joblogs, as GNU parallel writes and reads them; and which jobs of a list need not be run again."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterator

from bossworker.cli.outcomes import Ended
from bossworker.system.records import NamedTuple

_MOST_LOOKED_AT = 1 << 20  # bytes of the first line: a command may be long
_STREAMS = ("/dev/std", "/dev/fd/", "/proc/")  # whatever these are, no file can be beside them
HEADER = "Seq\tHost\tStarttime\tJobRuntime\tSend\tReceive\tExitval\tSignal\tCommand"


class LogLine(NamedTuple):
    """One job that has ended."""

    seq: int
    exit_value: int
    signal: int
    command: str

    @property
    def ok(self) -> bool:
        return not (self.exit_value or self.signal)


class JobLogError(Exception):
    """A joblog that cannot be read or written; the text is for people."""


class Joblog:
    """A joblog that is written, one line per job, as it ends; those that end together at once."""

    def __init__(self, path: str, append: bool) -> None:
        self._lines: list[str] = []
        self._path = path
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | (0 if append else os.O_TRUNC)
        try:
            self._fd = os.open(path, flags, 0o666) if path != "-" else os.dup(1)
        except OSError as error:
            raise JobLogError(f"--joblog {path!r} cannot be written: {error.strerror}") from None
        try:
            self._begin()
        except BaseException:
            os.close(self._fd)
            raise

    def _begin(self) -> None:
        stat_of = os.fstat(self._fd)
        size = stat_of.st_size
        self.is_file = stat.S_ISREG(stat_of.st_mode) and self._path != "-" and not self._path.startswith(_STREAMS)
        """Rather than standard output, or another pipe or device: then it has nothing beside it."""
        if not size or not self.is_file:
            self._write(f"{HEADER}\n")
        elif os.pread(self._fd, 1, size - 1) != b"\n":  # it was cut off amid a line, by a power failure perhaps
            self._write("\n")

    def add(
        self, seq: int, started: float, seconds: float, received: int, exit_value: int, signal: int, command: str
    ) -> None:
        """A job has ended."""
        text = command.replace("\n", "\0")
        self._lines.append(f"{seq}\t:\t{started:.3f}\t{seconds:10.3f}\t0\t{received}\t{exit_value}\t{signal}\t{text}\n")

    def add_ended(self, ended: Ended) -> None:
        """The same, with all that is known of it."""
        plan = ended.plan
        facts = ended.seconds, ended.stdout_bytes, ended.exit_value, ended.signal or 0
        self.add(plan.row.seq, ended.started_at, *facts, plan.text)

    def flush(self) -> None:
        """Write what was added."""
        lines, self._lines = "".join(self._lines), []
        self._write(lines)

    def _write(self, text: str) -> None:
        data = os.fsencode(text)
        try:
            while data:
                data = data[os.write(self._fd, data) :]
        except OSError as error:
            raise JobLogError(f"--joblog {self._path!r} cannot be written: {error.strerror}") from None

    def close(self) -> None:
        """Write what was added, and give up the file."""
        try:
            self.flush()
        finally:
            os.close(self._fd)


class Begun:
    """Beside a joblog, while a run lasts: where the joblog ended as it began, and a line for each command that started.

    What has a line there and none in the joblog since was running when the run was killed or the machine stopped.
    """

    def __init__(self, joblog: str) -> None:
        self._joblog = joblog
        self._fd = -1
        self.path = f"{joblog}.running"

    def interrupted(self) -> set[str]:
        """The commands of the run before this one that have begun and not ended."""
        try:
            with open(self.path, "rb") as file:
                at = int(file.readline() or b"0")
                lines = {os.fsdecode(line.rstrip(b"\n")).replace("\0", "\n") for line in file}
        except (OSError, ValueError):
            return set()
        return lines - {line.command for line in read(self._joblog, at)}

    def begin(self) -> None:
        """A new run begins. OSError when it cannot be written."""
        size = os.path.getsize(self._joblog)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
        self._fd = os.open(self.path, flags, 0o666)
        os.write(self._fd, b"%d\n" % size)

    def add(self, commands: list[str]) -> None:
        """These have begun. A full disk does not keep them from that."""
        try:
            os.write(self._fd, os.fsencode("".join(one.replace("\n", "\0") + "\n" for one in commands)))
        except OSError:
            pass

    def close(self) -> None:
        """Give up the file."""
        if self._fd >= 0:
            os.close(self._fd)
        self._fd = -1

    def end(self) -> None:
        """Nothing is running any more, and all that was has its line in the joblog."""
        try:
            os.unlink(self.path)
        except FileNotFoundError:
            pass


def check(path: str, there: bool) -> None:
    """JobLogError: it is something else, to which nothing should be added; or there is none, where one has to be.

    Or a name that is mistyped would mean that nothing has failed.
    """
    try:
        with open(path, "rb") as file:
            first = os.fsdecode(file.readline(_MOST_LOOKED_AT)) if stat.S_ISREG(os.fstat(file.fileno()).st_mode) else ""
    except FileNotFoundError:
        if there:
            raise JobLogError(f"--retry-failed: there is no joblog {path!r} yet") from None
        return
    except OSError as error:
        raise JobLogError(f"--joblog {path!r} cannot be read: {error.strerror}") from None
    if not (first.startswith("Seq\t") or HEADER.startswith(first.rstrip("\n")) or _parsed(first)):
        raise JobLogError(f"--joblog {path!r} is no joblog: it begins with {first.rstrip()!r:.80}")


def read(path: str, begin: int = 0) -> Iterator[LogLine]:
    """The lines of a joblog from a byte on. What is no such line (it may have been cut off) is passed over."""
    try:
        with open(path, "rb") as file:
            file.seek(begin)
            yield from filter(None, (_parsed(os.fsdecode(line)) for line in file))
    except FileNotFoundError:
        return
    except OSError as error:
        raise JobLogError(f"--joblog {path!r} cannot be read: {error.strerror}") from None


def _parsed(text: str) -> LogLine | None:
    fields = text.rstrip("\n").split("\t", 8)
    try:
        return LogLine(int(fields[0]), int(fields[6]), int(fields[7]), fields[8].replace("\0", "\n"))
    except (IndexError, ValueError):
        return None


class Finished:
    """Which commands need not be run, by what they are and not by their place in the list, which may have changed."""

    def __init__(self, lines: Iterator[LogLine], failed_too: bool) -> None:
        """
        Args:
            failed_too: Whether one that failed counts as finished.
        """
        last: dict[tuple[int, str], bool] = {}
        for line in lines:
            last[line.seq, normalised(line.command)] = line.ok
        self._left = Counter(command for (_, command), ok in last.items() if ok or failed_too)

    def __bool__(self) -> bool:
        return bool(self._left)

    def takes(self, command: str) -> bool:
        """Whether this one is finished; one that is in the list several times has to be in the log as often."""
        key = normalised(command)
        if self._left[key] > 0:
            self._left[key] -= 1
            return True
        return False

    def copy(self) -> Finished:
        """With the same left."""
        twin = Finished(iter(()), False)
        twin._left = self._left.copy()
        return twin


def normalised(command: str) -> str:
    """A command line whose characters are quoted in one way: GNU parallel writes ``a\\ b`` where we write ``'a b'``."""
    if not any(mark in command for mark in "\\'\""):
        return command
    return re.sub(_QUOTED, _marked, command, flags=re.DOTALL)


_QUOTED = r"'([^']*)'|\\(.)|\"((?:[^\"\\]|\\.)*)\""  # both are compiled when they are needed
_UNSAFE = r"[^\w@%+=:,./-]"
_LITERAL, _IN_DOUBLE, _EMPTY = "\1", "\2", "\3"


def _marked(found: re.Match[str]) -> str:
    """What is quoted, with a mark before each character that quotes matter for."""
    single, escaped, double = found.groups()
    if double is not None:
        return re.sub(_UNSAFE, rf"{_IN_DOUBLE}\g<0>", double, flags=re.ASCII) or _EMPTY
    return re.sub(_UNSAFE, rf"{_LITERAL}\g<0>", single if escaped is None else escaped, flags=re.ASCII) or _EMPTY


def failures(path: str) -> list[LogLine]:
    """The jobs of a joblog whose last run failed, in order."""
    last = {line.seq: line for line in read(path)}
    return [last[seq] for seq in sorted(last) if not last[seq].ok]

"""What a run prints of each job that has ended, and in which order."""

from __future__ import annotations

import os
from collections.abc import Callable

from bossworker.cli.outcomes import Ended, Output, bytes_of, last_bytes
from bossworker.cli.replacements import Row
from bossworker.commands.hosting.relaying import tagged
from bossworker.system.records import Protocol

MOST_WAITING = 10_000  # jobs whose output waits for its turn (-k)
_CHUNK = 1 << 20
_MOST_HELD = 1 << 26  # bytes that wait in memory for their turn (-k); what is more waits in files


class Printer(Protocol):
    """Shows jobs."""

    def show(self, ended: Ended) -> None:
        """One has ended."""

    def close(self) -> None:
        """There are no more."""


def write(fd: int, data: bytes) -> None:
    """All of it. OSError says where to."""
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError as error:
        error.filename = "standard output" if fd == 1 else "standard error"
        raise


def say(text: str) -> None:
    """Words for people go to stderr; where that is closed, they go nowhere."""
    try:
        data = f"{text}\n".encode("utf-8", "surrogateescape")  # names of files are bytes
    except UnicodeEncodeError:
        data = f"{text}\n".encode("utf-8", "backslashreplace")
    try:
        write(2, data)
    except OSError:
        pass


class Grouped:
    """stdout, then stderr, of one job after the other."""

    def __init__(self, before: Callable[[], None]) -> None:
        """
        Args:
            before: Called before something is printed: a bar may be in the way.
        """
        self._before = before

    def show(self, ended: Ended) -> None:
        if not (ended.stdout or ended.stderr):
            return
        self._before()
        for fd, stream in ((1, ended.stdout), (2, ended.stderr)):
            if stream:
                _pass_on(fd, stream, ended.plan.tag.encode("utf-8", "surrogateescape"))

    def close(self) -> None:
        pass


def _pass_on(fd: int, stream: Output, tag: bytes) -> None:
    if isinstance(stream, bytes):
        write(fd, tagged(stream, tag))
        return
    with open(stream, "rb") as file:
        rest = b""
        while data := file.read(_CHUNK):
            whole, newline, rest = (rest + data).rpartition(b"\n") if tag else (data, b"", b"")
            write(fd, tagged(whole + newline, tag))
        write(fd, tagged(rest, tag))


class Folded:
    """As Grouped, in the folds of a GitHub workflow's log; what failed is not folded, and marked."""

    def __init__(self, inner: Printer, before: Callable[[], None]) -> None:
        self._inner = inner
        self._before = before

    def show(self, ended: Ended) -> None:
        self._before()
        title = " ".join(ended.plan.text.split())
        if ended.ok:
            write(1, os.fsencode(f"::group::{title}\n"))
            self._show_inner(ended)
            write(1, b"::endgroup::\n")
            return
        write(1, os.fsencode(f"{title}\n"))
        self._show_inner(ended)
        write(1, os.fsencode(f"::error title={_property(title)}::{_escaped(f'{title}: {ended.words}')}\n"))

    def _show_inner(self, ended: Ended) -> None:
        """What a workflow is told begins a line: so the output before it has to end one."""
        self._inner.show(ended)
        if isinstance(self._inner, Grouped):
            for fd, stream in ((1, ended.stdout), (2, ended.stderr)):
                if stream and last_bytes(stream, 1) != b"\n":
                    write(fd, b"\n")

    def close(self) -> None:
        self._inner.close()


def _escaped(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _escaped(text).replace(":", "%3A").replace(",", "%2C")


def json_line(value: object) -> bytes:
    """As `json_text`."""
    from bossworker.cli.json_text import json_text  # json takes as long to load as a third of this package

    return json_text(value).encode() + b"\n"


class JsonLines:
    """A JSON object a job."""

    def __init__(self, before: Callable[[], None], with_answers: bool = False) -> None:
        """
        Args:
            with_answers: Whether it has what a handler in Python has returned, under ``result``.
        """
        self._before = before
        self._with_answers = with_answers

    def show(self, ended: Ended) -> None:
        self._before()
        line = described(ended)
        if self._with_answers:
            line["result"] = dict(ended.answer)
        write(1, json_line(line))

    def close(self) -> None:
        pass


def described(ended: Ended) -> dict[str, object]:
    """The documented form: see docs of ``run --json`` in the manual page."""
    return {
        **planned(ended.plan.row, ended.plan.text),
        "ok": ended.ok,
        "exit_code": ended.exit_code,
        "signal": ended.signal,
        "error": ended.kind or None,
        "reason": ended.reason or None,
        "started": round(ended.started_at, 3),
        "seconds": round(ended.seconds, 6),
        "tries": ended.plan.tries,
        "job": ended.jobid or None,
        "stdout": _text(ended.stdout),
        "stderr": _text(ended.stderr),
    }


def planned(row: Row, text: str) -> dict[str, object]:
    """What is known before it runs: all that ``--dry-run --json`` tells."""
    return {"seq": row.seq, "args": [readable(one) for one in row.args], "command": readable(text)}


def readable(text: str) -> str:
    """Of names and command lines, which may be any bytes, what is no UTF-8 replaced."""
    return os.fsencode(text).decode("utf-8", "replace")


def _text(stream: Output) -> str:
    return bytes_of(stream).decode("utf-8", "replace")


class Answers:
    """What a handler in Python has returned, a JSON line each."""

    def __init__(self, before: Callable[[], None]) -> None:
        self._before = before

    def show(self, ended: Ended) -> None:
        self._before()
        line = dict(ended.answer) if ended.ok else {**ended.answer, "job": ended.plan.job}
        write(1, json_line(line))

    def close(self) -> None:
        pass


class Nothing:
    """For ``-u`` and ``--line-buffer``, whose output is there already."""

    def show(self, ended: Ended) -> None:
        pass

    def close(self) -> None:
        pass


class InOrder:
    """Shows them in the order of the input, whatever ends first."""

    def __init__(self, inner: Printer, folder: str) -> None:
        """
        Args:
            folder: For what has to wait and is too much to be kept in memory.
        """
        self.inner = inner
        self._folder = folder
        self._next = 0
        self._waiting: dict[int, Ended | None] = {}
        self._held = 0

    def show(self, ended: Ended) -> None:
        self._pass(ended.plan.place, ended)

    @property
    def is_full(self) -> bool:
        """Whether too many wait for their turn: no more should be started before it comes."""
        return len(self._waiting) >= MOST_WAITING

    def drop(self, index: int) -> None:
        """There will be nothing of this one."""
        self._pass(index, None)

    def _pass(self, index: int, ended: Ended | None) -> None:
        if index != self._next:
            self._waiting[index] = ended and self._hold(ended)
            return
        self._release(ended)
        while self._next in self._waiting:
            self._release(self._waiting.pop(self._next))

    def _hold(self, ended: Ended) -> Ended:
        size = sum(len(one) for one in (ended.stdout, ended.stderr) if isinstance(one, bytes))
        if not size or self._held + size <= _MOST_HELD:
            self._held += size
            return ended
        os.makedirs(self._folder, 0o700, exist_ok=True)
        paths = []
        for name, stream in (("out", ended.stdout), ("err", ended.stderr)):
            paths.append(stream)
            if isinstance(stream, bytes) and stream:
                paths[-1] = f"{self._folder}/{ended.plan.place}.{name}"
                with open(paths[-1], "xb") as file:
                    file.write(stream)
        return ended._replace(stdout=paths[0], stderr=paths[1])

    def _release(self, ended: Ended | None) -> None:
        self._next += 1
        if ended is not None:
            if ended.plan.place < self._next - 1 or self._held:
                self._held -= sum(len(one) for one in (ended.stdout, ended.stderr) if isinstance(one, bytes))
                self._held = max(0, self._held)
            self.inner.show(ended)
            discard_files(ended)

    def close(self) -> None:
        """What still waits is shown: the run has stopped, and what it waits for will not come."""
        for index in sorted(self._waiting):
            self._release(self._waiting.pop(index))
        self.inner.close()


def discard_files(ended: Ended) -> None:
    """Those that were handed over."""
    for one in (ended.stdout, ended.stderr):
        if isinstance(one, str):
            try:
                os.unlink(one)
            except FileNotFoundError:
                pass

"""A JUnit report, as CI servers read it: a test case a job."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TextIO
from xml.sax.saxutils import escape, quoteattr

from bossworker.cli.outcomes import Ended, last_bytes

_MOST_OUTPUT = 65536  # bytes of a stream


class JUnitReport:
    """Written as jobs end, so that memory does not grow; the counts in its first line are filled in at last."""

    def __init__(self, path: str) -> None:
        self._name = f"--junit {path}"
        try:
            self._file: TextIO = open(path, "w", encoding="utf-8")  # noqa: SIM115
        except OSError as error:
            error.filename = self._name
            raise
        if not self._file.seekable():
            self._file.close()
            raise OSError(
                errno.ESPIPE, "its first line is written last, which a pipe cannot have; name a file", self._name
            )
        self._tests = self._failed = 0
        self._seconds = 0.0
        with self._named():
            self._file.write('<?xml version="1.0" encoding="utf-8"?>\n')
            self._at = self._file.tell()
            self._file.write(self._head())

    @contextmanager
    def _named(self) -> Iterator[None]:
        """An OSError names the file, which is given up."""
        try:
            yield
        except OSError as error:
            error.filename = self._name
            with suppress(OSError):
                self._file.close()
            raise

    def _head(self) -> str:
        counts = f'tests="{self._tests}" failures="{self._failed}" errors="0" time="{self._seconds:.3f}"'
        return f'<testsuite name="bossworker run" {counts}'.ljust(140) + ">\n"

    def add(self, ended: Ended) -> None:
        """A job has ended. OSError names the file."""
        with self._named():
            self._add(ended)

    def _add(self, ended: Ended) -> None:
        self._tests += 1
        self._failed += not ended.ok
        self._seconds += ended.seconds
        name = quoteattr(_legal(ended.plan.text))
        self._file.write(f'<testcase classname="run" name={name} time="{ended.seconds:.3f}">\n')
        if not ended.ok:
            self._file.write(f"<failure message={quoteattr(_legal(ended.words))}>{_end_of(ended.stderr)}</failure>\n")
        for name, stream in (("system-out", ended.stdout), ("system-err", ended.stderr)):
            if stream:
                self._file.write(f"<{name}>{_end_of(stream)}</{name}>\n")
        self._file.write("</testcase>\n")

    def close(self) -> None:
        """It is complete. OSError names the file."""
        if self._file.closed:
            return
        with self._named(), self._file as file:
            file.write("</testsuite>\n")
            file.flush()
            file.seek(self._at)
            file.write(self._head())


def _end_of(stream: bytes | str) -> str:
    return escape(_legal(last_bytes(stream, _MOST_OUTPUT).decode("utf-8", "replace")))


def _legal(text: str) -> str:
    """Without what no XML may hold."""
    return _ILLEGAL.sub("?", text)


_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")

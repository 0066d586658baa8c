"""Size, line count and SHA-256 of every file under a folder: one job per file, a worker a CPU.

    python examples/checksum_tree.py [DIR] [--workers N] [--slowest N] [--timeout SECONDS] [--json FILE]

Without DIR it reads the folder of Python's own standard library, less the packages that were installed into it. A file
that cannot be read is listed, and the rest go on.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import heapq
import json
import os
import stat
import sys
import sysconfig
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from arguments import MAX_WORKERS, seconds, whole

from bossworker import BossWorker, Result

CHUNK_BYTES = 1 << 20
REDRAW_SECONDS = 0.1  # between two looks of the progress line on a terminal,
LINE_SECONDS = 5.0  # and between two progress lines in a log,
FIRST_LINE_SECONDS = 0.5  # the first of which shows that it is at work
INSTALLED = ("site-packages", "dist-packages")  # folders of what is not of the standard library


# -- in a worker ----------------------------------------------------------------------------------------


def checksum(job: dict[str, str]) -> dict[str, Any]:
    """The work handler: read one file."""
    path = job["path"]
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")  # to open a named pipe could block for ever
    size = lines = 0
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            size += len(chunk)
            lines += chunk.count(b"\n")
            digest.update(chunk)
    return {"bytes": size, "lines": lines, "sha256": digest.hexdigest()}


# -- in the caller --------------------------------------------------------------------------------------


@dataclass
class Summary:
    """What is known of the tree so far."""

    root: str
    skipped: tuple[str, ...] = ()  # folders of these names are left out
    files: list[dict[str, Any]] = field(default_factory=list)
    failures: list[dict[str, str]] = field(default_factory=list)
    bytes: int = 0
    lines: int = 0

    def add(self, result: Result) -> None:
        """Note one file's result."""
        path = os.path.relpath(result.job["path"], self.root)
        if not result.ok:
            self.fail(path, str(result.error_kind), str(result.error))
            return
        self.files.append({"path": path, "seconds": result.duration, **result})
        self.bytes += result["bytes"]
        self.lines += result["lines"]

    def fail(self, path: str, kind: str, error: str) -> None:
        """Note what could not be read."""
        self.failures.append({"path": path, "kind": kind, "error": error})

    def totals(self) -> str:
        """One line with the sums."""
        return (
            f"{len(self.files):,} files, {self.bytes / 1e6:,.1f} MB, {self.lines:,} lines; {len(self.failures)} failed"
        )


def find_jobs(summary: Summary) -> Iterator[dict[str, str]]:
    """A job for each file of the tree, found while the workers are at work."""

    def unreadable(error: OSError) -> None:
        summary.fail(os.path.relpath(str(error.filename), summary.root), "folder", f"{type(error).__name__}: {error}")

    for folder, below, names in os.walk(summary.root, onerror=unreadable):
        below[:] = [name for name in below if name not in summary.skipped]
        for name in names:
            yield {"path": os.path.join(folder, name)}


class Progress:
    """One line on stderr: rewritten on a terminal, otherwise written anew from time to time."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self.pause = REDRAW_SECONDS if self.is_terminal else LINE_SECONDS
        self.due = 0.0 if self.is_terminal else time.monotonic() + FIRST_LINE_SECONDS

    def show(self, summary: Summary, at_end: bool = False) -> None:
        """Show the sums, if it is time to."""
        now = time.monotonic()
        if now < self.due and not (at_end and self.is_terminal):
            return
        self.due = now + self.pause
        before, after = ("\r", "\x1b[K" + "\n" * at_end) if self.is_terminal else ("", "\n")
        print(before + summary.totals(), end=after, file=self.stream, flush=True)


def read_tree(pool: BossWorker, summary: Summary) -> None:
    """Run the jobs, and show how far they are."""
    progress = Progress(sys.stderr)
    for result in pool.map(find_jobs(summary), ordered=False):
        summary.add(result)
        progress.show(summary)
    progress.show(summary, at_end=True)


def print_report(summary: Summary, slowest: int, seconds: float, workers: int) -> None:
    """The table on stdout, below the line that said what is read."""
    if slowest:
        print(f"{'seconds':>10} {'bytes':>14} {'lines':>10}  {'sha256':<16}  slowest files")
    for one in heapq.nlargest(slowest, summary.files, key=lambda one: one["seconds"]):
        numbers = f"{one['seconds']:>10.4f} {one['bytes']:>14,} {one['lines']:>10,}"
        print(f"{numbers}  {one['sha256'][:16]}  {printable(one['path'])}")
    for one in summary.failures:
        print(f"failed ({one['kind']}): {printable(one['path'])}: {printable(one['error'])}")
    print(summary.totals())
    print(f"{summary.bytes / 1e6 / seconds:,.1f} MB/s: {seconds:.2f} s with {workers} workers")


def printable(text: str) -> str:
    """The text, with quotes and escapes when it holds something that would upset a terminal."""
    return text if text.isprintable() else repr(text)


def write_json(stream: TextIO, summary: Summary, seconds: float, workers: int) -> None:
    """The same for programs, and of all files."""
    report = {
        "files": sorted(summary.files, key=lambda one: one["path"]),
        "failures": summary.failures,
        "bytes": summary.bytes,
        "lines": summary.lines,
        "seconds": seconds,
        "workers": workers,
    }
    json.dump(report, stream, indent=1)
    stream.write("\n")


# -- the command line -----------------------------------------------------------------------------------


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Size, line count and SHA-256 of every file under a folder.")
    parser.add_argument(
        "dir", nargs="?", metavar="DIR", help="default: Python's standard library, without what is installed"
    )
    parser.add_argument(
        "--workers", type=whole(1, MAX_WORKERS), metavar="N", help="default: the CPUs this process may use"
    )
    parser.add_argument(
        "--slowest", type=whole(0, 10**9), default=10, metavar="N", help="how many files to list (default: 10)"
    )
    parser.add_argument("--timeout", type=seconds, default=60, metavar="SECONDS", help="a file (default: 60)")
    parser.add_argument("--json", metavar="FILE", help="write all results there, as JSON")
    return parser


def main() -> int:
    """Run the program; its exit code."""
    parser = make_parser()
    options = parser.parse_args()
    summary = Summary(options.dir) if options.dir else Summary(sysconfig.get_path("stdlib"), INSTALLED)
    if not Path(summary.root).is_dir():
        parser.error(f"no such folder: {summary.root}")
    with contextlib.ExitStack() as stack:
        try:
            report = stack.enter_context(open(options.json, "w", encoding="utf-8")) if options.json else None
        except OSError as error:
            parser.error(f"argument --json: {error}")
        without = f", without {' and '.join(summary.skipped)}" if summary.skipped else ""
        print(f"every file under {printable(summary.root)}{without}", flush=True)
        pool = stack.enter_context(BossWorker(checksum, worker_count=options.workers, global_timeout=options.timeout))
        started = time.monotonic()
        workers = len(pool.worker_pids)
        read_tree(pool, summary)
        elapsed = time.monotonic() - started
        if report:
            write_json(report, summary, elapsed, workers)
    print_report(summary, options.slowest, elapsed, workers)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""Run an external program on every file under a folder: a command a file, a worker a CPU.

    python examples/map_commands.py [DIR] [--do gzip|sha256|count] [--pattern GLOB] [--workers N] [--timeout SECONDS]
                                    [--root DIR]

Without DIR it takes the Python standard library's own folder. ``gzip`` compresses a copy of each file into its job's
directory (the file itself stays as it is), ``sha256`` and ``count`` hash it and count its lines. What failed is listed
at the end, with where to look.
"""

from __future__ import annotations

import argparse
import fnmatch
import os
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from arguments import MAX_WORKERS, seconds, whole

from bossworker import BossWorker, CommandHandler, Result

REDRAW_SECONDS = 0.1  # between two looks of the progress line
GZIP = 'gzip --best --stdout < "$INPUT" > compressed.gz'
COMMANDS: dict[str, Callable[[str], dict[str, Any]]] = {
    "gzip": lambda path: {"cmd": GZIP, "shell": True, "env": {"INPUT": path}},
    "sha256": lambda path: {"cmd": ["sha256sum", "--", path]},
    "count": lambda path: {"cmd": ["wc", "--lines"], "stdin": Path(path)},
}


@dataclass
class Tally:
    """What has been done so far."""

    done: int = 0
    seconds: float = 0.0
    """That the commands took, of CPU time."""
    bytes_in: int = 0
    bytes_out: int = 0
    lines: int = 0
    failures: list[Result] = field(default_factory=list)

    def add(self, what: str, result: Result, root: str) -> None:
        """Note one command's result."""
        self.done += 1
        self.seconds += result.get("user_time", 0.0) + result.get("system_time", 0.0)
        if not result.ok:
            self.failures.append(result)
            return
        self.bytes_in += os.path.getsize(result["meta"]["path"])
        if what == "gzip":
            self.bytes_out += os.path.getsize(os.path.join(root, result["jobid"], "files", "compressed.gz"))
        elif what == "count":
            self.lines += int(result["stdout"])


def find_jobs(folder: str, pattern: str, what: str) -> Iterator[dict[str, Any]]:
    """A job for each file, found while the workers are at work."""
    for place, _, names in os.walk(folder):
        for name in fnmatch.filter(names, pattern):
            path = os.path.abspath(os.path.join(place, name))
            yield {**COMMANDS[what](path), "meta": {"path": path}}


def run(pool: BossWorker, options: argparse.Namespace, root: str) -> Tally:
    """All commands, with a progress line while they run."""
    tally, due = Tally(), 0.0
    for result in pool.map(find_jobs(options.dir, options.pattern, options.do), ordered=False, timeout=options.timeout):
        tally.add(options.do, result, root)
        if sys.stderr.isatty() and time.monotonic() >= due:
            due = time.monotonic() + REDRAW_SECONDS
            print(f"\r{tally.done:,} files, {len(tally.failures):,} failed", end="\x1b[K", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r", end="\x1b[K", file=sys.stderr, flush=True)
    return tally


def print_report(tally: Tally, what: str, root: str, seconds: float) -> None:
    """What came of it, the failures in a table, and where everything is."""
    if tally.failures:
        print(f"{'status':<24} {'error':<32} file")
    for result in tally.failures:
        path = result.job["meta"]["path"]
        print(f"{result.get('status', '-'):<24} {result.error!s:<32.32} {path if path.isprintable() else repr(path)}")
        for line in result.get("stderr", str(result.error)).splitlines()[-1:]:
            print(f"{'':<24} {line}")
    print(f"{tally.done:,} files, {len(tally.failures):,} failed, {tally.bytes_in / 1e6:,.1f} MB read")
    if what == "gzip" and tally.bytes_in:
        print(f"compressed to {tally.bytes_out / 1e6:,.1f} MB, {tally.bytes_out / tally.bytes_in:.0%}")
    if what == "count":
        print(f"{tally.lines:,} lines")
    print(f"{tally.done / seconds:,.0f} commands a second, {tally.seconds:.2f} s of CPU time")
    print(f"job directories: {root}")


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Run an external program on every file under a folder.")
    parser.add_argument("dir", nargs="?", metavar="DIR", help="default: the folder of Python's standard library")
    parser.add_argument("--do", choices=COMMANDS, default="sha256", help="what to do with each (default: sha256)")
    parser.add_argument("--pattern", default="*.py", metavar="GLOB", help="of the files' names (default: *.py)")
    parser.add_argument(
        "--workers", type=whole(1, MAX_WORKERS), metavar="N", help="default: the CPUs this process may use"
    )
    parser.add_argument("--timeout", type=seconds, default=60, metavar="SECONDS", help="a file (default: 60)")
    parser.add_argument("--root", metavar="DIR", help="where the job directories go (default: a new temporary folder)")
    return parser


def main() -> int:
    """Run the program; its exit code: 1 when a command failed."""
    parser = make_parser()
    options = parser.parse_args()
    options.dir = options.dir or sysconfig.get_path("stdlib")
    if not Path(options.dir).is_dir():
        parser.error(f"no such folder: {options.dir}")
    root = os.path.abspath(options.root or tempfile.mkdtemp(prefix="map-commands-"))
    with BossWorker(CommandHandler(root=root, keep="all"), worker_count=options.workers) as pool:
        started = time.monotonic()
        tally = run(pool, options, root)
        elapsed = time.monotonic() - started
    print_report(tally, options.do, root, elapsed)
    return 1 if tally.failures else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

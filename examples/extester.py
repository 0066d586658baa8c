"""A program to try other programs on: it says, makes, waits and ends as it is told.

    python examples/extester.py [--stdout TEXT] [--stderr TEXT] [--stdin] [--create NAME=SIZE ...] [--sleep SECONDS]
                                [--repeat N] [--exit CODE] [--kill SIGNAL]

``--create a.txt=5 few/new/folders/b.txt=3 an/empty/folder/=0`` makes two files of 5 and 3 bytes, with the folders they
are in, and a folder; all below where it runs: no absolute name is taken, and no ``..``. ``--repeat`` says and sleeps
that many times. After the test program of Proc::Async, whose options (``-stdout TEXT`` and so on) are understood, too.
"""

from __future__ import annotations

import argparse
import os
import re
import signal
import sys
import time
from pathlib import Path

from arguments import seconds, whole


def create(order: str) -> None:
    """Make one file, or a folder if the name ends in a slash."""
    name, _, size = order.rpartition("=")
    path = Path(name)
    if name.endswith("/"):
        path.mkdir(parents=True, exist_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes((b"0123456789" * (int(size) // 10 + 1))[: int(size)])


def file_order(text: str) -> str:
    """NAME=SIZE, checked."""
    name, _, size = text.rpartition("=")
    if not name or not size.isdecimal():
        raise argparse.ArgumentTypeError(f"expected NAME=SIZE, such as data/a.txt=100, not {text!r}")
    if name.startswith("/") or ".." in name.split("/"):
        raise argparse.ArgumentTypeError(f"expected a name below this folder, not {name!r}")
    return text


def make_parser() -> argparse.ArgumentParser:
    """The options."""
    parser = argparse.ArgumentParser(description="Says, makes, waits and ends as it is told.")
    parser.add_argument("--stdout", default="", metavar="TEXT", help="a line for stdout")
    parser.add_argument("--stderr", default="", metavar="TEXT", help="a line for stderr")
    parser.add_argument("--stdin", action="store_true", help="copy stdin to stdout first")
    parser.add_argument("--create", type=file_order, nargs="+", default=[], metavar="NAME=SIZE", help="files to make")
    parser.add_argument("--sleep", type=seconds, default=0, metavar="SECONDS", help="then sleep so long")
    parser.add_argument(
        "--repeat", type=whole(0, 10**9), default=1, metavar="N", help="say and sleep so often (default: 1)"
    )
    parser.add_argument("--exit", type=whole(0, 255), default=0, metavar="CODE", help="the exit code (default: 0)")
    parser.add_argument("--kill", type=whole(0, 64), default=0, metavar="SIGNAL", help="end by this signal instead")
    return parser


def main() -> int:
    """Do as told; the exit code."""
    two_dashes = [f"-{arg}" if re.fullmatch("-[a-z]{2,}", arg) else arg for arg in sys.argv[1:]]
    options = make_parser().parse_args(two_dashes)
    if options.stdin:
        sys.stdout.write(sys.stdin.read())
    for order in options.create:
        create(order)
    for _ in range(options.repeat):
        if options.stdout:
            print(options.stdout, flush=True)
        if options.stderr:
            print(options.stderr, file=sys.stderr, flush=True)
        time.sleep(options.sleep)
    if options.kill:
        signal.signal(options.kill, signal.SIG_DFL) if options.kill not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), options.kill)
    return int(options.exit)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

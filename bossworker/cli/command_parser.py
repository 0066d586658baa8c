"""How the commands other than `run` read their arguments, and show their help."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from bossworker.cli.entries import EntryError
from bossworker.cli.selecting import SelectError

NO_SUCH, TIME_IS_UP = 125, 124  # exit statuses: no such job; `wait` has waited long enough
FAILED = 1

IDS = "ID: a unique beginning of an id, a name, last, all or failed"

Given = TypeVar("Given")


def make_parser(
    name: str, text: str, examples: Sequence[str], ids: str = "", as_json: bool = True
) -> argparse.ArgumentParser:
    """
    Args:
        as_json: Whether it can answer in JSON.
        ids: How many ids it takes, as argparse has it ("+", "*"); empty: it has no such arguments.
    """
    told = "\n".join(f"  bossworker {name} {one}".rstrip() for one in examples)
    parser = argparse.ArgumentParser(
        prog=f"bossworker {name}",
        description=text,
        epilog=f"examples:\n{told}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if ids:
        parser.add_argument("ids", nargs=None if ids == "1" else ids, metavar="ID", help=IDS.partition(": ")[2])
    if as_json:
        parser.add_argument("--json", action="store_true", help="JSON to stdout")
    return parser


def check_with(parse: Callable[[str], Given]) -> Callable[[str], Given]:
    """For argparse: so that the parser's own words are told."""

    def check(text: str) -> Given:
        try:
            return parse(text)
        except (TypeError, ValueError) as error:
            raise argparse.ArgumentTypeError(f"{text!r}: {error}") from None

    return check


def show_json(value: object) -> None:
    """A line to stdout."""
    print(json.dumps(value, default=str), flush=True)


def complain(command: str, error: object) -> None:
    """A line to stderr."""
    print(f"bossworker {command}: {error}", file=sys.stderr)


def told(command: str, work: Callable[[], int]) -> int:
    """Do it; errors that people can do something about are told without a traceback."""
    try:
        return work()
    except SelectError as error:
        complain(command, error)
        return NO_SUCH
    except (EntryError, OSError, ValueError, TypeError) as error:
        if isinstance(error, BrokenPipeError):
            raise
        complain(command, error)
        return FAILED


def pairs(texts: Sequence[str], what: str) -> Mapping[str, Any]:
    """``K=V`` each. ValueError names what is none."""
    for one in texts:
        if "=" not in one:
            raise ValueError(f"{what} {one!r}: it is written K=V")
    return dict(one.split("=", 1) for one in texts)

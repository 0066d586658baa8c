"""How the commands other than `run` read their arguments, and show their help."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

from bossworker.cli.argument_parser import ArgumentParser
from bossworker.cli.entries import EntryError, GoneError
from bossworker.cli.json_text import json_text
from bossworker.cli.main import USAGE
from bossworker.cli.printers import say
from bossworker.cli.quantities import shortened
from bossworker.cli.selecting import SelectError

NO_SUCH, TIME_IS_UP = 125, 124  # exit statuses: no such job; `wait` has waited long enough
FAILED = 1

IDS = "ID: a name, a unique beginning of an id, last, all or failed"


class CommandParser(ArgumentParser):
    """What makes no sense is told in a line, with the next step."""

    def error(self, message: str) -> NoReturn:
        say(f"{self.prog}: {shortened(message)}\n({self.prog} --help shows how it is used)")
        self.exit(USAGE)


def make_parser(
    name: str, text: str, examples: Sequence[str], ids: str = "", as_json: bool = True
) -> argparse.ArgumentParser:
    """
    Args:
        as_json: Whether it can answer in JSON.
        ids: How many ids it takes, as argparse has it ("+", "*"); empty: it has no such arguments.
    """
    told = "\n".join(f"  bossworker {name} {one}".rstrip() for one in examples)
    parser = CommandParser(
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


def show_json(value: object) -> None:
    """A line to stdout."""
    print(json_text(value), flush=True)


def complain(command: str, error: object) -> None:
    """A line to stderr."""
    say(f"bossworker {command}: {shortened(str(error))}")


def told(command: str, work: Callable[[], int]) -> int:
    """Do it; errors that people can do something about are told without a traceback."""
    try:
        return work()
    except (SelectError, GoneError) as error:
        complain(command, error)
        return NO_SUCH
    except (EntryError, OSError, ValueError, TypeError, RuntimeError) as error:  # RuntimeError: there is no home
        if isinstance(error, OSError) and (isinstance(error, BrokenPipeError) or _output_is_lost()):
            raise  # main tells it, or it would be told again as Python flushes
        complain(command, error)
        return FAILED


def _output_is_lost() -> bool:
    """Whether what has been printed cannot be written."""
    try:
        print(end="", flush=True)
    except OSError:
        return True
    return False


def pairs(texts: Sequence[str]) -> Mapping[str, Any]:
    """Of ``K=V`` each."""
    return dict(one.split("=", 1) for one in texts)
